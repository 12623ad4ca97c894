"""Running diagrams: the pure scheduler, the engine around it, one handler per node type, and the run's record."""

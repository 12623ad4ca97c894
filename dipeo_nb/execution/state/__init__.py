"""Run stores: where the events of every run are kept."""

"""Language models: one service over all providers."""

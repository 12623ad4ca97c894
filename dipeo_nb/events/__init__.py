"""Distribution of events that are already stored."""

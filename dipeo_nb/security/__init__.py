"""API keys: where they come from, and how they are shown (never whole)."""

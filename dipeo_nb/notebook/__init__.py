"""The entry point for notebooks: sessions, runs as objects, their live view, and the static form that it leaves."""

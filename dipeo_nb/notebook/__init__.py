"""The door for notebooks: sessions, runs as objects, the live view and what stays of it."""

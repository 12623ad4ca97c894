"""Checks of a diagram, by subject. Each is a function of one `CheckState`, to which it reports."""

"""Utilities every room may use."""

"""Adapters to web services."""

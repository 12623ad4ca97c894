"""Manifests of the providers that come with this package, and their hooks."""

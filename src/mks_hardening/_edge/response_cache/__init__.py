"""Caching of whole HTTP responses."""

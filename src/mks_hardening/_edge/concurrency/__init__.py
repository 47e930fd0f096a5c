"""Limits of the number of requests that are handled at the same time."""

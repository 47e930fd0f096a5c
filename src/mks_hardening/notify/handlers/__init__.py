"""Logging handlers, one per kind of destination, and their base class."""

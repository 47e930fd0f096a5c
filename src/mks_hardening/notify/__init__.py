"""Placeholder docstring, replaced by the area."""

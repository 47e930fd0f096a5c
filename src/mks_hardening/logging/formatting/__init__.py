"""Formatting of log records as JSON lines."""

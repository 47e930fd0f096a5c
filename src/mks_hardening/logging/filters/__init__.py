"""Filters for handlers: by level, for context fields, for secrets."""

"""Filters for handlers: by level, for the context of the request, for secrets."""

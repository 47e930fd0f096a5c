"""Fields of request log records."""

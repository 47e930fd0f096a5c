"""The same services as JSON, with problem documents (RFC 9457) for errors."""

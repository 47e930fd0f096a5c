"""JSON API over the same services as the pages, with problem documents (RFC 9457) for errors."""

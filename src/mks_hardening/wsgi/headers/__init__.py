"""Security header fields of responses."""

"""Get a value or compute it, once for all callers that request it at the same time."""

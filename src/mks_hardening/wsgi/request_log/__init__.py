"""Request logging: one log record per request, and the request and trace ids."""

"""Transports for rendered messages: SMTP and HTTP, and the classification of their responses."""

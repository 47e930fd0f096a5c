"""Decisions of the edge: headers, CSRF, HTTPS, sessions, limits and health, independent of WSGI and ASGI."""

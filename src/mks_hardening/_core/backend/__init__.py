"""Clients for servers outside the process: Redis and HTTP."""

"""Connections to servers outside the process: Redis and HTTP."""

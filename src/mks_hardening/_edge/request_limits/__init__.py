"""Limits of the size of requests, and of the time that a body may take."""

"""Suites that any backend can be run through: derive a test class and say how to make the backend."""

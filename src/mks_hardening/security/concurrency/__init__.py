"""Concurrency limits: slots held by lease, in memory or in Redis."""

"""Watching an engine at work: slow statements, statistics, N+1 patterns, budgets, and who holds the pool."""

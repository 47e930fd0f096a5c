"""Deadlines, time budgets and circuit breakers for calls to servers."""

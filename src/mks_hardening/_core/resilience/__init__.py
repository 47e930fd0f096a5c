"""Deadlines, budgets and circuit breakers: how long a call may take, and when it is not tried at all."""

"""Engine monitoring: slow statements, statistics, N+1 patterns, query budgets, connection pool usage."""

"""Rate limits: named groups, counted in memory or in Redis, with a policy for outages."""

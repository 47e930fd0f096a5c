"""Rate limits: named groups of limits, counted in memory or in Redis, with a policy for storage outages."""

"""How much may be under way at once: slots held by lease, in memory or in Redis."""

"""Query plans: read-only EXPLAIN and its parsed result."""

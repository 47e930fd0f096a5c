"""Schema migrations without an outage: a linter of dangerous operations, and safe steps for PostgreSQL."""

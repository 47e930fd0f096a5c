"""Schema migrations without downtime: a linter of dangerous operations, and safe steps for PostgreSQL."""

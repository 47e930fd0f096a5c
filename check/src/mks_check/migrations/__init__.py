"""A linter of schema changes for PostgreSQL that block or break a running application."""

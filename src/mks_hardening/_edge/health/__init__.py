"""Liveness and readiness: paths, checks and responses."""

"""Stores of second factors: in memory, in Redis, and in any database supported by SQLAlchemy."""

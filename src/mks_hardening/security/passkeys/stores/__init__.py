"""Stores of passkey owners and challenges: in memory, in Redis, and in any database supported by SQLAlchemy."""

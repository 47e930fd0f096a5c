"""Signing in: from the name to the session, as one machine that cannot be composed wrongly."""

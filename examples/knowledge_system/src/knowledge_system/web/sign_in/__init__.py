"""Signing in, as steps that pages and JSON endpoints share."""

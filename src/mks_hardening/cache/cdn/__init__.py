"""Purging a content delivery network."""

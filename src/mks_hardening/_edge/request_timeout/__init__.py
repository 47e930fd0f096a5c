"""Deadlines for the responses of an application."""

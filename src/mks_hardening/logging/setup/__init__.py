"""Logging setup of a process, by one call or as a dictionary."""

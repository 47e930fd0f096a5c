"""Logging of the whole process, put in place by one call or as a dictionary."""

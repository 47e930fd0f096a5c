"""Whole answers to HTTP requests, kept and given again."""

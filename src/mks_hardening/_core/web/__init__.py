"""Shared HTTP code: environ keys, path rules, response headers, rate limit fields."""

"""Passwords: their stored form, and which ones are accepted."""

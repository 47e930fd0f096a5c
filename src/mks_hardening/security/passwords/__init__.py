"""Passwords: hashing them, and deciding which ones to accept."""

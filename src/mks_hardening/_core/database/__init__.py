"""Database errors, reduced to text without values."""

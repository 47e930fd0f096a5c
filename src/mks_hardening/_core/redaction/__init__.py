"""Detection of secrets, and their redaction from values and text."""

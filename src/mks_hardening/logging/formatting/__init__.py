"""How a record becomes a line."""

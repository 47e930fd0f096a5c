"""Task store: the table, and every statement that changes a row."""

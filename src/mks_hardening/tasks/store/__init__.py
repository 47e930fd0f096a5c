"""The rows: their table, and every statement that changes one."""

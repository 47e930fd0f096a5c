"""How the tables came to be, revision by revision, on SQLite and PostgreSQL."""

"""How the application does: what each process counts, kept for a day, and what an administrator asks of it."""

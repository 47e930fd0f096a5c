"""Background tasks: reports, mail, reminders, scheduled cleanup."""

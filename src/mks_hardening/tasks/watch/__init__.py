"""How the queue stands, and an alert when nobody works it."""

"""What the application does, as functions on a database session; no web, no globals."""

"""Sign-in steps shared by pages and API."""

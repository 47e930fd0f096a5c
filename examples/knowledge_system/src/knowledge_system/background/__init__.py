"""What runs outside the request: reports, mail, and cleaning up by schedule."""

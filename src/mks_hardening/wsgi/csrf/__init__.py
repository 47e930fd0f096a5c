"""Protection against cross-site request forgery (CSRF)."""

"""HTTPS redirects and allowed hosts."""

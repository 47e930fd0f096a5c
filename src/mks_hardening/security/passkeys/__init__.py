"""Passkeys (WebAuthn): what a site is, what a browser answered, and where challenges and owners are kept."""

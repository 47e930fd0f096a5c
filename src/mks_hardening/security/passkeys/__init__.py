"""Passkeys (WebAuthn): relying party, browser responses, and stores of challenges and owners."""

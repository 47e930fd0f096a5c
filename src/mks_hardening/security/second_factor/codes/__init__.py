"""Codes that users type (TOTP, recovery codes), and QR codes for authenticator apps."""

"""Codes that people type: from an authenticator app, which reads a QR code, and from a list kept in a drawer."""

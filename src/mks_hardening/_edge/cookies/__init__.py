"""Attributes of the cookies that the application itself sets."""

"""Stores of sign-in state, in memory and in Redis."""

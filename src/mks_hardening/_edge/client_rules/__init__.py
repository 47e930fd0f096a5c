"""Blocked clients: lists of networks, and temporary bans after offences."""

"""Maintenance mode: the switch, and what happens to requests while it is on."""

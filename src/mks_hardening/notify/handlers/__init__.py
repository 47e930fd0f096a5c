"""The logging handlers, one for each kind of destination, and their base."""

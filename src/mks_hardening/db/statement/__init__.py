"""One statement by itself: its name whatever the values are, and error texts without values."""

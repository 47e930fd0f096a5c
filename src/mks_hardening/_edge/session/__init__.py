"""Session lifecycle: limits, look-up, cookie and handle."""

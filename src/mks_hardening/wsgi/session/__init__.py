"""Sessions: one idea per module, from the cookie to the stores."""

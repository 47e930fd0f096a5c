"""What everything that speaks HTTP shares: keys of the environ, lists of paths, heads of answers, limit fields."""

"""The plan of a statement: asked for without changing anything, and read."""

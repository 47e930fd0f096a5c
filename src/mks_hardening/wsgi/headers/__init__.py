"""Header fields that tell browsers what a page may not do."""

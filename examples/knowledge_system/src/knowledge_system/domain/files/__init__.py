"""Files that people hand in: what they are, what is taken out of them, what they are called, bundles of them."""

"""Private foundations shared by all packages; nothing here is public."""

"""Private foundations shared by all areas; nothing here is public."""

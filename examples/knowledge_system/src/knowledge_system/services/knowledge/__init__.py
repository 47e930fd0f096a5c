"""What is written down: articles, their review, search and upkeep."""

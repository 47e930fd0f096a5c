"""Articles, their review, search, subscriptions and upkeep."""

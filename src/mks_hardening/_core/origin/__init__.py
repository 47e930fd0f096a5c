"""Where a request came from: which proxies are believed, what they said, and what follows from it."""

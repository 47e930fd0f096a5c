"""Origin of a request: trusted proxies, their headers, and the resulting client, scheme and host."""

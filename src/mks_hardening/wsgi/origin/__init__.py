"""Origin of a request: trusted proxies, allowed hosts and HTTPS."""

"""Where a request comes from and where it belongs: trusted proxies, listed hosts, https."""

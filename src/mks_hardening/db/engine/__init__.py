"""Hardened engines: pool size, timeouts, detection of unresponsive servers, fork safety."""

"""Engines that stay within their limits: connections, waiting, dead servers, forks."""

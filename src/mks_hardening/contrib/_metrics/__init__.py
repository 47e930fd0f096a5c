"""Metrics from events: definitions of all metrics, and fast counters that several processes can share."""

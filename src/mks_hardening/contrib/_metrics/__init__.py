"""What events come to in numbers: the table of all metrics, and counters that are quick and shared by processes."""

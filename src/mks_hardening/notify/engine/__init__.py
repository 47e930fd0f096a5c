"""What lies between a log call and a delivery: deduplication, queue, retries, spool and sums."""

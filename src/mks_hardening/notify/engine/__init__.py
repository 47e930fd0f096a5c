"""Alert engine between log call and delivery: deduplication, queue, retries, spool and counts."""

"""What a migration calls so that it does not block a running application: locks, retries and safe steps."""

"""Cache backends: memory, Redis, both combined, and none."""

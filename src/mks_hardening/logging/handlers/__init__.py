"""Log handlers: standard streams, externally rotated files, rotating files, and a queue in front of them."""

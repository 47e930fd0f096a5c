"""The deployment kit: one validated settings object, rendered to every file a host needs, and tools to run it."""

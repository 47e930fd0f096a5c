"""Deployment tools: render one validated settings object to every file a host needs, and operate the host."""

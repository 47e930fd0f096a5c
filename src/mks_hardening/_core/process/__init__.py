"""Process-level state: threads, forks, exit hooks, and the context of the current request."""

"""Where sign-ins under way are kept: in memory, in Redis."""

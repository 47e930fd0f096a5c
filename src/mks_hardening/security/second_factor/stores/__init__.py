"""Where second factors live: in memory, in Redis, in any database SQLAlchemy speaks to."""

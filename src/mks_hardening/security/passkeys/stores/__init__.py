"""Where passkeys have their owners and challenges: in memory, in Redis, in any database SQLAlchemy speaks to."""

"""Application services: functions on a database session, independent of the web layer and without global state."""

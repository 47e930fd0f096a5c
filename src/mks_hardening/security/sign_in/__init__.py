"""Sign-in state machine: name, password, second factor, session, and changes of credentials."""

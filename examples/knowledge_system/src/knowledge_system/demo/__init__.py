"""What turns the application into a demonstration on one machine: launcher, local CA, mail and chat sink."""

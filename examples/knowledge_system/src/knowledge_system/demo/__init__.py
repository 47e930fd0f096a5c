"""The demonstration on one machine: launcher, local CA, mail and chat sink."""

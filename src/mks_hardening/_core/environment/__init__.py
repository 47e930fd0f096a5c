"""Configuration from the environment: variables, parsers and keys."""

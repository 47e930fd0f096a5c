"""Security header policies and their values."""

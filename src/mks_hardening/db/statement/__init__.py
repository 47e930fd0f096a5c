"""Single statements: fingerprints independent of the values, and error fields without values."""

"""Contents of spans by the semantic conventions: pure functions, independent of OpenTelemetry's classes."""

"""What spans say, by the semantic conventions: pure functions, which know nothing of OpenTelemetry's classes."""

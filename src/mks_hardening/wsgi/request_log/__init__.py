"""One record per request, and the ids that tie its log lines together."""

"""Cross-site request forgery: who sent a request, and form tokens."""

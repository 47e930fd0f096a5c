"""Cross-origin resource sharing (CORS): policies and their decisions."""

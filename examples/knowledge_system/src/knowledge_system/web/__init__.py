"""Web layer: HTML pages that work without JavaScript, and what they share with the JSON API."""

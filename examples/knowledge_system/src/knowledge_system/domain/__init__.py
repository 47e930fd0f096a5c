"""What the application knows without a database and without a web: rules, states, texts, fields."""

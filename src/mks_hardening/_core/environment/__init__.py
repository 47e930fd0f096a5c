"""What operators write: variables, the forms of their texts, and keys."""

"""Tasks that most applications need: mail, and folders that are kept small."""

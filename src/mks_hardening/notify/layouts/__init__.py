"""What an alert looks like: words in two languages, and one layout for each kind of destination."""

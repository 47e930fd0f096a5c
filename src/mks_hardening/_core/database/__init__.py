"""What may be told of the errors of database drivers."""

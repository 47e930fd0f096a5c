"""Reports about a PostgreSQL server, for the command line: they read its catalogs and statistics, and no rows."""

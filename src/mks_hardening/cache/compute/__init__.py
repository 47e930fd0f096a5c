"""Getting a value or computing it: one computation for all who ask, and the leases that say whose it is."""

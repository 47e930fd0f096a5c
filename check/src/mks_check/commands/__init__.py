"""What commands of ``mks-hardening``, Flask and Django call, found through the entry points of this package."""

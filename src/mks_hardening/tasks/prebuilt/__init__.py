"""Ready-made tasks: sending mail and cleaning folders."""

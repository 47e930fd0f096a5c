"""Setting up a host: from a bare Debian to a site that answers, in steps that can be repeated."""

"""What operators do to a host: certificates, watching, alerts, releases, backups."""

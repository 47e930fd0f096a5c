"""Host operations: certificates, monitoring, alerts, releases, backups."""

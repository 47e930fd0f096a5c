"""Queue monitoring: statistics, and an alert if no worker runs the due tasks."""

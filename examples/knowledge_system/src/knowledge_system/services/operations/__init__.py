"""Operational metrics: counts of each process, stored for a day, and the overview for administrators."""

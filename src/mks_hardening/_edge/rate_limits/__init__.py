"""Rules of rate limits in front of an application: which requests count, and by which key."""

"""Real servers for tests: started on free loopback ports, polled until ready, killed by process id.

Nothing here talks to a server that happens to run on the machine. ``testbed.fixtures`` makes pytest fixtures of it.
"""

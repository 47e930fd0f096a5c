"""What a deployment is told in ``deploy.toml``: its model, how it is read, and what must hold between its parts."""

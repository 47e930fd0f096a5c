"""Settings of a deployment (``deploy.toml``): model, parsing, consistency rules."""

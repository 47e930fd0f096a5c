"""``mks-deploy init``: find the application in a source tree, prove it, and write ``deploy.toml``."""

"""``mks-deploy init``: find the application in a source tree, import it, and write ``deploy.toml``."""

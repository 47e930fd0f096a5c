"""Health check for containers without a shell: ``python -m mks_deploy.healthcheck URL``."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request

__all__ = ["healthy"]


def healthy(url: str) -> bool:
    """Whether the URL responds with 200 within two seconds."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own container, by the Dockerfile
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


if __name__ == "__main__":
    sys.exit(not healthy(sys.argv[1]))

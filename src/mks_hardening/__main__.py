"""Entry point for ``python -m mks_hardening``: the command line."""

from __future__ import annotations

import sys

from mks_hardening.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""Entry point of ``python -m mks_deploy``."""

from __future__ import annotations

import sys

from mks_deploy.cli import main

sys.exit(main())

"""Entry point of ``python -m knowledge_system``."""

from __future__ import annotations

import sys

from knowledge_system.cli import main

sys.exit(main())

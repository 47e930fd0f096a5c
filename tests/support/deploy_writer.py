"""A process that logs as the application or as a gunicorn or Celery worker does: ``file process lines``."""

from __future__ import annotations

import logging
import sys
import time

from mks_hardening.logging import setup_logging


def main(file: str, process: str, lines: str) -> None:
    """Write numbered lines, slowly enough for several rotations."""
    setup_logging("writer", log_file=file)
    logger = logging.getLogger("writer")
    for number in range(int(lines)):
        logger.info("line", extra={"process_number": int(process), "number": number})
        if number % 20 == 0:
            time.sleep(0.03)


if __name__ == "__main__":
    main(*sys.argv[1:])

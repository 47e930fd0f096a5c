"""Delays of the machine, by which a correct program may exceed a time limit."""

from __future__ import annotations

import threading
import time
from typing import Self

_STEP = 0.01


class Lateness:
    """Sums up the delays of short sleeps in a thread, in a ``with`` block.

    Attributes:
        seconds: the sum so far; a hundredth of the time on a machine at rest.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._measure, daemon=True)

    def _measure(self) -> None:
        while not self._ended.is_set():
            began = time.monotonic()
            self._ended.wait(_STEP)
            self.seconds += max(0.0, time.monotonic() - began - _STEP)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

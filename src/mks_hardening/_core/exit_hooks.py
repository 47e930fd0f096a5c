"""Work that must be finished before the process ends: at normal exit and on SIGTERM.

Nothing is registered at import; the first call of ``on_exit`` arms ``atexit`` and, when SIGTERM still has its
default action and we are on the main thread, a handler that runs the same callbacks and then lets the default
action end the process. A server that handles SIGTERM itself (gunicorn, Celery) exits normally and is served by
``atexit``.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from weakref import WeakMethod

__all__ = ["on_exit", "run_exit_callbacks"]

_callbacks: list[WeakMethod[Callable[[], object]]] = []
_lock = threading.RLock()
_armed = False
_ending = False
_signal: int | None = None


def on_exit(method: Callable[[], object]) -> None:
    """Call the bound ``method`` once before the process ends, unless its object is gone by then.

    Callbacks run in reverse order of registration, so an owner that registers after its parts goes first.
    """
    global _armed  # noqa: PLW0603 - armed once a process
    with _lock:
        _callbacks[:] = [known for known in _callbacks if known() is not None]
        _callbacks.append(WeakMethod(method))
        if not _armed:
            _armed = True
            atexit.register(run_exit_callbacks)
            os.register_at_fork(after_in_child=_arm_multiprocessing)
            _arm_sigterm()


def run_exit_callbacks() -> None:
    """Run every callback once, newest first; one that raises does not keep the others from running."""
    global _ending  # noqa: PLW0603 - one end a process
    _ending = True
    while _callbacks:
        method = _callbacks.pop()()
        if method is not None:
            with suppress(Exception):  # the process is ending; the next callback still has work to save
                method()
    _ending = False
    if _signal is not None:
        _die(_signal)


def _arm_multiprocessing() -> None:
    """In a forked child: one that multiprocessing made leaves past the ``atexit`` of its parent."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        # Its finalizers are cleared before these hooks of its own run, so this is the moment to add one.
        util.register_after_fork(_finalize, _finalize)


def _finalize(_owner: object) -> None:
    sys.modules["multiprocessing.util"].Finalize(None, run_exit_callbacks, exitpriority=0)


def _arm_sigterm() -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _finish_and_die)


def _finish_and_die(signum: int, _frame: FrameType | None) -> None:
    global _signal  # noqa: PLW0603 - one end a process
    _signal = signum
    if not _ending:  # else the callbacks are running below us, and go on when we return
        run_exit_callbacks()


def _die(signum: int) -> None:
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)

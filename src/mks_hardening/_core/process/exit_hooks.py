"""Work that must be finished before the process ends: at normal exit and on SIGTERM.

Nothing is registered at import; the first call of ``on_exit`` arms ``atexit`` and, when SIGTERM still has its
default action, a handler that runs the same callbacks and then lets the default action end the process. Only the
main thread can set it; off the main thread it is left to the next ``on_exit`` or ``arm_sigterm`` there. A server
that handles SIGTERM itself (gunicorn, Celery) exits normally and is served by ``atexit``.
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

from mks_hardening._core.process.after_fork import renew_in_child

__all__ = ["arm_sigterm", "on_exit", "run_exit_callbacks"]

_callbacks: list[WeakMethod[Callable[[], object]]] = []
_armed = False
sigterm_wanted = False
_ending = False
_signal: int | None = None


def on_exit(method: Callable[[], object]) -> None:
    """Call the bound ``method`` once before the process ends, unless its object is gone by then.

    Callbacks run in reverse order of registration, so an owner that registers after its parts goes first.
    """
    global _armed, sigterm_wanted  # noqa: PLW0603 - armed once a process
    # Without a lock, which a fork could leave held: each change is one step for other threads.
    for known in tuple(_callbacks):
        if known() is None:
            with suppress(ValueError):
                _callbacks.remove(known)
    _callbacks.append(WeakMethod(method))
    if not _armed:
        _armed = sigterm_wanted = True
        atexit.register(run_exit_callbacks)
        renew_in_child(_multiprocessing)
    arm_sigterm()


def arm_sigterm() -> None:
    """Set the handler of SIGTERM if that is still to be done and this is the main thread."""
    global sigterm_wanted  # noqa: PLW0603 - armed once a process
    if not sigterm_wanted or threading.current_thread() is not threading.main_thread():
        return
    sigterm_wanted = False
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _finish_and_die)


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


class _Multiprocessing:
    """In a forked child: one that multiprocessing made leaves past the ``atexit`` of its parent."""

    def renew(self) -> None:
        util = sys.modules.get("multiprocessing.util")
        if util is not None:
            # Its finalizers are cleared before these hooks of its own run, so this is the moment to add one.
            util.register_after_fork(_finalize, _finalize)


_multiprocessing = _Multiprocessing()


def _finalize(_owner: object) -> None:
    sys.modules["multiprocessing.util"].Finalize(None, run_exit_callbacks, exitpriority=0)


def _finish_and_die(signum: int, _frame: FrameType | None) -> None:
    global _signal  # noqa: PLW0603 - one end a process
    _signal = signum
    if not _ending:  # else the callbacks are running below us, and go on when we return
        run_exit_callbacks()


def _die(signum: int) -> None:
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)

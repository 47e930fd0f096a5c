"""Callbacks that run before the process ends: at normal exit and on SIGTERM.

Nothing is registered at import. The first call of ``on_exit`` registers with ``atexit`` and, if SIGTERM still has
its default action, a handler that runs the same callbacks and then the default action, which ends the process. Only
the main thread can set it; on other threads, that is left to the next ``on_exit`` or ``arm_sigterm`` on the main
thread. A server that handles SIGTERM itself (gunicorn, Celery) exits normally and is covered by ``atexit``.
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

from mks_hardening._core.process.after_fork import register_after_fork

__all__ = ["arm_sigterm", "on_exit", "run_exit_callbacks"]

_callbacks: list[WeakMethod[Callable[[], object]]] = []
_armed = False
sigterm_wanted = False
_ending = False
_signal: int | None = None


def on_exit(method: Callable[[], object], *, last: bool = False) -> None:
    """Call the bound ``method`` once before the process ends, unless its object no longer exists.

    Callbacks run in reverse order of registration, so an owner that registers after its parts runs first.

    Args:
        method: must end within a few seconds: a server kills a process that takes longer, and the other callbacks
            would not run.
        last: whether it runs after all others; it may wait for what an earlier callback has begun.
    """
    global _armed, sigterm_wanted  # noqa: PLW0603 - registered once per process
    # Without a lock, which a fork could leave held: each change is atomic for other threads.
    for known in tuple(_callbacks):
        if known() is None:
            with suppress(ValueError):
                _callbacks.remove(known)
    _callbacks.insert(0 if last else len(_callbacks), WeakMethod(method))
    if not _armed:
        _armed = sigterm_wanted = True
        atexit.register(run_exit_callbacks)
        register_after_fork(_multiprocessing)
    arm_sigterm()


def arm_sigterm() -> None:
    """Set the SIGTERM handler if that is still pending and this is the main thread."""
    global sigterm_wanted  # noqa: PLW0603 - registered once per process
    if not sigterm_wanted or threading.current_thread() is not threading.main_thread():
        return
    sigterm_wanted = False
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _handle_sigterm)


def run_exit_callbacks() -> None:
    """Run every callback once, newest first; one that raises does not prevent the others."""
    global _ending  # noqa: PLW0603 - a process ends once
    _ending = True
    while _callbacks:
        method = _callbacks.pop()()
        if method is not None:
            with suppress(Exception):  # the process is ending; the next callback must still run
                method()
    _ending = False
    if _signal is not None:
        _reraise_signal(_signal)


class _Multiprocessing:
    """Registration in a forked child: children of multiprocessing skip the ``atexit`` of their parent."""

    def reset_after_fork(self) -> None:
        util = sys.modules.get("multiprocessing.util")
        if util is not None:
            # Its finalizers are cleared before its own fork hooks run, so a hook can add one.
            util.register_after_fork(_finalize, _finalize)


_multiprocessing = _Multiprocessing()


def _finalize(_owner: object) -> None:
    sys.modules["multiprocessing.util"].Finalize(None, run_exit_callbacks, exitpriority=0)


def _handle_sigterm(signum: int, _frame: FrameType | None) -> None:
    global _signal  # noqa: PLW0603 - a process ends once
    _signal = signum
    if not _ending:  # otherwise the callbacks are running below us, and continue when we return
        run_exit_callbacks()


def _reraise_signal(signum: int) -> None:
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)

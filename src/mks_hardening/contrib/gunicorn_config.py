"""gunicorn with our logging, no trusted proxies, metrics of all workers, and alerts that survive a worker.

    # gunicorn.conf.py
    from mks_hardening.contrib.gunicorn_config import gunicorn_config

    globals().update(gunicorn_config("knowledge", workers=2, metrics_port=9464))

Engines from ``hardened_engine`` and all Redis clients of this package reconnect in a forked worker, so
``preload_app=True`` needs no further setup; for other engines call ``guard_fork(engine)``. A ``TaskWorker`` and
threads of your own that were started while the application was loaded do not run in the workers then: start them in
``post_fork``. SIGHUP loads no new code then.
"""

from __future__ import annotations

import gc
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import wraps
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from mks_hardening._core import hooks
from mks_hardening._core.checks import path_text, text_of, whole_number
from mks_hardening._core.environment.parsers import parse_text
from mks_hardening._core.environment.variables import Environment
from mks_hardening._core.process.exit_hooks import run_exit_callbacks
from mks_hardening.contrib._gunicorn_reload import Reload, guard_reloads, watch_heartbeats
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    import socket

    from mks_hardening.logging import Rotation

__all__ = ["gunicorn_config"]

FromGunicorn: TypeAlias = Any
"""An object from gunicorn, which ships no types."""

Hook: TypeAlias = Callable[..., object]

_KEPT: Final = {
    "forwarded_allow_ips": "harden_wsgi decides which proxies are trusted",
    "secure_scheme_headers": "harden_wsgi decides which proxies are trusted",
    "forwarder_headers": "harden_wsgi decides which proxies are trusted",
    "logconfig": "logging is set up by gunicorn_config",
    "logconfig_json": "logging is set up by gunicorn_config",
    "logconfig_dict": "logging is set up by gunicorn_config",
}
_HEARTBEATS: Final = "/dev/shm"  # noqa: S108 - in memory; a slow disk would delay heartbeats, as if workers were dead
_END: Final = 6
"""Seconds to flush alerts and logs at the end of a worker: the five that this may take, and one spare."""
_logger: Final = logging.getLogger("mks_hardening.gunicorn")


def gunicorn_config(
    app_name: str,
    *,
    level: str | int = "INFO",
    log_file: str | os.PathLike[str] | None = None,
    rotation: Rotation | None = None,
    schema: str = "default",
    environment: str | None = None,
    static_fields: Mapping[str, object] | None = None,
    metrics_port: int | None = None,
    metrics_address: str = "127.0.0.1",
    metrics_directory: str | os.PathLike[str] | None = None,
    **settings: object,
) -> dict[str, object]:
    """Return settings and hooks for gunicorn: ``globals().update(gunicorn_config(...))`` in ``gunicorn.conf.py``.

    The error log of gunicorn is written as JSON like all other logs; the access log is off, because ``harden_wsgi``
    logs each request. gunicorn itself trusts no forwarding header, not even on Unix sockets. However a worker
    ends, it first delivers or spools its alerts, in the last six seconds of ``graceful_timeout``. A worker that
    hangs logs its stack first.

    At a reload (SIGHUP), the old workers serve until the new ones do; gunicorn alone stops them at once, and
    requests wait for the import. If the configuration file cannot be loaded, a new worker cannot load the
    application, or it does not serve within two minutes (or ``timeout``, if it is longer), an error is logged and
    the old workers continue with the old code and configuration. Until a reload succeeds, no worker is replaced
    because of ``max_requests``. A worker that ends for another reason, such as a crash, is replaced by one with the
    new code; if that cannot load, the other workers continue without it, and gunicorn ends with the last one. So
    repair the version, and reload again. SIGTERM ends the server also during a reload.

    While a worker loads the application, Python's garbage collector pauses; afterwards it skips what was loaded
    (``gc.freeze``).

    Args:
        app_name: name of the application's logger.
        level: see ``setup_logging``, as for the following parameters.
        log_file: see ``setup_logging``.
        rotation: see ``setup_logging``.
        schema: see ``setup_logging``.
        environment: see ``setup_logging``.
        static_fields: see ``setup_logging``.
        metrics_port: port that serves the metrics of all workers; ``None`` for no metrics.
        metrics_address: numeric address of that listener.
        metrics_directory: directory in which workers share their metrics; by default ``PROMETHEUS_MULTIPROC_DIR``,
            else a temporary one. Created if it does not exist.
        settings: further settings of gunicorn, which override ours; hooks among them are called after ours.

    Raises:
        ConfigurationError: a parameter is invalid, or a setting would undo the hardening.
        MissingDependencyError: metrics are requested and prometheus_client is not installed.
    """
    from mks_hardening.logging import dict_config

    text_of(metrics_address, parameter="metrics_address", empty=False)
    if metrics_directory is not None:
        path_text(metrics_directory, parameter="metrics_directory")
    for name in settings.keys() & _KEPT.keys():
        raise ConfigurationError(f"{_KEPT[name]}; remove {name}", parameter=name)
    logs = dict_config(
        app_name,
        level=level,
        log_file=log_file,
        rotation=rotation,
        schema=schema,
        environment=environment,
        static_fields=static_fields,
    )
    values: dict[str, object] = {
        "logconfig_dict": logs,
        "logger_class": _without_access_log,
        "accesslog": None,
        "forwarded_allow_ips": "",
        # A peer on a Unix socket has no address and is always trusted; so there must be no headers to trust.
        "secure_scheme_headers": {},
        "forwarder_headers": "",
        "worker_class": "gthread",
        "timeout": 30,
        "graceful_timeout": 30,
        # Longer than a proxy keeps its connections (nginx: 60 s), so that no request arrives on a closing one.
        "keepalive": 75,
        "control_socket_disable": True,
    }
    if settings.get("worker_class", "gthread") == "gthread":
        values["threads"] = 16  # with a single-threaded class, gunicorn would silently use a different class
    if os.path.isdir(_HEARTBEATS):  # noqa: PTH112 - a check only
        values["worker_tmp_dir"] = _HEARTBEATS
    ours: dict[str, Hook] = {
        "on_starting": _start_master,
        "on_reload": _keep_old_workers,
        "when_ready": _prepare_forks,
        "post_fork": _begin_loading,
        "post_worker_init": _prepare_worker,
        "worker_exit": _worker_exit,
        "worker_abort": _worker_abort,
    }
    if metrics_port is not None:
        wanted = _MetricsConfig(
            whole_number(metrics_port, parameter="metrics_port", minimum=1, maximum=65_535),
            metrics_address,
            _directory(metrics_directory),
        )
        ours |= wanted.hooks()
    return {**values, **settings, **{name: _both(hook, settings.get(name)) for name, hook in ours.items()}}


def _without_access_log() -> type:
    """Return a logger class that obeys ``accesslog``, which gunicorn ignores with ``logconfig_dict``."""
    from gunicorn.glogging import Logger

    theirs: FromGunicorn = Logger

    def access(self: FromGunicorn, *request: FromGunicorn) -> None:
        if self.cfg.accesslog:
            theirs.access(self, *request)

    return type("Quiet", (Logger,), {"access": access})


# --- start and end of a worker


def _start_master(server: FromGunicorn) -> None:
    _refuse_trust(server)
    guard_reloads(server)


def _refuse_trust(server: FromGunicorn) -> None:
    """Reject trust settings of the command line, which takes precedence over the file."""
    if server.cfg.forwarded_allow_ips:
        raise ConfigurationError(
            "harden_wsgi decides which proxies are trusted; remove --forwarded-allow-ips",
            parameter="forwarded_allow_ips",
        )


class _Collector:
    """State of the garbage collector of a worker while it loads the application.

    Attributes:
        threshold: its threshold before it was paused.
    """

    threshold: int = 0


def _keep_old_workers(server: FromGunicorn) -> None:
    Reload(server)


def _prepare_forks(server: FromGunicorn) -> None:
    if not server.cfg.preload_app:
        return
    # A collection in a worker would write to the pages that it shares with the master.
    gc.freeze()
    names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    # The other threads of this package start again in a worker when they are needed.
    lost = [name for name in names if not name.startswith("mks-") or name.startswith("mks-task-")]
    if lost:
        _logger.warning(
            "the preloaded application has started threads, which do not run in the workers; "
            "start them in post_fork: %s",
            ", ".join(lost),
        )


def _begin_loading(_server: FromGunicorn, _worker: FromGunicorn) -> None:
    # Not gc.disable(): an application that disables the collector itself, or sets a threshold, keeps its choice.
    _Collector.threshold, *others = gc.get_threshold()
    gc.set_threshold(0, *others)


def _end_loading() -> None:
    gc.freeze()
    threshold, *others = gc.get_threshold()
    gc.set_threshold(threshold or _Collector.threshold, *others)


def _prepare_worker(worker: FromGunicorn) -> None:
    _end_loading()
    watch_heartbeats(worker)
    _shorten_graceful_timeout(worker)
    # UvicornWorker gives uvicorn's loggers the handlers of gunicorn's and stops propagation to the root, where our
    # handlers are: errors would be printed unredacted, with secrets in them. Without propagation, its access log is
    # off.
    logging.getLogger("uvicorn.error").propagate = True
    logging.getLogger("uvicorn.access").propagate = bool(worker.cfg.accesslog)


def _shorten_graceful_timeout(worker: FromGunicorn) -> None:
    """Let a worker abandon requests a little before the master, which has the same limit, kills it."""
    limit: int = worker.cfg.graceful_timeout
    worker.cfg.set("graceful_timeout", limit - _END if limit >= 2 * _END else limit // 2)


def _worker_exit(_server: FromGunicorn, _worker: FromGunicorn) -> None:
    # Not in ``atexit``: before that, Python waits for threads, one of which may hang.
    run_exit_callbacks()


def _worker_abort(worker: FromGunicorn) -> None:
    Reload.current = None  # the heartbeats of a worker that ends do not say that it serves
    # gunicorn kills the worker within two seconds, unless it sends a heartbeat.
    worker.notify()
    ended = Event()
    # Each step separately: if gevent's event loop was interrupted, anything that might block is refused.
    with suppress(Exception):
        Thread(target=_send_heartbeats, args=(worker, ended), daemon=True).start()
    with suppress(Exception):
        _logger.critical(
            "a worker timed out while it was running this code", extra={"pid": worker.pid}, stack_info=True
        )
    with suppress(Exception):
        run_exit_callbacks()
    ended.set()


def _send_heartbeats(worker: FromGunicorn, ended: Event) -> None:
    for _ in range(2 * _END):
        worker.notify()
        if ended.wait(0.5):
            return


# --- metrics


class _MetricsListener(NamedTuple):
    """The listener of the master process, inherited by its workers, and the directory of their metrics."""

    port: int
    address: str
    listening: socket.socket
    directory: Path
    temporary: bool


class _Running:
    """Resources of the master process, kept when the configuration is reloaded."""

    shown: _MetricsListener | None = None


class _MetricsConfig(NamedTuple):
    port: int
    address: str
    directory: Path | None

    def hooks(self) -> dict[str, Hook]:
        from mks_hardening.contrib import prometheus_observer

        prometheus_observer.check_installed()
        return {
            "on_starting": self._on_starting,
            "on_reload": self._on_reload,
            "post_worker_init": self._post_worker_init,
            "child_exit": self._child_exit,
            "on_exit": self._on_exit,
        }

    def _on_starting(self, server: FromGunicorn) -> None:
        _start_master(server)
        self._open(server, upgrade=bool(server.master_pid))

    def _on_reload(self, server: FromGunicorn) -> None:
        self._open(server, upgrade=False)
        _keep_old_workers(server)

    def _open(self, server: FromGunicorn, *, upgrade: bool) -> None:
        from mks_hardening.contrib._metrics.listener import listening_socket
        from mks_hardening.contrib._metrics.shared_storage import remove_free_slots

        shown = _Running.shown
        if shown is not None and (shown.port, shown.address) == (self.port, self.address):
            return
        # Opened by the master: a privileged port, or one that is in use, is an error at the start and not in every
        # worker.
        listening = listening_socket(self.address, self.port, beside_predecessor=upgrade)
        if shown is not None:
            shown.listening.close()
            _Running.shown = shown._replace(port=self.port, address=self.address, listening=listening)
            return
        if self.directory is None:
            directory = Path(tempfile.mkdtemp(prefix="mks-metrics-"))
        else:
            directory = self.directory
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not upgrade:  # otherwise the workers of the old master still count there
                remove_free_slots(directory)
        if os.geteuid() == 0:
            # Created by the master as root, but used by workers that have dropped root privileges.
            os.chown(directory, server.cfg.uid, server.cfg.gid)
        _Running.shown = _MetricsListener(
            self.port, self.address, listening, directory, self.directory is None
        )

    def _post_worker_init(self, worker: FromGunicorn) -> None:
        _prepare_worker(worker)
        # Not earlier: only now has a worker class that replaces threads done so.
        from mks_hardening.contrib._metrics.listener import Listener
        from mks_hardening.contrib.prometheus_observer import PrometheusObserver, metrics_app

        shown = _Running.shown
        if shown is None:
            return
        directories = [getattr(observer, "directory", None) for observer in hooks.observers]
        if shown.directory not in directories:  # otherwise the application itself already counts there
            hooks.add_observer(PrometheusObserver(directory=shown.directory))
        Listener(metrics_app(shown.directory), shown.listening)

    def _child_exit(self, _server: FromGunicorn, worker: FromGunicorn) -> None:
        from mks_hardening.contrib.prometheus_observer import worker_ended

        if _Running.shown is not None:
            worker_ended(_Running.shown.directory, worker.pid)

    def _on_exit(self, _server: FromGunicorn) -> None:
        shown, _Running.shown = _Running.shown, None
        if shown is not None:
            shown.listening.close()
            if shown.temporary:
                shutil.rmtree(shown.directory, ignore_errors=True)


def _directory(given: str | os.PathLike[str] | None) -> Path | None:
    named = Environment().read("PROMETHEUS_MULTIPROC_DIR", parse_text) if given is None else given
    return None if named is None else Path(named)


# --- hooks


def _both(ours: Hook, theirs: object) -> Hook:
    """Combine two hooks into one with the number of parameters that gunicorn checks."""
    if not callable(theirs):
        return ours
    also: Hook = theirs

    @wraps(ours)
    def both(*args: FromGunicorn) -> None:
        ours(*args)
        also(*args)

    return both

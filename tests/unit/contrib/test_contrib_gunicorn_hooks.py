"""Settings and hooks of ``gunicorn_config``, called as gunicorn calls them."""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from mks_hardening.contrib.gunicorn_config import gunicorn_config
from mks_hardening.exceptions import ConfigurationError
from testbed.forked import in_child

Hook = Callable[..., object]


def _hook(name: str, **settings: object) -> Hook:
    found = gunicorn_config("knowledge", **settings)[name]
    assert callable(found)
    return found


class _Master:
    """A master of gunicorn, of which a reload starts workers that are forked from the test."""

    def __init__(self, *loads: bool) -> None:
        self.worker_age = 2
        self.WORKERS = {1: SimpleNamespace(age=1), 2: SimpleNamespace(age=2)}
        self.cfg = SimpleNamespace(preload_app=False, forwarded_allow_ips="")
        self.stopped: list[int] = []
        self.reaped = 0
        self._loads = loads

    def start_workers(self) -> None:
        """Fork a worker for each entry of ``loads``: whether it loads the application."""
        for loads in self._loads:
            self.worker_age += 1
            pid = os.fork()
            if pid == 0:
                if loads:
                    _hook("post_fork")(self, None)
                    _hook("post_worker_init")(_worker())
                os._exit(0)
            self.WORKERS[pid] = SimpleNamespace(age=self.worker_age, loads=loads)

    def reap_workers(self) -> None:
        self.reaped += 1
        if self.reaped < 3:
            return
        for pid, worker in list(self.WORKERS.items()):
            if worker.age > 2 and not worker.loads:
                del self.WORKERS[pid]

    def manage_workers(self) -> None:
        # As gunicorn does: what is older than the newest ones is stopped.
        self.stopped.append(self.reaped)

    def end(self) -> None:
        for pid in list(self.WORKERS):
            if pid > 2:
                os.waitpid(pid, 0)


def _worker(graceful_timeout: int = 30, **values: Any) -> SimpleNamespace:
    settings = SimpleNamespace(graceful_timeout=graceful_timeout, accesslog=None)
    settings.set = lambda name, value: setattr(settings, name, value)
    return SimpleNamespace(cfg=settings, **values)


@pytest.fixture
def collector() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.mark.parametrize("loads", [(), (True,), (True, True)])
def test_a_reload_stops_the_old_workers_when_the_new_ones_have_loaded(loads: tuple[bool, ...]) -> None:
    master = _Master(*loads)
    for reload in (1, 2):
        _hook("on_reload")(master)
        master.start_workers()
        master.manage_workers()
        assert len(master.stopped) == reload
        master.manage_workers()  # as before, once the reload is over
        assert len(master.stopped) == reload + 1
        master.end()
        master = _Master(*loads)
        master.stopped = [0] * reload


def test_a_new_worker_that_ends_is_not_waited_for() -> None:
    master = _Master(True, False)
    _hook("on_reload")(master)
    master.start_workers()
    master.manage_workers()
    assert master.stopped == [master.reaped]
    assert master.reaped >= 3
    master.end()


@pytest.mark.usefixtures("collector")
@pytest.mark.parametrize("chosen", [None, 4000])
def test_the_collector_pauses_while_a_worker_loads(chosen: int | None) -> None:
    before = gc.get_threshold()
    _hook("post_fork")(None, None)
    assert gc.get_threshold() == (0, *before[1:])
    if chosen is not None:
        gc.set_threshold(chosen)
    _hook("post_worker_init")(_worker())
    assert gc.get_threshold()[0] == (chosen or before[0])
    assert gc.get_freeze_count() > 0


@pytest.mark.usefixtures("collector")
@pytest.mark.parametrize(("given", "left"), [(30, 24), (12, 6), (11, 5), (1, 0)])
def test_a_worker_gives_up_before_the_master_kills_it(given: int, left: int) -> None:
    worker = _worker(given)
    _hook("post_worker_init")(worker)
    assert worker.cfg.graceful_timeout == left


@pytest.mark.usefixtures("collector")
@pytest.mark.parametrize(
    ("preload", "name", "said"),
    [
        (True, "poller", True),
        (True, "mks-task-1", True),
        (True, "mks-log-queue", False),
        (False, "poller", False),
    ],
)
def test_threads_that_no_worker_has_are_named(
    preload: bool, name: str, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait, name=name)
    thread.start()
    try:
        with caplog.at_level(logging.WARNING, logger="mks_hardening.gunicorn"):
            _hook("when_ready")(SimpleNamespace(cfg=SimpleNamespace(preload_app=preload)))
    finally:
        ended.set()
        thread.join()
    named = [record.getMessage() for record in caplog.records if name in record.getMessage()]
    assert bool(named) is said


def test_a_worker_that_is_aborted_says_where_it_hangs(caplog: pytest.LogCaptureFixture) -> None:
    def aborted() -> tuple[bool, str, bool]:
        beats: list[int] = []
        _hook("worker_abort")(SimpleNamespace(notify=lambda: beats.append(1), pid=7))
        (record,) = caplog.records
        return bool(beats), record.levelname, "aborted" in str(record.stack_info)

    # In a child, because it ends what delivers logs and alerts in this process.
    assert in_child(aborted) == repr((True, "CRITICAL", True))


@pytest.mark.usefixtures("collector")
def test_ones_own_hook_follows() -> None:
    called: list[tuple[object, int]] = []
    _hook("post_fork", post_fork=lambda *given: called.append((given, gc.get_threshold()[0])))(
        "server", "worker"
    )
    assert called == [(("server", "worker"), 0)]


@pytest.mark.parametrize("given", ["", "*"])
def test_the_command_line_cannot_make_it_trust(given: str) -> None:
    server = SimpleNamespace(cfg=SimpleNamespace(forwarded_allow_ips=given))
    if not given:
        _hook("on_starting")(server)
        return
    with pytest.raises(ConfigurationError, match="remove --forwarded-allow-ips"):
        _hook("on_starting")(server)


@pytest.mark.parametrize(
    "name",
    ["forwarded_allow_ips", "secure_scheme_headers", "forwarder_headers", "logconfig", "logconfig_dict"],
)
def test_settings_that_would_undo_it_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"remove {name}"):
        gunicorn_config("knowledge", **{name: "*"})


@pytest.mark.parametrize("port", [0, 70_000, "9464"])
def test_an_impossible_port_is_refused(port: Any) -> None:
    with pytest.raises(ConfigurationError, match="metrics_port"):
        gunicorn_config("knowledge", metrics_port=port)

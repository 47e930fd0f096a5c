"""Settings and hooks of ``gunicorn_config``, called as gunicorn calls them."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest

from mks_hardening.contrib._gunicorn_reload import Reload
from mks_hardening.contrib.gunicorn_config import gunicorn_config
from mks_hardening.exceptions import ConfigurationError
from testbed.forked import in_child

pytest.importorskip("gunicorn")
from gunicorn.errors import HaltServer

Hook = Callable[..., object]


def _hook(name: str, **settings: object) -> Hook:
    found = gunicorn_config("knowledge", **settings)[name]
    assert callable(found)
    return found


class _Master:
    """A master of gunicorn, of which a reload starts workers that are forked from the test.

    Args:
        workers: what each new worker does: "serve", "load" (and never serve), "end", or "fail" as one that cannot
            load the application.
    """

    def __init__(self, *workers: str) -> None:
        self.worker_age = 2
        self.WORKERS = {1: _Process(1), 2: _Process(2)}
        self.SIG_QUEUE = SimpleQueue[int]()
        self.num_workers = 3
        self.cfg = SimpleNamespace(
            preload_app=False,
            forwarded_allow_ips="",
            timeout=30,
            graceful_timeout=0,
            child_exit=self._child_exit,
        )
        self.stopped: list[int] = []
        self.ended: list[int] = []
        self.halted = False
        self._plans = workers

    def start_workers(self) -> None:
        for plan in self._plans:
            self.worker_age += 1
            pid = os.fork()
            if pid == 0:
                try:
                    self._run_worker(plan)
                finally:
                    os._exit(0)
            self.WORKERS[pid] = _Process(self.worker_age, plan)

    def _run_worker(self, plan: str) -> None:
        _hook("post_fork")(self, None)
        if plan in {"serve", "load"}:
            worker = _Served()
            _hook("post_worker_init")(worker)
            if plan == "serve":
                worker.notify()
            else:
                signal.signal(signal.SIGABRT, lambda *_: os._exit(1))
                signal.pause()

    def reap_workers(self) -> None:
        for pid, worker in list(self.WORKERS.items()):
            if worker.plan not in {"", "serve"} and os.waitpid(pid, os.WNOHANG)[0]:
                del self.WORKERS[pid]
                if worker.plan == "fail":
                    raise HaltServer("App failed to load.", 4)
                worker.tmp.close()
                self._child_exit(self, worker)

    def _child_exit(self, server: object, worker: _Process) -> None:
        assert server is self
        self.ended.append(worker.age)

    def murder_workers(self) -> None:
        """Do nothing."""

    def kill_worker(self, pid: int, number: int) -> None:
        os.kill(pid, number)

    def manage_workers(self) -> None:
        # As gunicorn does: what is older than the newest ones is stopped.
        self.stopped = sorted(worker.age for worker in self.WORKERS.values())[: -self.num_workers]

    def handle_term(self) -> None:
        self.halted = True
        raise StopIteration

    def reload(self) -> None:
        _hook("on_reload")(self)
        self.start_workers()
        self.manage_workers()

    def end(self) -> None:
        for pid, worker in self.WORKERS.items():
            if worker.plan:
                os.waitpid(pid, 0)


class _Served:
    """A worker in its own process."""

    pid = 7

    def __init__(self) -> None:
        self.cfg = _worker().cfg
        self.heartbeats = 0

    def notify(self) -> None:
        self.heartbeats += 1


class _HeartbeatFile:
    """The file of a worker in which its master finds its heartbeats."""

    closed = False

    def fileno(self) -> int:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        return 0

    def close(self) -> None:
        self.closed = True


class _Process:
    def __init__(self, age: int, plan: str = "") -> None:
        self.age = age
        self.plan = plan
        self.tmp = _HeartbeatFile()


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


def _ages(master: _Master) -> list[int]:
    return sorted(worker.age for worker in master.WORKERS.values())


@pytest.mark.parametrize("new", [2, 3])
def test_a_reload_stops_the_old_workers_when_the_new_ones_serve(new: int) -> None:
    master = _Master(*["serve"] * new)
    master.num_workers = new
    master.reload()
    assert master.stopped == [1, 2]
    del master.WORKERS[1]
    master.manage_workers()  # as before, once the reload is over
    assert master.stopped == [2]
    master.end()


@pytest.mark.parametrize(
    ("plans", "reason"),
    [
        (("fail", "serve"), "App failed to load."),
        (("fail", "fail"), "App failed to load."),
        (("fail", "load"), "App failed to load."),
        (("load", "end"), "ended before it served"),
    ],
)
def test_a_new_worker_that_fails_leaves_the_old_ones(
    plans: tuple[str, ...], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    master = _Master(*plans)
    master.reload()
    (record,) = [one for one in caplog.records if one.levelname == "ERROR"]
    assert reason in record.getMessage()
    assert _ages(master)[-2:] == [5, 6]  # the old ones, which count as the youngest
    assert (master.num_workers, len(master.stopped)) == (2, plans.count("serve"))
    assert len(master.ended) == len(plans) - plans.count("serve")
    master.end()


@pytest.mark.parametrize(("timeout", "seconds"), [(0, "0.5"), (1, "1")])
def test_new_workers_that_never_serve_leave_the_old_ones(
    timeout: int, seconds: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mks_hardening.contrib._gunicorn_reload._LONGEST", 0.5)
    master = _Master("serve", "load")
    master.cfg.timeout = timeout
    master.reload()
    (record,) = [one for one in caplog.records if one.levelname == "ERROR"]
    assert record.getMessage().endswith(f"does not serve after {seconds} seconds")
    assert _ages(master) == [3, 5, 6]
    assert master.stopped == [3]
    master.end()


def test_without_old_workers_a_reload_that_fails_ends_the_server() -> None:
    master = _Master("fail")
    master.WORKERS.clear()
    with pytest.raises(HaltServer):
        master.reload()


def test_without_old_workers_gunicorn_replaces_a_worker_that_ended() -> None:
    master = _Master("end")
    master.WORKERS.clear()
    master.reload()
    assert master.WORKERS == {}
    assert master.num_workers == 3


def test_a_signal_ends_the_server_also_during_a_reload() -> None:
    master = _Master("load", "fail")
    for number in (signal.SIGTTIN, signal.SIGTERM, signal.SIGHUP):
        master.SIG_QUEUE.put(number)
    with pytest.raises(StopIteration):
        master.reload()
    assert master.halted
    assert _ages(master) == [1, 2]
    assert [master.SIG_QUEUE.get() for _ in range(2)] == [signal.SIGHUP, signal.SIGTTIN]


class _Guarded(_Master):
    """A master whose configuration can be damaged."""

    def __init__(self, *workers: str, damage: Callable[[], object] | None = None) -> None:
        super().__init__(*workers)
        self.damage = damage
        self.app = SimpleNamespace(cfg=self.cfg, reload=self._load)
        self.LISTENERS = [SimpleNamespace(sock=object())]
        self.restored: list[object] = []
        _hook("on_starting")(self)

    def _load(self) -> None:
        self.app.cfg = SimpleNamespace()
        if self.damage is not None:
            self.damage()
        self.app.cfg = self.cfg

    def setup(self, app: Any) -> None:
        self.restored.append(app.cfg)
        self.num_workers = 9

    def reload(self) -> None:
        self.app.reload()
        super().reload()


def _unreadable() -> None:
    """Fail as gunicorn does with a configuration file."""
    try:
        compile("no crane", "gunicorn.conf.py", "exec")
    except SyntaxError:
        sys.stderr.write("Failed to read config file\n")
        sys.exit(1)


def _usage() -> None:
    sys.stderr.write("error: unrecognized arguments: --crane\n")
    sys.exit(2)


def _refused() -> None:
    raise ConfigurationError("choose another", parameter="metrics_port")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(_unreadable, "invalid syntax"), (_usage, "--crane"), (_refused, "choose another")],
)
def test_a_configuration_that_cannot_be_loaded_leaves_the_former_one(
    damage: Callable[[], object],
    reason: str,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    master = _Guarded(damage=damage)
    master.reload()
    (record,) = caplog.records
    assert reason in record.getMessage()
    assert (master.app.cfg, master.restored, master.num_workers) == (master.cfg, [master.cfg], 3)
    assert _ages(master) == [1, 2]
    assert capsys.readouterr().err == ""  # it is in the log
    master.damage = lambda: sys.stderr.write("deprecated\n")
    master.reload()
    assert "deprecated" in capsys.readouterr().err


def test_a_server_without_its_sockets_ends() -> None:
    def close() -> None:
        master.LISTENERS[0].sock = None
        _unreadable()

    master = _Guarded(damage=close)
    with pytest.raises(SystemExit):
        master.reload()


def test_a_signal_ends_a_guarded_server_too() -> None:
    master = _Guarded("load")
    master.SIG_QUEUE.put(signal.SIGTERM)
    with pytest.raises(StopIteration):
        master.reload()
    assert master.halted


def _start(master: _Master, plan: str) -> int:
    """Let gunicorn replace a worker, and wait until the new one has ended."""
    known = set(master.WORKERS)
    master._plans = (plan,)
    master.start_workers()
    (pid,) = set(master.WORKERS) - known
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid


def test_a_worker_that_cannot_replace_another_ends_the_server_only_with_the_last_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    master = _Guarded()
    _start(master, "fail")
    with pytest.raises(HaltServer):  # no reload failed: gunicorn decides
        master.reap_workers()
    master.damage = _unreadable
    master.reload()
    caplog.clear()
    pid = _start(master, "fail")
    master.num_workers = 2
    master.reap_workers()  # one more than are wanted, as the second one of a reload
    assert (pid in master.WORKERS, master.num_workers, caplog.text) == (False, 2, "")
    pid = _start(master, "fail")
    master.num_workers = 3
    master.reap_workers()
    assert (pid in master.WORKERS, master.num_workers) == (False, 2)
    assert "is not replaced: App failed to load." in caplog.text
    assert master.ended == [4, 5]
    master.WORKERS.clear()
    _start(master, "fail")
    with pytest.raises(HaltServer):
        master.reap_workers()


@pytest.mark.usefixtures("collector")
def test_max_requests_is_suspended_until_a_reload_succeeds() -> None:
    master = _Guarded(damage=_unreadable)
    uvicorn = SimpleNamespace(limit_max_requests=100)
    worker = _worker(max_requests=110, config=uvicorn, notify=lambda: None)
    worker.cfg.max_requests = 100
    _hook("post_worker_init")(worker)
    found = []
    for damage in (None, _unreadable, None):
        master.damage = damage
        master.reload()
        worker.notify()
        found.append((worker.max_requests, uvicorn.limit_max_requests))
    assert found == [(110, 100), (sys.maxsize, sys.maxsize), (110, 100)]


def test_a_worker_that_hangs_while_it_starts_does_not_report_that_it_serves() -> None:
    def reported() -> bool:
        _hook("on_reload")(_Master())
        worker, reload = _Served(), Reload.current
        _hook("post_worker_init")(worker)
        _hook("worker_abort")(worker)
        assert reload is not None
        reload.close()  # still open: nothing was written
        return worker.heartbeats > 0

    assert in_child(reported) == repr(True)


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
    server = SimpleNamespace(
        cfg=SimpleNamespace(forwarded_allow_ips=given), reload=lambda: None, reap_workers=lambda: None
    )
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

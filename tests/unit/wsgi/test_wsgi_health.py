"""Liveness and readiness."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mks_hardening.events import BackendFailed, add_observer, remove_observer
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import FrozenClock, WSGIResponse, call_wsgi
from mks_hardening.wsgi import HealthMiddleware

WSGI_ONLY: set[str] = set()


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the application"]


def fine() -> None:
    return None


def broken() -> None:
    raise ConnectionError("redis://:secret@10.0.0.9:6379 refused")


def refused() -> bool:
    return False


class Counted:
    """A check that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        return True


def probe(path: str = "/readyz", *, method: str = "GET", **options: Any) -> WSGIResponse:
    return call_wsgi(
        application,
        path,
        wrap=lambda app: HealthMiddleware(app, **{"required": {}, **options}),
        method=method,
    )


@pytest.mark.parametrize(
    ("required", "optional", "status", "said"),
    [
        ({}, {}, 200, {"status": "ok", "checks": {}}),
        ({"a": fine}, {}, 200, {"status": "ok", "checks": {"a": "ok"}}),
        ({"a": fine}, (), 200, {"status": "ok", "checks": {"a": "ok"}}),
        ([("a", fine)], {"b": fine}, 200, {"status": "ok", "checks": {"a": "ok", "b": "ok"}}),
        ({"a": fine}, {"b": broken}, 200, {"status": "degraded", "checks": {"a": "ok", "b": "failed"}}),
        ({"a": fine}, {"b": refused}, 200, {"status": "degraded", "checks": {"a": "ok", "b": "failed"}}),
        ({"a": broken}, {"b": fine}, 503, {"status": "unavailable", "checks": {"a": "failed", "b": "ok"}}),
        (
            {"a": refused},
            {"b": broken},
            503,
            {"status": "unavailable", "checks": {"a": "failed", "b": "failed"}},
        ),
    ],
)
def test_readiness(required: Any, optional: Any, status: int, said: dict[str, Any]) -> None:
    answer = probe(required=required, optional=optional)
    assert answer.status == status
    assert json.loads(answer.body) == said
    assert answer.header("Content-Type") == "application/json"
    assert answer.header("Cache-Control") == "no-store"


def test_liveness_asks_nobody() -> None:
    check = Counted()
    answer = probe("/livez", required={"a": check, "b": broken})
    assert (answer.status, json.loads(answer.body)) == (200, {"status": "ok"})
    assert check.asked == 0


@pytest.mark.parametrize(
    ("path", "options"),
    [("/", {}), ("/livez/", {}), ("/readyz/x", {}), ("//readyz", {}), ("/readyz", {"readyz": "/ready"})],
)
def test_other_paths_reach_the_application(path: str, options: dict[str, Any]) -> None:
    assert probe(path, **options).body == b"the application"


def test_own_paths() -> None:
    options = {"livez": "/health/live", "readyz": "/health/ready", "required": {"a": broken}}
    assert probe("/health/live", **options).status == 200
    assert probe("/health/ready", **options).status == 503


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_methods(path: str) -> None:
    get, head, post = (probe(path, method=method) for method in ("GET", "HEAD", "POST"))
    assert head.headers == get.headers
    assert head.body == b""
    assert (post.status, post.header("Allow")) == (405, "GET, HEAD")


def test_reasons_reach_the_observers_but_not_the_client() -> None:
    seen: list[Any] = []
    add_observer(seen.append)
    try:
        answer = probe(required={"redis": broken, "db": refused, "mail": fine})
    finally:
        remove_observer(seen.append)
    assert b"secret" not in answer.body
    assert b"ConnectionError" not in answer.body
    assert sorted(seen) == [
        BackendFailed("db", "health", "failed"),
        BackendFailed("redis", "health", "ConnectionError"),
    ]


def test_many_probes_cost_one_round_of_checks() -> None:
    check, clock = Counted(), FrozenClock()
    app = HealthMiddleware(application, required={"a": check}, cache_for=2, clock=clock)
    for _ in range(5):
        call_wsgi(app, "/readyz")
    assert check.asked == 1
    clock.advance(1.9)
    call_wsgi(app, "/readyz")
    assert check.asked == 1
    clock.advance(0.1)
    call_wsgi(app, "/readyz")
    assert check.asked == 2


def test_recovery_is_seen() -> None:
    clock, answers = FrozenClock(), iter([False, True])
    app = HealthMiddleware(application, required={"a": lambda: next(answers)}, cache_for=1, clock=clock)
    assert call_wsgi(app, "/readyz").status == 503
    clock.advance(1)
    assert call_wsgi(app, "/readyz").status == 200


@pytest.fixture
def hanging() -> Iterator[Callable[[], None]]:
    """A check that hangs until the test is over."""
    release = threading.Event()
    yield lambda: release.wait(30) and None
    release.set()


def test_a_check_that_hangs_is_reported_and_not_started_again(hanging: Callable[[], None]) -> None:
    started: list[int] = []

    def check() -> None:
        started.append(1)
        hanging()

    clock = FrozenClock()
    app = HealthMiddleware(
        application, required={"slow": check}, optional={"b": fine}, timeout=0.02, cache_for=0, clock=clock
    )
    for _ in range(3):
        answer = call_wsgi(app, "/readyz")
        assert answer.status == 503
        assert json.loads(answer.body)["checks"] == {"slow": "timeout", "b": "ok"}
    assert started == [1]


def test_one_slow_check_does_not_take_the_time_of_the_others(hanging: Callable[[], None]) -> None:
    answer = probe(required={"a": fine}, optional={"slow": hanging, "z": fine}, timeout=0.02)
    said = {"status": "degraded", "checks": {"a": "ok", "slow": "timeout", "z": "ok"}}
    assert (answer.status, json.loads(answer.body)) == (200, said)


def test_side_by_side_probes_get_one_result() -> None:
    check = Counted()
    app = HealthMiddleware(application, required={"a": check}, clock=FrozenClock())
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(call_wsgi(app, "/readyz").status)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 8
    assert check.asked == 1


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"required": {"a": 1}}, "required"),
        ({"required": {"": fine}}, "required"),
        ({"required": {1: fine}}, "required"),
        ({"optional": {"a": None}}, "optional"),
        ({"required": {"a": fine}, "optional": {"a": fine}}, "optional"),
        ({"readyz": "/livez"}, "readyz"),
        ({"readyz": "readyz"}, "readyz"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": "1"}, "timeout"),
        ({"cache_for": -1}, "cache_for"),
    ],
)
def test_wrong_settings_are_refused_at_construction(options: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        HealthMiddleware(application, **{"required": {}, **options})
    assert caught.value.parameter == parameter


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_forked_in_the_middle_of_a_round_answers_by_itself(hanging: Callable[[], None]) -> None:
    """Neither a lock that was held nor a thread that is gone may stop the child."""
    app = HealthMiddleware(application, required={"a": hanging}, timeout=0.05, cache_for=0)
    busy = threading.Thread(target=lambda: call_wsgi(app, "/readyz"))
    busy.start()
    while "a" not in app._health.readiness._runs:  # from within the round, which holds the lock
        pass
    child = os.fork()
    if child == 0:
        status = 0
        try:
            app._health.readiness._checks["a"] = fine
            status = call_wsgi(app, "/readyz").status
        finally:  # the child must never go on with the tests
            os._exit(status == 200)
    busy.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def test_a_thread_that_cannot_start_fails_its_check_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    app = HealthMiddleware(application, required={"a": lambda: None}, cache_for=0)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", full)
        answer = call_wsgi(app, "/readyz")
    assert (answer.status, json.loads(answer.body)["checks"]) == (503, {"a": "failed"})
    assert call_wsgi(app, "/readyz").status == 200

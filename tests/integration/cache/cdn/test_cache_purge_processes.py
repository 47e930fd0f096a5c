"""The queue of purges over the end of processes: killed, ended by SIGTERM, ended normally, forked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.http_sink import Answer, HttpSink
from testbed.run_python import run_python

PROGRAM = """
    import os, signal, sys
    from mks_hardening.cache import FastlyCDN, PurgeQueue

    base, spool, end = sys.argv[1:]
    cdn = FastlyCDN("SU1Z0isxPaozGVKXdv0eY", api_token="t" * 32, base_url=base, deadline=5)
    queue = PurgeQueue(cdn, window=3600, spool=spool or None)
    if end == "continue":
        print(queue.flush().done)
        sys.exit()
    queue.purge_cache(["https://example.com/"], tags=["news", "prices"])
    if end == "fork":
        child = os.fork()
        if child == 0:
            assert queue.stats().queued == 0
            queue.purge_cache(tags=["child"])
            sys.exit()
        os.waitpid(child, 0)
    if end in ("SIGKILL", "SIGTERM"):
        os.kill(os.getpid(), getattr(signal, end))
"""


def documented(http_sink: HttpSink) -> None:
    http_sink.default = lambda request: Answer(
        body=dict.fromkeys(request.json()["surrogate_keys"], "108-1") if request.body else {"status": "ok"}
    )


def sent(http_sink: HttpSink) -> list[str]:
    return [request.body.decode() or request.path for request in http_sink.requests]


@pytest.mark.parametrize("end", ["exit", "SIGTERM", "fork"])
def test_the_end_of_a_process_sends_what_is_pending(http_sink: HttpSink, end: str) -> None:
    documented(http_sink)
    run_python(PROGRAM, f"http://localhost:{http_sink.port}", "", end, check=end != "SIGTERM")
    child = ['{"surrogate_keys":["child"]}'] if end == "fork" else []
    assert sent(http_sink) == [*child, "/purge/example.com/", '{"surrogate_keys":["news","prices"]}']


def test_what_a_killed_process_had_pending_is_sent_by_the_next(http_sink: HttpSink, tmp_path: Path) -> None:
    documented(http_sink)
    base = f"http://localhost:{http_sink.port}"
    for _ in range(2):
        assert run_python(PROGRAM, base, str(tmp_path), "SIGKILL", check=False).returncode == -9
    assert sent(http_sink) == []
    assert run_python(PROGRAM, base, str(tmp_path), "continue").stdout == "3\n"
    assert sent(http_sink) == ["/purge/example.com/", '{"surrogate_keys":["news","prices"]}']
    assert [*tmp_path.iterdir()] == []


def test_what_the_service_does_not_accept_at_the_end_stays_in_the_spool(
    http_sink: HttpSink, tmp_path: Path
) -> None:
    base = f"http://localhost:{http_sink.port}"
    http_sink.default = Answer(503, headers={"Retry-After": "120"}, body={"msg": "busy"})
    run_python(PROGRAM, base, str(tmp_path), "exit")
    http_sink.reset()
    documented(http_sink)
    assert run_python(PROGRAM, base, str(tmp_path), "continue").stdout == "3\n"
    assert len(sent(http_sink)) == 2


HANGING = """
    import logging, os, signal, sys
    from mks_hardening.cache import FastlyCDN, PurgeQueue
    from mks_hardening.notify import WebhookNotificationHandler

    base, spool, alerts, end = sys.argv[1:]
    logging.getLogger("shop").addHandler(WebhookNotificationHandler(alerts))
    cdn = FastlyCDN("SU1Z0isxPaozGVKXdv0eY", api_token="t" * 32, base_url=base, timeout=3600, deadline=3600)
    queue = PurgeQueue(cdn, window=3600, spool=spool or None)
    queue.purge_cache(tags=["news", "prices"])
    logging.getLogger("shop").error("the process ends")
    if end == "SIGTERM":
        os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.parametrize("end", ["exit", "SIGTERM"])
def test_a_service_that_hangs_holds_up_neither_the_end_of_a_process_nor_its_alerts(
    make_http_sink: Callable[[], HttpSink], tmp_path: Path, end: str
) -> None:
    service, alerts = make_http_sink(), make_http_sink()
    service.default = Answer(delay=3600)
    base = f"http://localhost:{service.port}"
    ended = run_python(HANGING, base, "", alerts.url, end, check=end == "exit")
    assert "2 purges of" in ended.stderr
    assert "they are lost" in ended.stderr
    run_python(HANGING, base, str(tmp_path), alerts.url, end, check=end == "exit")
    assert [json.loads(line) for file in tmp_path.iterdir() for line in file.read_text().splitlines()] == [
        ["tags", "news"],
        ["tags", "prices"],
    ]
    assert [request.json()["alerts"][0]["message"] for request in alerts.requests] == ["the process ends"] * 2

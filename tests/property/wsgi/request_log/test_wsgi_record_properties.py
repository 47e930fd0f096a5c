from __future__ import annotations

import logging
import re
from typing import Any

from hypothesis import assume, example, given
from hypothesis import strategies as st

from mks_hardening._core.web.paths import PathRules, is_plain_path
from mks_hardening._edge.request_log.outcome import has_body, outcome_of, status_code
from mks_hardening._edge.request_log.record_fields import readable_path
from mks_hardening._edge.request_log.request_ids import accepted_request_id, trace_id_of
from mks_hardening.testing import FrozenClock
from mks_hardening.wsgi import RequestLoggingMiddleware
from wsgi_scripted import ERRORS, ScriptedApp, environ_of, serve

CHUNKS = st.lists(st.sampled_from(["", "a", "bc", "日本"]), max_size=4)
MOMENTS = st.sampled_from(["call", "started", "iter", "close", 0, 1, 2, 3])
SCRIPTS = st.fixed_dictionaries(
    {
        "body": st.sampled_from(["list", "tuple", "generator", "iterator", "sized", "file"]),
        "chunks": CHUNKS,
        "status": st.sampled_from(
            ["200 OK", "204 No Content", "304 Not Modified", "404 Not Found", "503 Busy"]
        ),
        "takes": st.dictionaries(st.sampled_from(["call", "chunk", "close"]), st.floats(0, 3), max_size=2),
    },
    optional={
        "start": st.sampled_from(["early", "late"]),
        "writes": st.lists(st.sampled_from(["", "w", "xy"]), max_size=2),
        "raises": st.fixed_dictionaries({"at": MOMENTS, "error": st.sampled_from(sorted(ERRORS))}),
    },
)
READS = st.sampled_from(["all", "all", "none", 1, 2])


class Collect(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def lazy(script: dict[str, Any]) -> bool:
    return script["body"] in ("generator", "iterator", "sized")


@given(SCRIPTS, READS, st.sampled_from(["GET", "HEAD"]))
@example({"body": "sized", "chunks": [""], "status": "200 OK", "takes": {}, "start": "late"}, "all", "GET")
def test_the_wrapper_changes_nothing_but_the_id_and_tells_the_truth(
    script: dict[str, Any], read: str | int, method: str
) -> None:
    if not lazy(script):
        script = {**script, "start": "early"}
    # The wrapper reads the first chunk before the server does.
    at = script.get("raises", {}).get("at")
    assume(not (read == "none" and (at == "iter" or isinstance(at, int) or script.get("start") == "late")))
    # Empty chunks before the first byte are not handed on.
    assume(not (isinstance(read, int) and script["chunks"][:1] == [""]))
    plain = ScriptedApp(script, FrozenClock())
    request = {"method": method}
    expected = serve(plain, environ_of(request), read=read)

    logger, handler, clock = logging.Logger("p", level=1), Collect(), FrozenClock()  # noqa: LOG001
    logger.addHandler(handler)
    app = ScriptedApp(script, clock)
    served = serve(RequestLoggingMiddleware(app, logger=logger, clock=clock), environ_of(request), read=read)

    assert len(handler.records) == 1
    record = handler.records[0]
    left_early = record.status == 0 and record.outcome == "aborted"
    is_fine = 0 < record.status < 500 and record.outcome != "error"
    assert record.levelno == (logging.INFO if is_fine or left_early else logging.ERROR)
    assert (record.outcome == "error") == bool(expected.raised)
    assert record.exc_type == (expected.raised or None)
    assert app.closed == plain.closed or read == "none"  # a generator that nobody starts closes nothing
    answered = expected.raised not in ("", "SystemExit", "KeyboardInterrupt") and not served.raised
    if answered:
        assert expected.body == b""
        assert record.status == 500
    else:
        assert served.raised == expected.raised
        assert served.body == expected.body
        # The head waits for the first byte: where the server itself is told to end, there may be none.
        ends = expected.raised in ("SystemExit", "KeyboardInterrupt") and not expected.body
        assert served.status == expected.status or (ends and not served.status)
        if expected.status:
            assert record.status == int(expected.status[:3])
    has_body = method != "HEAD" and record.status not in (204, 304)
    assert record.bytes == (len(served.body) if has_body else 0)
    if not expected.raised and has_body and not (script["body"] == "file" and read == 2):
        whole = "".join(script.get("writes", ())) + "".join(script["chunks"])
        if len(served.body) < len(whole.encode()):
            assert record.outcome == "aborted"
    if read == "all" and not expected.raised:
        assert record.outcome == "ok"
    assert 0 <= (record.ttfb_ms or 0) <= record.duration_ms
    ids = [value for name, value in served.headers if name == "X-Request-ID"]
    assert ids == ([record.request_id] if served.headers else [])


@given(st.text(max_size=300) | st.from_regex(r"[A-Za-z0-9._~:@/+=-]{1,200}", fullmatch=True))
def test_accepted_ids_are_the_well_formed_ones(value: str) -> None:
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~:@/+=-")
    well_formed = 1 <= len(value) <= 200 and set(value) <= allowed
    assert accepted_request_id(value) == (value if well_formed else None)


HEX = "0123456789abcdef"


@given(
    st.text(alphabet=HEX, min_size=2, max_size=2),
    st.text(alphabet=HEX, min_size=32, max_size=32),
    st.text(alphabet=HEX, min_size=16, max_size=16),
    st.text(alphabet=HEX, min_size=2, max_size=2),
    st.sampled_from(["", "-", "-more", "x"]),
)
@example("00", "0" * 32, "1" * 16, "01", "")
@example("00", "1" * 32, "0" * 16, "01", "")
@example("ff", "1" * 32, "1" * 16, "01", "")
def test_traceparent(version: str, trace: str, parent: str, flags: str, rest: str) -> None:
    valid = (
        version != "ff"
        and trace != "0" * 32
        and parent != "0" * 16
        and (rest == "" or (version != "00" and rest.startswith("-")))
    )
    assert trace_id_of(f"{version}-{trace}-{parent}-{flags}{rest}") == (trace if valid else None)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_a_path_is_one_printable_line(script: bytes, path: bytes) -> None:
    shown = readable_path((script + path).decode("latin-1"))
    assert shown.isprintable()


@given(st.text(max_size=40))
def test_a_readable_path_is_shown_as_it_is(text: str) -> None:
    path = "/" + "".join(char for char in text if char.isprintable())
    assert readable_path(path.encode().decode("latin-1")) == path


@given(st.text(max_size=5))
def test_a_status_is_three_digits(text: str) -> None:
    plain = re.fullmatch(r"[0-9]{3}", text[:3])
    assert status_code(text) == (int(plain[0]) if plain else 0)


SEGMENTS = st.lists(st.sampled_from(["static", "a", "", ".", "..", "a\\b", "\n", "..."]), max_size=5)


@given(SEGMENTS)
def test_ambiguous_paths_match_nothing(segments: list[str]) -> None:
    path = "/" + "/".join(segments)
    rules = PathRules(["/static/", "/a"], parameter="paths")
    ambiguous = any(part in ("", ".", "..", "a\\b", "\n") for part in segments[:-1]) or (
        bool(segments) and segments[-1] in (".", "..", "a\\b", "\n")
    )
    assert is_plain_path(path) != ambiguous
    listed = path == "/a" or path.startswith("/static/")
    assert rules.match(path) == (listed and not ambiguous)


@given(st.sampled_from(["GET", "HEAD", "POST"]), st.integers(90, 599))
@example("GET", 99)
@example("GET", 100)
@example("GET", 199)
@example("GET", 200)
@example("GET", 204)
@example("GET", 205)
@example("GET", 304)
def test_what_has_a_body(method: str, status: int) -> None:
    bodyless = [*range(100, 200), 204, 304]
    assert has_body(method, status) == (method != "HEAD" and status not in bodyless)


@given(st.booleans(), st.booleans(), st.booleans(), st.integers(0, 5), st.none() | st.integers(0, 5))
def test_the_outcome(
    failed: bool, complete: bool, expects_body: bool, sent: int, declared: int | None
) -> None:
    outcome = outcome_of(
        broken_off=False,
        failed=failed,
        complete=complete,
        expects_body=expects_body,
        sent=sent,
        declared=declared,
    )
    reached = declared is not None and sent >= declared
    assert (outcome == "error") == failed
    assert (outcome == "aborted") == (not failed and expects_body and not complete and not reached)
    assert outcome in ("ok", "error", "aborted")

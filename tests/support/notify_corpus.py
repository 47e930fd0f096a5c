"""Runs the delivery scenarios of ``tests/corpus/notify/scenarios.jsonl`` against real servers.

A scenario has ``name``, ``channel`` (email, slack, webhook), ``server``, ``options`` of the handler, ``policy``,
``spool`` (true: there is one), ``steps`` and ``expect``.

``server``: for e-mail ``security``, ``offers`` (what it really does), ``users`` and ``certificate`` (good, expired,
other-host, unknown); for the others ``tls`` and ``certificate``. ``down``: it does not listen at first. ``script``
lists faults: for e-mail ``{"at": "RCPT", "reply": "451 later", "times": 2, "delay": 0, "drop": false}``, for the
others answers (``status``, ``headers``, ``body``, ``delay``, ``drop``, ``raw``, ``trickle``, and ``times``).

``steps``: ``{"log": {...}}`` (``message``, ``args``, ``level``, ``logger``, ``extra``, ``bind``, ``error``,
``stretch`` to repeat the text, and ``times``, counted by ``{n}`` in the message), ``{"flush": seconds}``,
``{"close": seconds}``, ``{"script": [...]}``, ``{"start": true}``, ``{"stop": true}``, ``{"rebuild": {options}}``
(close, and build another on the same spool). Unless the last step is ``close`` or ``flush``, a flush follows.

``expect``: ``deliveries``, ``tries``, ``spooled_files`` (a number, or least and most), ``stats`` (some of the sums
of the last handler), ``contains``, ``lacks``, ``subjects`` (regular expressions, one a mail), ``recipients``,
``user``, ``over_tls``, ``one_id`` (all tries carried the same id).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import re
import ssl
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import trustme

from mks_hardening.logging import bound
from mks_hardening.notify import (
    AlertPolicy,
    EmailNotificationHandler,
    NotificationHandler,
    SlackNotificationHandler,
    WebhookNotificationHandler,
)
from testbed.http_sink import Answer, HttpSink, Request
from testbed.smtp_server import Received, SmtpServer

CASES = Path(__file__).parents[1] / "corpus" / "notify" / "scenarios.jsonl"
SECRET = "hunter22-Geheim"
QUICK = {"backoff": 0.02, "backoff_max": 0.1, "retries": 2, "rate": 1000}


def load_cases() -> list[dict[str, Any]]:
    """Return all scenarios, in the order of the file."""
    return [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines() if line.strip()]


class _Authority:
    """A certificate authority with one server certificate, valid or not."""

    def __init__(self, folder: Path, kind: str) -> None:
        trusted, unknown = trustme.CA(), trustme.CA()
        now = dt.datetime.now(dt.UTC)
        issuer = unknown if kind == "unknown" else trusted
        issued = issuer.issue_cert(
            "other.example" if kind == "other-host" else "localhost",
            not_before=now - dt.timedelta(days=9),
            not_after=now + dt.timedelta(days=-2 if kind == "expired" else 9),
        )
        self.ca_file = folder / "ca.pem"
        trusted.cert_pem.write_to_path(self.ca_file)
        self.server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued.configure_cert(self.server_context)


class _Mail:
    """A scripted SMTP server and what it received."""

    def __init__(self, spec: dict[str, Any], folder: Path) -> None:
        self.security = spec.get("security", "plain")
        self.authority = _Authority(folder, spec.get("certificate", "good"))
        self.server = SmtpServer(
            self.authority, security=spec.get("offers", self.security), users=spec.get("users", {})
        )  # type: ignore[arg-type]  # the two attributes it uses
        self.server.start()
        self.start, self.stop = self.server.start, self.server.stop

    def script(self, faults: list[dict[str, Any]]) -> None:
        for fault in faults:
            if fault.get("drop"):
                self.server.drop(fault["at"], times=fault.get("times", 1))
            else:
                self.server.answer(
                    fault["at"],
                    fault.get("reply"),
                    delay=fault.get("delay", 0.0),
                    times=fault.get("times", 1),
                )

    def build(self, options: dict[str, Any]) -> NotificationHandler:
        tls = {} if self.security == "plain" else {"ca_file": str(self.authority.ca_file)}
        options = {"from_addr": "mks@example.com", "to_addrs": ["ops@example.com"], **tls, **options}
        return EmailNotificationHandler(
            "localhost", smtp_port=self.server.port, security=self.security, **options
        )

    @property
    def tries(self) -> int:
        return self.server.connections

    @property
    def deliveries(self) -> int:
        return len(self.server.received)

    @property
    def texts(self) -> list[str]:
        return [_mail_text(mail) for mail in self.server.received]

    @property
    def ids(self) -> list[str]:
        return [str(mail.message["Message-ID"]) for mail in self.server.received]


class _Http:
    """A scripted HTTP server and what it received."""

    def __init__(self, spec: dict[str, Any], folder: Path, channel: str) -> None:
        self.channel = channel
        self.authority = _Authority(folder, spec.get("certificate", "good"))
        self.tls = spec.get("tls", False)
        self.server = HttpSink(certificates=self.authority if self.tls else None)  # type: ignore[arg-type]  # as above
        self.answers: deque[Answer] = deque()
        self.accepted: list[Request] = []
        self.server.default = self._answer
        self.server.start()
        self.start, self.stop = self.server.start, self.server.stop

    def _answer(self, request: Request) -> Answer:
        answer = self.answers.popleft() if self.answers else Answer()
        if 200 <= answer.status < 300 and not answer.drop and answer.raw is None:
            self.accepted.append(request)
        return answer

    def script(self, faults: list[dict[str, Any]]) -> None:
        for fault in faults:
            known = {name: value for name, value in fault.items() if name != "times"}
            if "raw" in known:
                known["raw"] = known["raw"].encode()
            if isinstance(date := known.get("headers", {}).get("Retry-After"), dict):
                known["headers"] = {"Retry-After": _http_date(date["date_in"])}
            self.answers.extend([Answer(**known)] * fault.get("times", 1))

    def build(self, options: dict[str, Any]) -> NotificationHandler:
        url = f"{self.server.url}/services/{SECRET}"
        tls: dict[str, Any] = {"ca_file": str(self.authority.ca_file)} if self.tls else {}
        kind = SlackNotificationHandler if self.channel == "slack" else WebhookNotificationHandler
        return kind(url, **tls, **options)

    @property
    def tries(self) -> int:
        return len(self.server.requests)

    @property
    def deliveries(self) -> int:
        return len(self.accepted)

    @property
    def texts(self) -> list[str]:
        return ["\n".join(_strings(request.json())) for request in self.accepted]

    @property
    def ids(self) -> list[str]:
        return [
            request.headers.get("Idempotency-Key", request.body.decode()) for request in self.server.requests
        ]


def _http_date(seconds: float) -> str:
    moment = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
    return moment.strftime("%a, %d %b %Y %H:%M:%S GMT")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)


def _mail_text(mail: Received) -> str:
    parts = [part for part in mail.message.walk() if part.get_content_maintype() == "text"]
    headers = "\n".join(f"{name}: {value}" for name, value in mail.message.items())
    return "\n".join([headers, *(part.get_content() for part in parts)])


class _Play:
    """A running scenario."""

    def __init__(self, case: dict[str, Any], folder: Path) -> None:
        self.case = case
        self.spool = folder / "spool" if case.get("spool") else None
        spec = case.get("server", {})
        self.server = (
            _Mail(spec, folder) if case["channel"] == "email" else _Http(spec, folder, case["channel"])
        )
        self.server.script(spec.get("script", []))
        if spec.get("down"):
            self.server.stop()
        self.logged = 0
        self.slowest = 0.0
        self.handler = self._build({})

    def _build(self, changes: dict[str, Any]) -> NotificationHandler:
        policy = AlertPolicy(**{**QUICK, **self.case.get("policy", {})})
        options = {
            "lang": "en",
            "environment": "",
            "timeout": 5,
            "spool": self.spool,
            **self.case.get("options", {}),
            **changes,
        }
        return self.server.build({"policy": policy, **options})

    def step(self, name: str, value: Any) -> None:
        match name:
            case "log":
                self._log(**value)
            case "flush":
                self.handler.flush(value)
            case "close":
                self.handler.close(value)
            case "script":
                self.server.script(value)
            case "start":
                self.server.start()
            case "stop":
                self.server.stop()
            case "rebuild":
                self.handler.close(5)
                self.logged = 0
                self.handler = self._build(value)
            case _:
                raise ValueError(name)

    def _log(
        self,
        message: str,
        *,
        args: list[Any] | None = None,
        level: str = "ERROR",
        logger: str = "app",
        extra: dict[str, Any] | None = None,
        bind: dict[str, Any] | None = None,
        error: str | None = None,
        times: int = 1,
        stretch: int = 1,
    ) -> None:
        message *= stretch
        error = error * stretch if error is not None else None
        log = logging.Logger(logger, 1)  # noqa: LOG001 - not in the registry, so nothing is left behind
        log.addHandler(self.handler)
        number = logging.getLevelNamesMapping()[level]
        with bound(**(bind or {})):
            for n in range(times):
                start = time.perf_counter()
                text = message.replace("{n}", _name(n))
                log.log(number, text, *(args or ()), extra=extra, exc_info=_raised(error))
                self.slowest = max(self.slowest, time.perf_counter() - start)
        self.logged += times if number >= self.handler.level else 0

    def files(self) -> list[Path]:
        return sorted(self.spool.iterdir()) if self.spool else []


def _raised(text: str | None) -> RuntimeError | None:
    """Return an exception with a traceback."""
    try:
        return None if text is None else _fail(text)
    except RuntimeError as error:
        return error


def _fail(text: str) -> NoReturn:
    raise RuntimeError(text)


def _name(number: int) -> str:
    """Return a number in letters, so that messages differ in more than digits."""
    letters = ""
    while True:
        number, rest = divmod(number, 26)
        letters += chr(ord("a") + rest)
        if not number:
            return letters


def faults_of(case: dict[str, Any], folder: Path) -> list[str]:
    """Return the errors of one scenario."""
    play = _Play(case, folder)
    with contextlib.ExitStack() as stack:
        stack.callback(play.server.stop)
        stack.callback(lambda: play.handler.close(0.5))
        for step in case["steps"]:
            ((name, value),) = step.items()
            play.step(name, value)
        if next(iter(case["steps"][-1])) not in ("flush", "close"):
            play.handler.flush(10)
        return list(_faults(play, case["expect"]))


def _faults(play: _Play, expect: dict[str, Any]) -> Iterator[str]:
    stats = play.handler.stats()
    parts = stats.delivered + stats.suppressed + stats.spooled + stats.dropped + stats.pending
    texts = play.server.texts
    everything = "\n".join(texts)
    numbers: dict[str, Callable[[], int]] = {
        "deliveries": lambda: play.server.deliveries,
        "tries": lambda: play.server.tries,
        "spooled_files": lambda: sum(file.suffix in {".json", ".sending"} for file in play.files()),
    }
    if stats.logged != parts or stats.logged != play.logged:
        yield f"the sums do not add up for {play.logged} records: {stats}"
    if SECRET in everything or any(SECRET in file.read_text() for file in play.files()):
        yield "a secret went out"
    yield from (
        f"{file.name} can be read by others"
        for file in play.files()
        if stat.S_IMODE(file.stat().st_mode) != 0o600
    )
    for name, number in numbers.items():
        if name in expect:
            least, most = expect[name] if isinstance(expect[name], list) else (expect[name], expect[name])
            if not least <= number() <= most:
                yield f"{name}: {number()} instead of {expect[name]}"
    for name, wanted in expect.get("stats", {}).items():
        if getattr(stats, name) != wanted:
            yield f"{name}: {getattr(stats, name)} instead of {wanted}"
    yield from (f"{text!r} is missing" for text in expect.get("contains", []) if text not in everything)
    yield from (f"{text!r} is there" for text in expect.get("lacks", []) if text in everything)
    if expect.get("one_id") and len(set(play.server.ids)) != 1:
        yield f"the tries carried several ids: {play.server.ids}"
    if isinstance(play.server, _Mail):
        yield from _mail_faults(play.server.server.received, expect)


def _mail_faults(mails: list[Received], expect: dict[str, Any]) -> Iterator[str]:
    for mail, pattern in zip(mails, expect.get("subjects", []), strict=False):
        if not re.search(pattern, str(mail.message["Subject"])):
            yield f"subject {mail.message['Subject']!r} does not match {pattern!r}"
    for mail in mails:
        if "recipients" in expect and list(mail.rcpt_tos) != expect["recipients"]:
            yield f"recipients {mail.rcpt_tos}"
        if "user" in expect and mail.user != expect["user"]:
            yield f"user {mail.user}"
        if "over_tls" in expect and mail.over_tls != expect["over_tls"]:
            yield f"over_tls {mail.over_tls}"
        if len(str(mail.message["Subject"])) > 200:
            yield "a subject is longer than 200 characters"

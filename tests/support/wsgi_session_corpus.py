"""Runs the cases of ``tests/corpus/wsgi/session.jsonl`` over the session wrapper.

A case has ``name``, ``options`` of the middleware and ``steps``. A step moves the clock (``advance``,
``step_wall``), takes the store away and back (``outage``), acts from outside (``end_user``), or is a request:
``as`` names the browser, ``get`` or ``post`` the path, ``headers`` and ``query`` the rest, ``do`` what the
application does with its session, ``during`` the steps that happen while it works, ``keep`` saves the browser's
cookie under a name before the request, ``replay`` sends a saved one. ``expect`` is compared with what came.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.protocols import SessionStore
from mks_hardening.testing import FrozenClock
from mks_hardening.wsgi import SessionCookie, SessionManager, SessionTimeoutMiddleware
from wsgi_scripted import Served, environ_of, serve

CASES = Path(__file__).parents[1] / "corpus" / "wsgi" / "session.jsonl"


def load_cases() -> list[dict[str, Any]]:
    """Return all cases, in the order of the file."""
    return [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines() if line.strip()]


class SwitchedStore:
    """A store that can be made unavailable; counts writes."""

    def __init__(self, store: SessionStore) -> None:
        self.store = store
        self.away = False
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self.store, name)
        if not callable(operation):
            return operation

        def call(*args: Any, **options: Any) -> Any:
            self.calls.append(name)
            if self.away:
                raise BackendUnavailableError("store", "refused", operation=name, sent=False)
            return operation(*args, **options)

        return call


class World:
    """A running case: browsers, clock, store, application."""

    def __init__(self, case: dict[str, Any], store: SessionStore) -> None:
        self.clock = FrozenClock()
        self.store = SwitchedStore(store)
        self.jars: dict[str, dict[str, str]] = {}
        self.kept: dict[str, dict[str, str]] = {}
        self.faults: list[str] = []
        self.step: dict[str, Any] = {}
        self.seen: dict[str, Any] = {}
        self.expired: list[list[str]] = []
        options = dict(case.get("options", {}))
        options["cookie"] = SessionCookie(**options.pop("cookie", {}))
        middleware = SessionTimeoutMiddleware(
            validator(self.application),
            store=self.store,  # type: ignore[arg-type]  # answers to every name
            clock=self.clock,
            on_expired=lambda record, reason: self.expired.append([record.user_id, reason]),
            **options,
        )
        self.app: Callable[..., Any] = validator(middleware)  # type: ignore[assignment]
        self.manager = SessionManager(self.store, clock=self.clock)  # type: ignore[arg-type]

    def run(self, steps: list[dict[str, Any]]) -> list[str]:
        for step in steps:
            if "advance" in step:
                self.clock.advance(step["advance"])
            elif "step_wall" in step:
                self.clock.step_wall(step["step_wall"])
            elif "outage" in step:
                self.store.away = step["outage"]
            elif "end_user" in step:
                ended = self.manager.end_user(step["end_user"])
                self._compare("ended", ended, step.get("expect", ended))
            elif "sessions" in step:
                self._compare("sessions", len(self.manager.sessions(step["sessions"])), step["expect"])
            elif "writes" in step:
                self._compare(
                    "writes",
                    self.store.calls.count("touch") + self.store.calls.count("atouch"),
                    step["writes"],
                )
            elif "expired" in step:
                self._compare("on_expired", self.expired, step["expired"])
            else:
                self._request(step)
        return self.faults

    # --- one request ---

    def _request(self, step: dict[str, Any]) -> None:
        before, self.step, self.seen = (self.step, self.seen), step, {"ran": False}
        jar = self.jars.setdefault(step.get("as", "a"), {})
        if "keep" in step:
            self.kept[step["keep"]] = dict(jar)
        sent = dict(self.kept[step["replay"]]) if "replay" in step else dict(jar)
        environ = environ_of(
            {
                "method": "POST" if "post" in step else "GET",
                "path": step.get("post", step.get("get")),
                "script_name": step.get("script_name", ""),
                "headers": step.get("headers", {}),
            }
        )
        cookies = [f"{name}={value}" for name, value in sent.items()]
        if step.get("cookie") is not None:
            cookies = [step["cookie"]]
        if cookies:
            environ["HTTP_COOKIE"] = "; ".join(cookies)
        served = serve(self.app, environ)
        if "replay" not in step:
            _store_cookies(jar, served.headers)
        self._judge(step, served, sent, jar)
        self.step, self.seen = before

    def application(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        session, step = environ["mks_hardening.session"], self.step
        seen = self.seen
        seen.update(ran=True, user=session.user_id, alive=session.alive, cookies=environ.get("HTTP_COOKIE"))
        seen.update(expires_in=session.expires_in, data=dict(session.data), session_reason=session.reason)
        self.run(step.get("during", []))
        if "do" in step:
            name, *arguments = step["do"]
            options = arguments.pop() if arguments and isinstance(arguments[-1], dict) else {}
            seen["returned"] = getattr(session, name)(*arguments, **options)
        seen.update(alive_after=session.alive, data_after=dict(session.data), csrf=session.csrf_token)
        body = b"SECRET PAGE"
        headers = [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(body)))]
        headers += [tuple(field) for field in step.get("answer_headers", [])]
        start_response("200 OK", headers)
        return [body]

    def _judge(self, step: dict[str, Any], served: Served, sent: dict[str, str], jar: dict[str, str]) -> None:
        fields: dict[str, list[str]] = {}
        for name, value in served.headers:
            fields.setdefault(name.lower(), []).append(value)
        own = self._cookie_name()
        facts = {
            "status": int(served.status[:3] or 0),
            "raised": served.raised,
            "reason": "".join(fields.get("x-session-timeout-reason", [])),
            "expires": "".join(fields.get("x-session-expires-in", [])),
            "location": "".join(fields.get("location", [])),
            "type": "".join(fields.get("content-type", [])),
            "cache": "".join(fields.get("cache-control", [])),
            "retry": "".join(fields.get("retry-after", [])),
            "leaks": b"SECRET" in served.body,
            "cookie": _fate(own, fields.get("set-cookie", [])),
            "clears": sorted(
                value.partition("=")[0] for value in fields.get("set-cookie", []) if "Max-Age=0" in value
            ),
            "attributes": sorted(
                part.strip()
                for value in fields.get("set-cookie", [])
                if value.startswith(own + "=")
                for part in value.split(";")[1:]
            ),
            **self.seen,
        }
        for name, expected in step.get("expect", {}).items():
            self._compare(f"{step.get('get', step.get('post'))} {name}", facts.get(name), expected)

    def _cookie_name(self) -> str:
        return str(self.app.__closure__[0].cell_contents.cookie_name)  # type: ignore[attr-defined]

    def _compare(self, what: str, actual: Any, expected: Any) -> None:
        if actual != expected:
            self.faults.append(f"{what}: {actual!r} instead of {expected!r}")


def _fate(name: str, cookies: list[str]) -> str:
    ours = [value for value in cookies if value.startswith(name + "=")]
    if len(ours) > 1:
        return "twice"
    if not ours:
        return "kept"
    return "cleared" if "Max-Age=0" in ours[0] else "set"


def _store_cookies(jar: dict[str, str], headers: list[tuple[str, str]]) -> None:
    for name, value in headers:
        if name.lower() == "set-cookie":
            for key, morsel in SimpleCookie(value).items():
                if morsel["max-age"] == "0":
                    jar.pop(key, None)
                else:
                    jar[key] = morsel.value


def faults_of(case: dict[str, Any], store: SessionStore) -> list[str]:
    """Return the errors of the wrapper in one case over a new store."""
    return World(case, store).run(case["steps"])

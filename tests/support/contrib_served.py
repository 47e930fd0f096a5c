"""A browser for applications on real servers of this machine, independent of any framework."""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from testbed.polling import accepts_connections, free_port
from testbed.process import ServerProcess

__all__ = ["SNIPPETS", "Answer", "Browser", "served"]

SNIPPETS = Path(__file__).parents[2] / "docs" / "snippets" / "frameworks"


class Answer(NamedTuple):
    """A received response."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The body read as JSON."""
        return json.loads(self.body)


class Browser:
    """Keeps cookies, and sends the Origin of its requests, as browsers do."""

    def __init__(self, port: int, cookies: Mapping[str, str] | None = None) -> None:
        self.port = port
        self.cookies = dict(cookies or {})

    def copy(self) -> Browser:
        """Return another browser with the same cookies."""
        return Browser(self.port, self.cookies)

    def ask(self, path: str, form: Mapping[str, str] | None = None, **headers: str) -> Answer:
        """Send a GET request, or a POST with a form."""
        sent = {"Accept": "application/json", **headers}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        body = None
        if form is not None:
            sent["Origin"] = f"http://127.0.0.1:{self.port}"
            sent["Content-Type"] = "application/x-www-form-urlencoded"
            body = urlencode(form)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET" if form is None else "POST", path, body=body, headers=sent)
            answer = connection.getresponse()
            read = Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()
        for field in read.headers.get_all("Set-Cookie") or ():
            name, _, rest = field.partition("=")
            if "Max-Age=0" in field:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = rest.partition(";")[0]
        return read


@contextmanager
def served(
    application: str, *, log: Path, environment: Mapping[str, str], workers: int = 2
) -> Iterator[Browser]:
    """A browser for an application of ``SNIPPETS`` under gunicorn.

    Args:
        application: ``module:name``.
        log: takes what the server says.
        environment: variables for it.
        workers: processes; each has four threads.
    """
    port = free_port()
    options = ["-b", f"127.0.0.1:{port}", "-w", str(workers), "--threads", "4", "--no-control-socket"]
    variables = [f"{name}={value}" for name, value in {"PYTHONPATH": str(SNIPPETS), **environment}.items()]
    server = ServerProcess(
        ["env", *variables, sys.executable, "-m", "gunicorn", *options, application],
        log=log,
        ready=lambda: accepts_connections(port),
        cwd=log.parent,
    )
    server.start()
    try:
        yield Browser(port)
    finally:
        server.stop()

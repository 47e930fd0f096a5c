"""A scripted WSGI application, and a server that follows PEP 3333 strictly."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from wsgiref.util import FileWrapper

from mks_hardening.testing import FrozenClock

Headers = list[tuple[str, str]]

ERRORS: dict[str, type[BaseException]] = {
    "ValueError": ValueError,
    "RuntimeError": RuntimeError,
    "KeyError": KeyError,
    "OSError": OSError,
    "SystemExit": SystemExit,
    "KeyboardInterrupt": KeyboardInterrupt,
}


class ScriptedApp:
    """An application described by plain data.

    Keys of ``script``: ``status``, ``headers``, ``chunks``, ``writes``, ``body`` (``list tuple generator iterator
    sized file``), ``start`` (``early late never``), ``restart`` (status given with ``exc_info`` after the first
    start), ``raises`` (``{"at": "call" | "started" | "iter" | "close" | number of the chunk, "error": name}``),
    ``takes`` (seconds that pass at ``call``, at each ``chunk`` and at ``close``).
    """

    def __init__(self, script: dict[str, Any], clock: FrozenClock) -> None:
        self.script = script
        self.clock = clock
        self.closed = 0
        self.environ: dict[str, Any] = {}
        self.status = script.get("status", "200 OK")
        self.headers = [tuple(field) for field in script.get("headers", [["Content-Type", "text/plain"]])]
        self.chunks = [chunk.encode() for chunk in script.get("chunks", ["ok"])]

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        self.environ = environ
        self._pass_time("call")
        self._raise_at("call")
        if self.script.get("start", "early") == "early":
            self._start(start_response)
        return getattr(self, "_" + self.script.get("body", "list"))(start_response)

    def _start(self, start_response: Callable[..., Any]) -> None:
        write = start_response(self.status, list(self.headers))
        self._raise_at("started")
        for text in self.script.get("writes", ()):
            write(text.encode())
        if "restart" in self.script:
            try:
                raise ValueError("changed its mind")  # noqa: TRY301 - exc_info is wanted
            except ValueError:
                start_response(self.script["restart"], list(self.headers), sys.exc_info())

    def _list(self, start_response: Callable[..., Any]) -> list[bytes]:
        return list(self.chunks)

    def _tuple(self, start_response: Callable[..., Any]) -> tuple[bytes, ...]:
        return tuple(self.chunks)

    def _generator(self, start_response: Callable[..., Any]) -> Iterator[bytes]:
        try:
            if self.script.get("start") == "late":
                self._start(start_response)
            for number, chunk in enumerate(self.chunks):
                self._step(number)
                yield chunk
            self._step(len(self.chunks))
        finally:
            self.closed += 1

    def _iterator(self, start_response: Callable[..., Any]) -> _Iterator:
        return _Iterator(self, start_response)

    def _sized(self, start_response: Callable[..., Any]) -> _Sized:
        return _Sized(self, start_response)

    def _file(self, start_response: Callable[..., Any]) -> Any:
        return self.environ["wsgi.file_wrapper"](_File(self), 4)

    def _step(self, number: int) -> None:
        if number < len(self.chunks):
            self._pass_time("chunk")
        self._raise_at(number)

    def _pass_time(self, moment: str) -> None:
        self.clock.advance(self.script.get("takes", {}).get(moment, 0.0))

    def _raise_at(self, moment: str | int) -> None:
        raises = self.script.get("raises")
        if raises is not None and raises["at"] == moment:
            raise ERRORS[raises["error"]]("from the application")


class _Iterator:
    def __init__(self, app: ScriptedApp, start_response: Callable[..., Any]) -> None:
        self.app = app
        self.start_response = start_response
        self.number = 0

    def __iter__(self) -> _Iterator:
        self.app._raise_at("iter")
        return self

    def __next__(self) -> bytes:
        if self.number == 0 and self.app.script.get("start") == "late":
            self.app._start(self.start_response)
        self.app._step(self.number)
        if self.number == len(self.app.chunks):
            raise StopIteration
        self.number += 1
        return self.app.chunks[self.number - 1]

    def close(self) -> None:
        self.app.closed += 1
        self.app._pass_time("close")
        self.app._raise_at("close")


class _Sized(_Iterator):
    def __len__(self) -> int:
        return len(self.app.chunks)


class _File(io.BytesIO):
    def __init__(self, app: ScriptedApp) -> None:
        super().__init__(b"".join(app.chunks))
        self.app = app

    def close(self) -> None:
        if not self.closed:
            self.app.closed += 1
        super().close()


class Served(NamedTuple):
    """What a server received for one request."""

    status: str
    headers: Headers
    body: bytes
    raised: str
    result: Any


def serve(app: Callable[..., Any], environ: dict[str, Any], *, read: str | int = "all") -> Served:
    """Run one request as a strict server: the first byte sends the head, ``close()`` always runs.

    Args:
        app: the application.
        environ: the request.
        read: ``all``, ``none`` (the body is never asked for), or after how many chunks the client is gone.
    """
    head: list[tuple[str, Headers]] = []
    sent: list[bytes] = []

    def start_response(status: str, headers: Headers, exc_info: Any = None, /) -> Callable[[bytes], object]:
        if exc_info is not None and exc_info[1] is not None and any(sent):
            raise exc_info[1].with_traceback(exc_info[2])
        assert not head or exc_info is not None, "start_response twice without exc_info"
        head[:] = [(status, headers)]
        return sent.append

    raised, result = "", None
    try:
        result = app(environ, start_response)
        try:
            _read(result, sent, read)
        finally:
            if hasattr(result, "close"):
                result.close()
    except BaseException as error:  # noqa: BLE001 - a server logs it
        raised = type(error).__name__
    status, headers = head[0] if head else ("", [])
    return Served(status, headers, b"".join(sent), raised, result)


def _read(result: Any, sent: list[bytes], read: str | int) -> None:
    if read == "none":
        return
    for number, chunk in enumerate(result):
        if number == read:
            return
        sent.append(chunk)
        if number + 1 == read:
            return


def environ_of(request: dict[str, Any]) -> dict[str, Any]:
    """Return the environ for the ``request`` of a table: method, path, query, headers, peer, accept and so on."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.get("method", "GET"),
        "SCRIPT_NAME": request.get("script_name", ""),
        "PATH_INFO": request.get("path", "/").encode("utf-8", "surrogateescape").decode("latin-1"),
        "QUERY_STRING": request.get("query", ""),
        "SERVER_NAME": "server.internal",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": request.get("peer", "192.0.2.7"),
        "HTTP_HOST": "www.example.com",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
    }
    for name, value in request.get("headers", {}).items():
        environ["HTTP_" + name.upper().replace("-", "_")] = value
    for key, value in request.get("environ", {}).items():
        environ[key] = value
        if value is None:
            del environ[key]
    return environ

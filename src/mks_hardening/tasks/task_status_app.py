"""Status of tasks over HTTP: polling with ``Retry-After``, or server-sent events."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from mks_hardening._core.checks import function, offers, whole_number
from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.durations import seconds

if TYPE_CHECKING:
    from datetime import timedelta
    from wsgiref.types import StartResponse, WSGIEnvironment

    from mks_hardening.protocols import Clock
    from mks_hardening.tasks.task_status import TaskStatus
    from mks_hardening.tasks.tasks import Tasks

__all__ = ["TaskStatusApp"]

_STREAM: Final = (
    ("Content-Type", "text/event-stream"),
    ("Cache-Control", "no-store"),
    ("X-Accel-Buffering", "no"),  # nginx would hold events back until its buffer is full
)
_ID: Final = re.compile(r"/([0-9a-f]{32})", re.ASCII)


class TaskStatusApp:
    """WSGI application that serves ``GET /<id>``; mount it at the path of ``status_url``.

    The response is 202 with ``Retry-After`` while the task has not ended, 200 when it has, and the same 404 for an
    unknown task and for one of another user. A client that accepts ``text/event-stream`` (WHATWG HTML, 9.2)
    receives one event per change until the task has ended. Error texts are not included. ``accepted`` builds the
    response to the request that enqueues a task.

    Args:
        tasks: ``Tasks`` whose status is served.
        user_of: returns the user who sends a request; ``None`` if not authenticated, who sees no task.
        poll: seconds between two reads while events are sent, and the ``Retry-After`` of polling.
        longest: seconds after which an event stream ends; browsers reconnect automatically.
        streams: maximum number of concurrent streams, since each occupies a thread of the server; a further client
            receives one event and reconnects after ``poll``, which amounts to polling.
        clock: monotonic clock for durations.
        sleep: function that waits between two reads, in seconds.

    Raises:
        ConfigurationError: a parameter is out of range.
    """

    def __init__(
        self,
        tasks: Tasks,
        *,
        user_of: Callable[[WSGIEnvironment], str | None],
        poll: float | timedelta = 1.0,
        longest: float | timedelta = 60.0,
        streams: int = 4,
        clock: Clock = SYSTEM_CLOCK,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._tasks = offers(tasks, "task", "begin", parameter="tasks", kind="a Tasks")
        self._user_of = function(user_of, parameter="user_of")
        self._poll = seconds(poll, parameter="poll", minimum=0.1)
        self._longest = seconds(longest, parameter="longest", minimum=1.0)
        self._streams = threading.Semaphore(
            whole_number(streams, parameter="streams", minimum=0, maximum=1000)
        )
        self._clock = given_clock(clock)
        self._sleep = function(sleep, parameter="sleep")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Respond to a request (PEP 3333)."""
        if environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            return _response(
                start_response, "405 Method Not Allowed", {"title": "Method Not Allowed"}, Allow="GET, HEAD"
            )
        status = self._status(environ)
        if status is None:
            return _response(start_response, "404 Not Found", {"title": "Not Found"})
        if "text/event-stream" in environ.get("HTTP_ACCEPT", "") and environ["REQUEST_METHOD"] == "GET":
            start_response("200 OK", list(_STREAM))
            return self._stream(status)
        if status.ended:
            return _response(start_response, "200 OK", _shown(status))
        return _response(start_response, "202 Accepted", _shown(status), **{"Retry-After": self._retry_after})

    def accepted(self, task_id: str, *, status_url: str) -> tuple[dict[str, str], dict[str, str]]:
        """Build the response to the request that enqueued a task: 202 with these header fields and this JSON body.

        Args:
            task_id: returned by ``enqueue``.
            status_url: URL at which this application serves the task.

        Returns:
            Header fields (``Location`` and ``Retry-After``; RFC 9110, 15.3.3), and the members of the body.
        """
        fields = {"Location": status_url, "Retry-After": self._retry_after, "Cache-Control": "no-store"}
        return fields, {"id": task_id, "status_url": status_url}

    @property
    def _retry_after(self) -> str:
        return str(max(1, round(self._poll)))

    def _status(self, environ: WSGIEnvironment) -> TaskStatus | None:
        wanted, user_id = _ID.fullmatch(environ.get("PATH_INFO", "")), self._user_of(environ)
        if wanted is None or user_id is None:
            return None
        return self._tasks.status(wanted[1], user_id=user_id)

    def _stream(self, status: TaskStatus) -> Iterator[bytes]:
        yield f"retry: {self._poll * 1000:.0f}\n\n".encode()  # delay before a browser reconnects
        # Each stream occupies a thread of the server. Beyond the limit a client receives one event and reconnects,
        # which amounts to polling.
        if not self._streams.acquire(blocking=False):
            yield from self._events(status, longest=0.0)
            return
        try:
            yield from self._events(status, longest=self._longest)
        finally:
            self._streams.release()

    def _events(self, status: TaskStatus, *, longest: float) -> Iterator[bytes]:
        """One event per change, and comments that keep proxies from closing an idle stream."""
        end = self._clock.monotonic() + longest
        seen = ""
        current: TaskStatus | None = status
        while current is not None:
            text = json.dumps(_shown(current), ensure_ascii=False)
            yield f"data: {text}\n\n".encode() if text != seen else b": waiting\n\n"
            seen = text
            if current.ended or self._clock.monotonic() >= end:
                return
            self._sleep(self._poll)
            # Queried with the user again, as the task may have been deleted or changed its owner.
            current = self._tasks.status(status.id, user_id=status.user_id)


def _shown(status: TaskStatus) -> dict[str, object]:
    return {
        "id": status.id,
        "state": status.state,
        "progress": round(status.progress, 4),
        "stage": status.stage,
        "result": status.result,
        "cancel_requested": status.cancel_requested,
    }


def _response(
    start_response: StartResponse, status: str, body: dict[str, object], **fields: str
) -> Iterable[bytes]:
    refused = status[0] == "4"
    text = json.dumps({**body, "status": int(status[:3])} if refused else body, ensure_ascii=False).encode()
    kind = "application/problem+json" if refused else "application/json"
    start_response(
        status,
        [
            ("Content-Type", kind),
            ("Content-Length", str(len(text))),
            ("Cache-Control", "no-store"),
            *fields.items(),
        ],
    )
    return [text]

"""Mail and chat sink of the demonstration: an SMTP and an HTTP server that write messages to files.

Mail is sent by SMTP and chat messages by HTTP, both on loopback; each accepted message is stored as one JSON file,
which the page ``/sink`` shows.
"""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable
from email import message_from_bytes
from email.policy import SMTP
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from knowledge_system.demo.atomic_writes import write_whole
from mks_hardening.protocols import Clock

MAX_MESSAGE = 1_000_000
KEPT = 200

Deliver = Callable[[str, dict[str, Any]], None]


class Outbox:
    """Stores messages in a directory; the oldest are removed beyond a limit."""

    def __init__(self, folder: Path, *, clock: Clock) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        self._last = 0

    def deliver(self, channel: str, message: dict[str, Any]) -> None:
        """Store a message of the channel ``mail`` or ``slack``."""
        with self._lock:
            now = self._clock.time()
            self._last = max(self._last + 1, int(now * 1_000_000))
            name = f"{self._last:020d}-{channel}"
            text = json.dumps({"channel": channel, "received": now, **message}, ensure_ascii=False)
            write_whole(self._folder / f"{name}.json", text.encode())
            for old in sorted(self._folder.glob("*.json"))[:-KEPT]:
                old.unlink(missing_ok=True)


def read_messages(folder: Path, *, limit: int = 50) -> list[dict[str, Any]]:
    """Return the newest messages in the directory, newest first."""
    files = sorted(folder.glob("*.json"), reverse=True)[:limit] if folder.is_dir() else []
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


class Sink:
    """An SMTP server and an HTTP server on free loopback ports, as a context manager."""

    def __init__(self, folder: Path, *, clock: Clock) -> None:
        deliver = Outbox(folder, clock=clock).deliver
        self._smtp = _Smtp(("127.0.0.1", 0), partial(_SmtpConversation, deliver))
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Webhook, deliver))

    @property
    def smtp_port(self) -> int:
        """Port of the SMTP server."""
        return int(self._smtp.server_address[1])

    @property
    def webhook_url(self) -> str:
        """URL that accepts chat messages like Slack's incoming webhooks."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/services/demo"

    def __enter__(self) -> Self:
        for server in (self._smtp, self._http):
            threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True, name="demo-sink").start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in (self._smtp, self._http):
            server.shutdown()
            server.server_close()


class _Smtp(socketserver.ThreadingTCPServer):
    daemon_threads = True


class _SmtpConversation(socketserver.StreamRequestHandler):
    """The part of RFC 5321 that the sender of alerts needs: EHLO, MAIL, RCPT, DATA, RSET, NOOP, QUIT."""

    timeout = 30

    def __init__(self, deliver: Deliver, *connection: Any) -> None:
        self._deliver = deliver
        super().__init__(*connection)

    def handle(self) -> None:
        self._recipients: list[str] = []
        self._say("220 localhost knowledge-system sink")
        while line := self.rfile.readline(2_000):
            verb, _, rest = line.decode("utf-8", "replace").strip().partition(" ")
            if verb.upper() == "QUIT":
                self._say("221 bye")
                return
            self._answer(verb.upper(), rest)

    def _answer(self, verb: str, rest: str) -> None:
        if verb in {"HELO", "EHLO"}:
            self._say(
                "250-localhost\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 1000000"
                if verb == "EHLO"
                else "250 localhost"
            )
        elif verb in {"MAIL", "RSET", "NOOP"}:
            self._recipients = [] if verb != "NOOP" else self._recipients
            self._say("250 ok")
        elif verb == "RCPT":
            self._recipients.append(rest[3:].strip().split(" ")[0].strip("<>"))
            self._say("250 ok")
        elif verb == "DATA" and self._recipients:
            self._say("354 go on")
            self._receive()
        else:
            self._say("503 bad sequence" if verb == "DATA" else "502 not here")

    def _receive(self) -> None:
        lines: list[bytes] = []
        size = 0
        while (line := self.rfile.readline(100_000)) not in {b".\r\n", b""}:
            size += len(line)
            if size <= MAX_MESSAGE:
                lines.append(line[1:] if line.startswith(b"..") else line)
        if size > MAX_MESSAGE:
            self._say("552 too large")
            return
        message = message_from_bytes(b"".join(lines), policy=SMTP)
        part = message.get_body(("plain", "html"))
        self._deliver(
            "mail",
            {
                "from": str(message["From"] or ""),
                "to": self._recipients,
                "subject": str(message["Subject"] or ""),
                "text": str(part.get_content()) if part else "",
            },
        )
        self._recipients = []
        self._say("250 kept")

    def _say(self, line: str) -> None:
        self.wfile.write(line.encode() + b"\r\n")


class _Webhook(BaseHTTPRequestHandler):
    timeout = 30

    def __init__(self, deliver: Deliver, *connection: Any) -> None:
        self._deliver = deliver
        super().__init__(*connection)

    def do_POST(self) -> None:
        """Store one message."""
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 < length <= MAX_MESSAGE:
            self.send_error(413)
            return
        try:
            body = json.loads(self.rfile.read(length))
        except ValueError:
            self.send_error(400)
            return
        text = "\n".join(_texts(body))
        self._deliver("slack", {"subject": text.partition("\n")[0], "text": text})
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the signature of http.server
        """Do not log: the terminal belongs to the launcher."""


def _texts(value: Any) -> list[str]:
    """Return all texts of a Block Kit message, in order."""
    if isinstance(value, dict):
        own = [value["text"]] if isinstance(value.get("text"), str) else []
        return own + [text for child in value.values() for text in _texts(child)]
    if isinstance(value, list):
        return [text for child in value for text in _texts(child)]
    return []

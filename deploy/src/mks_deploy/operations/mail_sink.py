"""Mail server for staging: it accepts every mail on loopback, keeps the newest in a folder, and sends none on."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from mks_deploy.atomic_files import refuse_foreign_path, replace_file

__all__ = ["MailSink"]

_LARGEST: Final = 25 * 1024**2
_IDLE: Final = 300.0


class MailSink:
    """Accepts mail by SMTP (RFC 5321) without a sign-in, and writes each to a file.

    Args:
        folder: folder of the files, made if it is missing.
        keep: number of mails kept; the oldest are deleted.
    """

    def __init__(self, folder: Path, *, keep: int = 1000) -> None:
        self._folder = folder
        self._keep = keep
        self._number = 0

    async def serve(self, port: int, *, ready: asyncio.Future[int] | None = None) -> None:
        """Listen on loopback until cancelled.

        Args:
            port: TCP port; 0 for any free one.
            ready: gets the port.
        """
        refuse_foreign_path(self._folder)
        self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        server = await asyncio.start_server(self._session, "127.0.0.1", port, limit=_LARGEST)
        async with server:
            if ready is not None:
                ready.set_result(server.sockets[0].getsockname()[1])
            await server.serve_forever()

    async def _session(self, incoming: asyncio.StreamReader, outgoing: asyncio.StreamWriter) -> None:
        async def say(line: str) -> None:
            outgoing.write(f"{line}\r\n".encode())
            await outgoing.drain()

        to = list[str]()
        try:
            await say("220 staging keeps all mail")
            while line := await asyncio.wait_for(incoming.readline(), _IDLE):
                said = line.decode("utf-8", "replace").strip()
                word = said[:4].upper()
                if word == "EHLO":
                    await say(f"250-staging\r\n250-SIZE {_LARGEST}\r\n250-8BITMIME\r\n250 SMTPUTF8")
                elif word == "RCPT":
                    to.append(said.partition(":")[2].strip())
                    await say("250 ok")
                elif word == "DATA" and to:
                    await say("354 go on")
                    mail = await asyncio.wait_for(incoming.readuntil(b"\r\n.\r\n"), _IDLE)
                    self._write(mail[:-3].replace(b"\r\n..", b"\r\n."), to)
                    to = []
                    await say("250 kept, and not sent")
                elif word in {"HELO", "MAIL", "RSET", "NOOP"}:
                    to = to if word == "NOOP" else []
                    await say("250 ok")
                elif word == "QUIT":
                    await say("221 bye")
                    return
                else:
                    await say("502 not known, or out of order")
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            return  # the client left, was silent for minutes, or sends too much
        finally:
            outgoing.close()
            with contextlib.suppress(OSError):
                await outgoing.wait_closed()

    def _write(self, mail: bytes, to: list[str]) -> None:
        self._number += 1
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{self._number:06}.eml"
        # What the envelope says may differ from the fields of the mail.
        replace_file(self._folder / name, f"X-Envelope-To: {', '.join(to)}\r\n".encode() + mail, mode=0o640)
        for old in sorted(self._folder.glob("*.eml"))[: -self._keep]:
            old.unlink(missing_ok=True)

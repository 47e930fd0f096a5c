"""A ``FaultProxy`` in a process of its own.

On threads of the load generator, the proxies of Redis and PostgreSQL would compete with it for one interpreter, and
what users wait for each other would count as a response time of the application.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import IO, cast

_ROOT = Path(__file__).resolve().parents[3]
_FOLDERS = [str(_ROOT / folder) for folder in ("tests/support", "examples/knowledge_system")]
_START = f"""\
import sys
sys.path[:0] = {_FOLDERS!r}
from bench.proxy_process import serve
serve(int(sys.argv[1]))"""


class ProxyProcess:
    """Starts the process, and tells its proxy what to do.

    Attributes:
        port: port of the proxy on loopback.
        process_id: id of the process.

    Args:
        upstream: port of the server on loopback.
    """

    def __init__(self, upstream: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, str(upstream)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.process_id = self._process.pid
        self._to, self._from = cast("IO[str]", self._process.stdin), cast("IO[str]", self._process.stdout)
        self.port = int(self._reply())

    def change(self, **state: object) -> None:
        """Set attributes of the proxy, such as ``mode`` or ``latency``."""
        self._tell(state)

    def refuse(self) -> None:
        """Close the port and reset open connections."""
        self._tell("refuse")

    def heal(self) -> None:
        """Forward everything again."""
        self._tell("heal")

    def through(self, url: str) -> str:
        """Return the same URL with the address of this proxy."""
        from testbed.fault_proxy import with_address

        return with_address(url, f"127.0.0.1:{self.port}")

    def close(self) -> None:
        """End the process."""
        with self._process:
            self._to.close()
            self._process.wait(20)

    def _tell(self, what: object) -> None:
        self._to.write(json.dumps(what) + "\n")
        self._to.flush()
        self._reply()

    def _reply(self) -> str:
        if not (line := self._from.readline()):
            raise RuntimeError("the process of the proxy has ended")
        return line


def serve(upstream: int) -> None:
    """Forward to this port of loopback, and obey the lines of standard input until it ends."""
    from testbed.fault_proxy import FaultProxy

    proxy = FaultProxy("127.0.0.1", upstream)
    proxy.start()
    print(proxy.port, flush=True)
    for line in sys.stdin:
        what = json.loads(line)
        if isinstance(what, str):
            getattr(proxy, what)()
        else:
            for name, value in what.items():
                setattr(proxy, name, value)
        print("done", flush=True)
    proxy.close()

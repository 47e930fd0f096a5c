"""Run a program in a fork of a process that has imported its modules: a start costs 20 ms in place of a second."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Mapping
from tempfile import TemporaryFile

_SERVER = """
import importlib, json, os, runpy, socket, sys

peer = socket.socket(fileno=int(sys.argv[1]))
for name in sys.argv[2:]:
    importlib.import_module(name)
peer.send(b"ready")
while True:
    data, files, _, _ = socket.recv_fds(peer, 1 << 20, 3)
    if not data:
        raise SystemExit
    child = os.fork()
    if child == 0:
        break
    for file in files:
        os.close(file)
    peer.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())

# In the child, which ends as every program does.
peer.close()
for number, file in enumerate(files):
    os.dup2(file, number)
    os.close(file)
request = json.loads(data)
os.environ.clear()
os.environ.update(request["env"])
option, what, *sys.argv[1:] = request["arguments"]
sys.argv[0] = option
if option == "-m":
    runpy.run_module(what, run_name="__main__", alter_sys=True)
else:
    exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
"""


class ForkedPrograms:
    """A process that imports modules once, and runs each program in a fork of itself.

    What a program does while it is imported is tested where it is started by its own command.

    Args:
        modules: names of the modules to import.
    """

    def __init__(self, *modules: str) -> None:
        self._peer, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _SERVER, str(theirs.fileno()), *modules], pass_fds=[theirs.fileno()]
            )
        self._peer.settimeout(100)
        if self._peer.recv(100) != b"ready":
            self.close()
            raise RuntimeError(f"{modules} cannot be imported")

    def run(
        self, *arguments: str, env: Mapping[str, str], text: str = "", timeout: float = 100
    ) -> subprocess.CompletedProcess[str]:
        """Run ``-m module`` or ``-c code`` with its arguments to the end.

        Args:
            arguments: as for the interpreter.
            env: the whole environment.
            text: standard input.
            timeout: in seconds.

        Raises:
            TimeoutError: the program has not ended in time.
        """
        with TemporaryFile() as given, TemporaryFile() as output, TemporaryFile() as errors:
            given.write(text.encode())
            given.seek(0)
            self._peer.settimeout(timeout)
            request = json.dumps({"arguments": arguments, "env": dict(env)}).encode()
            socket.send_fds(self._peer, [request], [file.fileno() for file in (given, output, errors)])
            status = int(self._peer.recv(100))
            output.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(
                arguments, status, output.read().decode(), errors.read().decode()
            )

    def close(self) -> None:
        """End the process."""
        self._peer.close()
        self._process.wait(10)

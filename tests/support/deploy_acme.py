"""An ACME provider on loopback: pebble, and the name server it queries; also on a machine of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import trustme

from deploy_machine import PREFIX, Machine
from testbed.polling import accepts_connections, free_port
from testbed.process import ServerProcess
from testbed.services import program

ON_MACHINE = "https://localhost:14000/dir"
"""Address of the provider that ``start_on`` starts."""

EAB_KEY_ID, EAB_KEY = "kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"


class NameServer:
    """Answers 127.0.0.1 to every query for an IPv4 address, and nothing to other queries."""

    def __init__(self, port: int = 0) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", port))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        # A datagram without a question ends the loop; closing alone would leave it waiting.
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join(5)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            data, peer = self._socket.recvfrom(512)
            if not data:
                return
            end = data.index(b"\0", 12) + 5
            wants_ipv4 = data[end - 4 : end - 2] == b"\0\1"
            answer = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4\x7f\0\0\1" if wants_ipv4 else b""
            counts = b"\0\1" + (b"\0\1" if answer else b"\0\0") + bytes(4)
            self._socket.sendto(data[:2] + b"\x81\x80" + counts + data[12:end] + answer, peer)


class Pebble:
    """The provider; it validates challenges on ``http_port``."""

    def __init__(self, folder: Path, certificates: Any, *, http_port: int, binding: bool = False) -> None:
        self._names = NameServer()
        port = free_port()
        self.directory = f"https://localhost:{port}/dir"
        config = folder / "pebble.json"
        config.write_text(
            json.dumps(
                {
                    "pebble": {
                        "listenAddress": f"127.0.0.1:{port}",
                        "certificate": str(certificates.cert_file),
                        "privateKey": str(certificates.key_file),
                        "httpPort": http_port,
                        "tlsPort": free_port(),
                        "externalAccountBindingRequired": binding,
                        "externalAccountMACKeys": {EAB_KEY_ID: EAB_KEY},
                    }
                }
            )
        )
        environment = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
        self.server = ServerProcess(
            [program("pebble"), "-config", str(config), "-dnsserver", self._names.address],
            log=folder / "pebble.log",
            ready=lambda: accepts_connections(port),
            identity={"env": environment},
        )
        self.server.start()

    def stop(self) -> None:
        self.server.stop()
        self._names.close()


def start_on(machine: Machine) -> list[subprocess.Popen[bytes]]:
    """Start a provider on a machine, whose system trusts its authority; the processes are the caller's to end."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    trusted = machine.path("/etc/ssl/certs/ca-certificates.crt")
    trusted.write_bytes(trusted.read_bytes() + authority.cert_pem.bytes())
    machine.write("/etc/pebble/cert.pem", issued.cert_chain_pems[0].bytes().decode())
    machine.write("/etc/pebble/key.pem", issued.private_key_pem.bytes().decode())
    chosen = {
        "listenAddress": "127.0.0.1:14000",
        "certificate": "/etc/pebble/cert.pem",
        "privateKey": "/etc/pebble/key.pem",
        "httpPort": 80,
        "tlsPort": 5001,
    }
    machine.write("/etc/pebble/pebble.json", json.dumps({"pebble": chosen}))
    names = (
        "import deploy_acme, time; print(deploy_acme.NameServer(8053).address, flush=True); time.sleep(3600)"
    )
    path = f"{PREFIX}/sources/tests/support:{PREFIX}/packages"
    return [
        machine.background(f"{PREFIX}/python/bin/python3", "-c", names, variables={"PYTHONPATH": path}),
        machine.background(
            program("pebble"),
            "-config",
            "/etc/pebble/pebble.json",
            "-dnsserver",
            "127.0.0.1:8053",
            variables={"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"},
        ),
    ]

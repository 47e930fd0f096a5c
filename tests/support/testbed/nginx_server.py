"""A real nginx with the configuration of a test."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

from testbed.certificates import Certificates
from testbed.polling import accepts_connections, free_port
from testbed.process import ServerProcess
from testbed.services import program

_WHOLE = """
worker_processes 1;
events {{ worker_connections 256; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{inside}
}}
"""


class NginxServer:
    """One nginx in the foreground.

    In the text ``@port@``, ``@tls_port@``, ``@dir@``, ``@cert@`` and ``@key@`` are replaced. A text without an
    ``events`` block is what stands inside ``http { }``.

    Args:
        directory: where its files go.
        config_text: the configuration.
        certificates: for ``@cert@`` and ``@key@``.
        values: further replacements, ``{"app": "127.0.0.1:8000"}`` for ``@app@``.
    """

    def __init__(
        self,
        directory: Path,
        config_text: str,
        *,
        certificates: Certificates | None = None,
        values: dict[str, str] | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.host = "localhost"
        self.port = free_port()
        self.tls_port = free_port()
        self._text = config_text
        self._values = {
            "port": str(self.port),
            "tls_port": str(self.tls_port),
            "dir": str(directory),
            **(values or {}),
        }
        if certificates:
            self._values |= {"cert": str(certificates.cert_file), "key": str(certificates.key_file)}
        self._process: ServerProcess | None = None

    @property
    def url(self) -> str:
        """Address of ``@port@``."""
        return f"http://{self.host}:{self.port}"

    @property
    def tls_url(self) -> str:
        """Address of ``@tls_port@``."""
        return f"https://{self.host}:{self.tls_port}"

    @property
    def process(self) -> ServerProcess:
        """The master process, for its id and its log."""
        assert self._process is not None, "the server was never started"
        return self._process

    def start(self) -> None:
        """Write the configuration and start."""
        config = self.directory / "nginx.conf"
        config.write_text(self._rendered())
        self._process = ServerProcess(
            [
                program("nginx"),
                "-p",
                str(self.directory),
                "-e",
                str(self.directory / "error.log"),
                "-c",
                str(config),
                "-g",
                f"daemon off; pid {self.directory}/nginx.pid;",
            ],
            log=self.directory / "error.log",
            ready=self._answers,
            stop_signal=signal.SIGQUIT,
        )
        self._process.start()

    def _rendered(self) -> str:
        text = self._text
        for name, value in self._values.items():
            text = text.replace(f"@{name}@", value)
        return text if "events" in text else _WHOLE.format(folder=self.directory, inside=text)

    def _answers(self) -> bool:
        ports = [
            port
            for name, port in (("port", self.port), ("tls_port", self.tls_port))
            if f"@{name}@" in self._text
        ]
        return all(accepts_connections(port) for port in ports)

    def reload(self) -> None:
        """Reload the configuration (SIGHUP)."""
        self.process.signal(signal.SIGHUP)

    def stop(self) -> None:
        """Stop (SIGTERM) and remove temporary directories."""
        if self._process is not None:
            self._process.signal(signal.SIGTERM)
            self._process.stop()
        for folder in ("body", "proxy", "fastcgi", "uwsgi", "scgi"):
            shutil.rmtree(self.directory / folder, ignore_errors=True)

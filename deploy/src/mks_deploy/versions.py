"""Installed versions and their features: files are rendered for these versions."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Final

__all__ = ["OLDEST_NGINX", "Installed", "detect", "parse_nginx", "parse_version"]

OLDEST_NGINX: Final = (1, 22)
"""The version in Debian 12: the oldest one in a supported distribution that can reject a TLS handshake."""

_FOLDERS: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Installed:
    """Versions to render for.

    Attributes:
        nginx: version of nginx.
        openssl: version of OpenSSL that nginx runs with.
    """

    nginx: tuple[int, ...] = (1, 26)
    openssl: tuple[int, ...] = (3, 5)

    @property
    def http2_directive(self) -> bool:
        """Whether to use ``http2 on``; newer versions warn about the parameter of ``listen``."""
        return self.nginx >= (1, 25, 1)

    @property
    def rotates_ticket_keys(self) -> bool:
        """Whether session ticket keys in shared memory are rotated; otherwise tickets weaken forward secrecy."""
        return self.nginx >= (1, 23, 2)

    @property
    def hybrid_groups(self) -> bool:
        """Whether X25519MLKEM768 is a default group; with an older OpenSSL, naming it keeps nginx from starting."""
        return self.openssl >= (3, 5)


def parse_version(text: str) -> tuple[int, ...]:
    """Parse a version such as ``1.26.3``.

    Raises:
        ValueError: the text is not a version.
    """
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,4}){0,3}", text):
        raise ValueError("a version such as 1.26.3")
    return tuple(int(part) for part in text.split("."))


def parse_nginx(output: str) -> Installed | None:
    """Parse the output of ``nginx -V``; the OpenSSL it *runs* with counts before the one it was built with."""
    nginx = re.search(r"nginx version: \S*?/([0-9.]+)", output)
    openssl = re.search(r"running with OpenSSL ([0-9.]+)", output) or re.search(
        r"built with OpenSSL ([0-9.]+)", output
    )
    if nginx is None or openssl is None:
        return None
    return Installed(parse_version(nginx[1]), parse_version(openssl[1]))


def detect() -> Installed | None:
    """Return the installed versions, or ``None`` without nginx."""
    program = shutil.which("nginx", path=_FOLDERS)
    if program is None:
        return None
    done = subprocess.run([program, "-V"], capture_output=True, text=True, check=False, timeout=10)  # noqa: S603 - a fixed command
    return parse_nginx(done.stderr + done.stdout)

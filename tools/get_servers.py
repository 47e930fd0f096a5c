"""Install missing servers for the tests from the distribution, if possible (root and apt-get)."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

POLICY = Path("/usr/sbin/policy-rc.d")


def main() -> None:
    """Install missing packages; never fail, because the test run reports missing servers."""
    missing = missing_packages()
    if not missing:
        return
    line = f"apt-get install -y --no-install-recommends {' '.join(missing)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(
            f"Not installed: {' '.join(missing)}. Their tests will be skipped. On Debian, as root:  {line}",
            flush=True,
        )
        return
    print(f"Installing from the distribution: {' '.join(missing)} ...", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with no_autostart():
        for command in ("apt-get update -q", f"{line} -q"):
            subprocess.run(
                command.split(), env=environment, check=False, stdin=subprocess.DEVNULL, stdout=sys.stderr
            )


def missing_packages() -> list[str]:
    """Return the Debian packages whose program or font is missing."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    wanted = {
        "redis-server": "redis-server",
        "valkey-server": "valkey-server",
        "nginx": "nginx",
        "pgbouncer": "pgbouncer",
        "chromium": "chromium",
        # Programs that the tests of the deployment kit run.
        "certbot": "certbot",
        "pebble": "pebble",
        "testssl.sh": "testssl",
        "logrotate": "logrotate",
        "prometheus": "promtool",
        "systemd": "systemd-analyze",
        "strace": "strace",
        "openssh-server": "sshd",
        "openssh-client": "ssh",
        "nftables": "nft",
        "restic": "restic",
        "restic-rest-server": "restic-rest-server",
        "syslog-ng-core": "syslog-ng",
        "prometheus-alertmanager": "prometheus-alertmanager",
        "age": "age",
    }
    missing = [package for package, program in wanted.items() if shutil.which(program, path=path) is None]
    if not any(Path("/usr/lib/syslog-ng").glob("*/libhttp.so")):
        missing.append("syslog-ng-mod-http")
    if not any(Path("/usr/lib/postgresql").glob("*/bin/postgres")) and shutil.which("postgres") is None:
        missing.append("postgresql")
    if not any(Path("/usr/lib").glob("python3*/ensurepip/__init__.py")):
        missing.append("python3-venv")  # the tutorials create environments as their readers do
    if not any(Path("/usr/share/fonts").rglob("*CJK*")):
        missing.append("fonts-noto-cjk")
    return missing


@contextlib.contextmanager
def no_autostart() -> Iterator[None]:
    """Prevent the packages from starting their services: the tests start their own servers on free ports."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


if __name__ == "__main__":
    main()

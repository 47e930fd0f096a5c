"""Install missing servers for tests and benchmarks from the distribution, if possible (root and apt-get)."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

POLICY = Path("/usr/sbin/policy-rc.d")
ROOT = Path(__file__).resolve().parent.parent
# Programs of npm: the folder with the lock, and where tests/support/testbed/openid_provider_server.py and
# deploy/tests/test_deploy_containers.py look.
LOCKED = {
    ROOT / "tests/support/openid_provider": ROOT / "build/openid-provider",
    ROOT / "deploy/tests/gateway_schema": ROOT / "build/gateway-schema",
}
PREPARED = Path("/usr/local/lib/mks-hardening-tests")
# PostgreSQL with hypopg, beside the one that all other tests use; tests/support/testbed/services.py looks here too.
WITH_HYPOPG = PREPARED / "postgresql-17"
# deploy/tests/test_deploy_images.py builds from these.
BASE_IMAGES = PREPARED / "images"
# As in python:3.13: what Debian has below /usr is below /usr/local.
LAYOUT = """
cd "$1/usr" && mkdir -p local/bin local/lib
cp -a bin/python3.13 local/bin/ && ln -s python3.13 local/bin/python
cp -a lib/python3.13 lib/*-linux-gnu/libpython3.13.so.1.0 local/lib/
"""


def main() -> None:
    """Install missing packages; never fail, because the test run reports missing servers."""
    for source, target in LOCKED.items():
        install_locked(source, target)
    missing = missing_packages()
    if not missing:
        prepare()
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
    prepare()


def prepare() -> None:
    """Prepare what tests use and no package installs."""
    unpack_hypopg()
    make_base_images()


def make_base_images() -> None:
    """Make stand-ins for the two base images of the rendered Dockerfile, which no registry gives out here."""
    if BASE_IMAGES.exists() or os.geteuid() != 0 or shutil.which("mmdebstrap") is None:
        return
    print("Making base images from Debian's packages ...", flush=True)
    mirror = [str(file) for file in Path("/etc/apt/sources.list.d").glob("debian.sources")]
    packages = "base-files,libc6,netbase,tzdata"  # those of distroless/base-nossl
    BASE_IMAGES.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BASE_IMAGES.parent) as folder:
        python = ["--variant=apt", "--include=python3-venv,libpython3.13", f"--customize-hook={LAYOUT}"]
        for name, options in (("build", python), ("run", ["--variant=extract", f"--include={packages}"])):
            command = ["mmdebstrap", "--quiet", *options, "trixie", f"{folder}/{name}.tar", *mirror]
            if subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode:
                return  # the test run reports it
        shutil.copytree(folder, BASE_IMAGES)


def install_locked(source: Path, target: Path) -> None:
    """Install packages of npm in their locked versions, if there is npm and a registry."""
    lock = (source / "package-lock.json").read_bytes()
    installed = target / "package-lock.json"
    npm = shutil.which("npm")
    if npm is None or (installed.exists() and installed.read_bytes() == lock):
        return
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(source / name, folder)
        command = [npm, "ci", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund", "--silent"]
        if subprocess.run(command, cwd=folder, check=False, stdout=sys.stderr).returncode == 0:
            target.parent.mkdir(exist_ok=True)
            shutil.copytree(folder, target)


def unpack_hypopg() -> None:
    """Unpack PostgreSQL 17 with hypopg, without installing it: a second version would be found by other tests."""
    programs, extensions = "usr/lib/postgresql/17/bin", "usr/share/postgresql/17/extension"
    parts = {
        "postgresql-17": f"{programs}/postgres",
        "postgresql-client-17": f"{programs}/psql",
        "postgresql-17-hypopg": f"{extensions}/hypopg.control",
    }
    wanted = [package for package, file in parts.items() if not (WITH_HYPOPG / file).exists()]
    found = not wanted or any(Path("/usr/share/postgresql").glob("*/extension/hypopg.control"))
    if found or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    print(f"Unpacking {', '.join(wanted)} ...", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        command = ["apt-get", "download", "-q", *wanted]
        update = ["apt-get", "update", "-q"]
        if subprocess.run(command, cwd=folder, check=False, capture_output=True).returncode:
            subprocess.run(update, check=False, stdout=subprocess.DEVNULL)
            if subprocess.run(command, cwd=folder, check=False, capture_output=True).returncode:
                return  # not in this distribution: the test run reports it
        WITH_HYPOPG.mkdir(parents=True, exist_ok=True)
        for file in Path(folder).glob("*.deb"):
            subprocess.run(f"dpkg -x {file} {WITH_HYPOPG}".split(), check=True)


def missing_packages() -> list[str]:
    """Return the Debian packages whose program or font is missing."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    wanted = {
        "redis-server": "redis-server",
        "valkey-server": "valkey-server",
        "nginx": "nginx",
        "pgbouncer": "pgbouncer",
        "gcc": "cc",  # a Redis server whose clock can be moved
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
        "podman": "podman",
        "runc": "runc",
        "catatonit": "catatonit",
        "mmdebstrap": "mmdebstrap",
        "kubectl": "kubectl",
        # Programs that the benchmarks run, without which rows are missing from the published tables.
        "wrk": "wrk",
        "valgrind": "valgrind",
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

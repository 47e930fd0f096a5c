"""A machine with its own systemd: the files of this one, in namespaces, on an overlay that is discarded."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path

from testbed.polling import wait_until
from testbed.services import program, unavailable

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "/usr/local/lib/deploy-machine"
"""Where the machine has our interpreter, packages and sources: the units see neither ``/root`` nor ``/tmp``."""

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
# What apt would do: the packages are there, and are noted as installed.
APT = """#!/usr/bin/python3
import sys
if sys.argv[1] == "install":
    with open("/var/lib/dpkg/status", "a") as status:
        for name in sys.argv[5:]:
            status.write(
                f"Package: {name}\\nStatus: install ok installed\\nVersion: 1\\nArchitecture: all\\n"
                "Maintainer: x <x@example.test>\\nDescription: x\\n\\n"
            )
"""

# Another network, in which 192.0.2.2 is outside of the host at 192.0.2.1.
OUTSIDE = (
    "ip netns add outside",
    "ip link add inner type veth peer name outer netns outside",
    "ip addr add 192.0.2.1/24 dev inner",
    "ip link set inner up",
    "ip -n outside addr add 192.0.2.2/24 dev outer",
    "ip -n outside link set outer up",
)

_COMMANDS = frozenset(
    {"mks-deploy", "knowledge-system", "gunicorn", "uvicorn", "hypercorn", "granian", "flask", "celery"}
)

# Units of the distribution are left out but for the journal: this machine has neither hardware nor people.
_BOOT = r"""
set -eu
mount -t tmpfs tmpfs "$BASE"
mkdir "$BASE/upper" "$BASE/work" "$BASE/root"
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$BASE/upper,workdir=$BASE/work" "$BASE/root"
root="$BASE/root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for name in null zero full random urandom tty; do
    touch "$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mkdir -p "$root$PREFIX"
if [ "$LOWER" = / ]; then
    for part in python packages sources; do mkdir -p "$root$PREFIX/$part"; done
    mount --bind "$PYTHON" "$root$PREFIX/python"
    mount --bind "$PACKAGES" "$root$PREFIX/packages"
    mount --bind "$SOURCES" "$root$PREFIX/sources"
fi
chmod 755 "$root$PREFIX" "$root"
units="$root/etc/systemd/system"
rm -rf "$units"
mkdir -p "$units"
for target in sysinit sockets timers multi-user; do
    for unit in "$root/lib/systemd/system/$target.target.wants"/*; do
        case "$unit" in *journald*) ;; *) ln -sf /dev/null "$units/${unit##*/}" ;; esac
    done
done
rm -f "$root/usr/sbin/policy-rc.d"
ip link set lo up
cd "$root"
pivot_root . mnt
cd /
umount -l /mnt
# As the manager of a container would: credentials are mounted by one process for another.
mount --make-rshared /
exec env -i container=deploy-machine PATH="$PATH" /lib/systemd/systemd --system --unit=basic.target --show-status=no
"""


class Machine:
    """Boots in about a second and keeps no state; it affects this machine only by its load.

    Args:
        folder: an empty folder.
        root: another system than this one, which gets neither our interpreter nor our packages.
    """

    def __init__(self, folder: Path, *, root: Path = Path("/")) -> None:
        self._folder = folder
        self._root = root
        self._process: subprocess.Popen[bytes] | None = None
        self._cgroup: Path | None = None
        self._systemd = 0

    def start(self) -> None:
        """Boot; the test is skipped, or fails, if namespaces are not available."""
        if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
            unavailable("a systemd in namespaces", "needs root and a kernel that allows them")
        for name in ("unshare", "nsenter"):
            program(name)
        if not Path("/lib/systemd/systemd").exists():
            unavailable("systemd", "no such program on this machine")
        self._cgroup = _unified() / f"deploy-machine-{os.getpid()}-{self._folder.name}"
        self._cgroup.mkdir()
        base = self._folder / "base"
        base.mkdir()
        given = {
            "BASE": str(base),
            "LOWER": str(self._root),
            "PREFIX": PREFIX,
            "PYTHON": sys.base_prefix,
            "PACKAGES": sysconfig.get_path("purelib"),
            "SOURCES": str(ROOT),
        }
        words = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
        words += ["--net", "--uts", "--ipc", "--cgroup", "sh", "-c", _BOOT]
        inside = f'echo 0 > {self._cgroup}/cgroup.procs; exec setpriv --pdeathsig KILL -- "$@"'
        with (self._folder / "console").open("wb") as console:
            self._process = subprocess.Popen(
                ["sh", "-c", inside, "sh", *words],
                env={**ENVIRONMENT, **given},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )
        wait_until(self._booted, timeout=30, what="systemd in namespaces")
        if self._root == Path("/"):
            self._make_python()

    def stop(self) -> None:
        """End every process of the machine."""
        if self._process is not None:
            if self._systemd:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._systemd, signal.SIGKILL)
            self._process.kill()
            self._process.wait(10)
        if self._cgroup is not None:
            wait_until(self._without_cgroup, timeout=10, what="the end of the machine's processes")

    def run(
        self,
        *words: object,
        check: bool = True,
        account: str = "",
        variables: Mapping[str, str] | None = None,
    ) -> str:
        """Run a command as root, or as another account, and return its output."""
        switch = ["runuser", "-u", account, "--"] if account else []
        done = subprocess.run(
            [*self._enter(), *switch, *map(str, words)],
            env={**ENVIRONMENT, **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(map(str, words))}: {done.returncode}\n{done.stdout}{self.journal()}"
            )
        return done.stdout

    def background(self, *words: object, variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Run a server until the end of the block."""
        with (self._folder / "servers").open("ab") as log:
            return subprocess.Popen(
                [*self._enter(), *map(str, words)],
                env={**ENVIRONMENT, **variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def in_its_network(self, *words: object) -> list[str]:
        """A command of this machine that reaches what listens there."""
        return ["nsenter", "--target", str(self._systemd), "--net", *map(str, words)]

    def connect(self, other: Machine, *, address: str, others: str) -> None:
        """Join two machines by a cable; both addresses are in one network of 256."""
        ends = [("name", "cable", "netns", str(machine._systemd)) for machine in (self, other)]
        words = ["ip", "link", "add", *ends[0], "type", "veth", "peer", *ends[1]]
        subprocess.run(words, check=True)
        for machine, own in ((self, address), (other, others)):
            machine.run("ip", "addr", "add", f"{own}/24", "dev", "cable")
            machine.run("ip", "link", "set", "cable", "up")

    def namespace(self, kind: str) -> Path:
        """Return a namespace of the machine, for ``setns``."""
        return Path(f"/proc/{self._systemd}/ns/{kind}")

    def path(self, path: str) -> Path:
        """Return the location of a file of the machine on this one."""
        return Path(f"/proc/{self._systemd}/root{path}")

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Write a file."""
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        file.chmod(mode)

    def journal(self, unit: str = "", *, lines: int = 40) -> str:
        """Return the last lines of the journal."""
        chosen = ["-u", unit] if unit else []
        words = [*self._enter(), "journalctl", "--no-pager", "-o", "cat", "-n", str(lines), *chosen]
        return subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, check=False).stdout

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Return properties of a unit."""
        said = self.run("systemctl", "show", "--no-pager", f"--property={','.join(properties)}", unit)
        return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)

    def make_environment(self, folder: str) -> None:
        """Create a virtual environment as in a release, with our packages and their commands."""
        venv = f"{folder}/venv"
        self.run(f"{PREFIX}/python/bin/python3", "-m", "venv", "--without-pip", venv)
        sources = [
            f"{PREFIX}/sources/{part}"
            for part in ("src", "check/src", "deploy/src", "examples/knowledge_system/src")
        ]
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        lines = "".join(f"{line}\n" for line in (*sources, f"{PREFIX}/packages"))
        self.write(f"{venv}/lib/{version}/site-packages/machine.pth", lines)
        for entry in entry_points(group="console_scripts"):
            if entry.name in _COMMANDS:
                text = f"#!{venv}/bin/python\nimport sys\nfrom {entry.module} import {entry.attr}\n"
                # As pip writes it: a server that spawns its workers imports this file again.
                text += f"if __name__ == '__main__':\n    sys.exit({entry.attr}())\n"
                self.write(f"{venv}/bin/{entry.name}", text, mode=0o755)

    def _make_python(self) -> None:
        """Create an interpreter that every account may run, with its shared library in the loader's path."""
        self.write("/etc/ld.so.conf.d/deploy-machine.conf", f"{PREFIX}/python/lib\n")
        self.run("ldconfig")

    def _enter(self) -> list[str]:
        return ["nsenter", "--target", str(self._systemd), "--all", "--wd=/"]

    def _booted(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "console").read_text()
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        if not children or Path(f"/proc/{children[0]}/comm").read_text().strip() != "systemd":
            return False
        self._systemd = int(children[0])
        words = [*self._enter(), "systemctl", "is-system-running"]
        said = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, check=False).stdout
        return said.strip() in {"running", "degraded"}

    def _without_cgroup(self) -> bool:
        assert self._cgroup is not None
        for folder, _, _ in os.walk(self._cgroup, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        return not self._cgroup.exists()


def _unified() -> Path:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, folder, kind, options, *_ = line.split()
        if kind == "cgroup2" and "rw" in options.split(","):
            return Path(folder)
    return unavailable("a systemd in namespaces", "needs a cgroup2 file system that may be written to")

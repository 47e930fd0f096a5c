"""The rendered image, built and started, and pods and jobs as kubectl sends them, played without a cluster.

Base images are stand-ins of Debian's packages (``tools/get_servers.py``), named and pinned as those of a registry.
Containers have no network but their own: PostgreSQL and Redis are reached by sockets in a shared folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import os
import resource
import select
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy_settings import deployed
from mks_deploy.cli import main
from mks_deploy.settings.credentials import make_missing
from mks_deploy.settings.settings_file import read_settings
from testbed.polling import wait_until
from testbed.postgres_server import PostgresServer
from testbed.redis_server import RedisServer
from testbed.services import postgres_with_hypopg, program, unavailable

SOURCE = Path(__file__).parents[2]
BASES = Path("/usr/local/lib/mks-hardening-tests/images")
NAME, REGISTRY = "knowledge-system", "registry.example.jp"
HOST = "knowledge.example.jp"
BUILD, RUN = "docker.io/library/python:3.13-slim-trixie", "gcr.io/distroless/base-nossl-debian13:nonroot"
SERVERS = "/run/servers"
PYTHON = "/opt/venv/bin/python"
ACCOUNT = 65532
_CLONE_NEWNET = 0x40000000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not (SOURCE / "src").is_dir(), reason="an image is built from the source tree"),
]


@dataclass(frozen=True)
class Podman:
    """A podman with images and containers of its own."""

    folder: Path

    def command(self, *arguments: str) -> list[str]:
        own = ["--root", str(self.folder / "images"), "--runroot", str(self.folder / "run")]
        fixed = [
            "--storage-driver=overlay",
            "--runtime=runc",
            "--cgroup-manager=cgroupfs",
            "--events-backend=none",
        ]
        return [program("podman"), *own, *fixed, "--log-level=error", *arguments]

    def __call__(
        self, *arguments: str, cwd: Path | None = None, check: bool = True, limit: float = 120
    ) -> str:
        environ = {**os.environ, "PODMAN_IGNORE_CGROUPSV1_WARNING": "1", "TMPDIR": str(self.folder)}
        done = subprocess.run(
            self.command(*arguments),
            cwd=cwd,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=limit,
        )
        if check and done.returncode:
            pytest.fail(f"podman {' '.join(arguments[:3])}: {done.stdout[-1500:]}{done.stderr[-3000:]}")
        return done.stdout.strip()

    def state(self, container: str, field: str) -> str:
        return self("container", "inspect", container, "--format", f"{{{{.State.{field}}}}}")

    def import_base(self, file: Path, name: str) -> str:
        """Import a base image, and return its name with its digest."""
        self("import", "--quiet", str(file), name)
        return f"{name}@{self('image', 'inspect', name, '--format', '{{.Digest}}')}"

    def build(self, tree: Path, tag: str, *more: str) -> None:
        """Build from the rendered Dockerfile, with this machine's way to the package index."""
        limits = [
            f"--ulimit={name}={resource.getrlimit(number)[0]}"
            for name, number in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC))
        ]
        files = ("/etc/pip.conf", "/etc/ssl/certs")
        mounts = [f"--volume={file}:{file}:ro" for file in files if Path(file).exists()]
        way = ["--isolation=chroot", "--network=host", "--pull=never", "--format=docker", *limits, *mounts]
        self("build", *way, *more, "--file=docker/Dockerfile", f"--tag={tag}", ".", cwd=tree, limit=900)

    def remove_containers(self) -> None:
        for command in (("pod", "rm", "--time=0"), ("rm", "--time=0"), ("volume", "rm")):
            self(*command, "--all", "--force", check=False)

    def stop(self) -> None:
        self.remove_containers()
        subprocess.run(["umount", str(self.folder / "images" / "overlay")], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Site:
    """A source tree with rendered files, its two images, and the servers."""

    tree: Path
    podman: Podman
    database: PostgresServer
    servers: Path

    def http(self, container: str) -> http.client.HTTPConnection:
        """Connect to the port of the application, in the network of its container."""
        return _Inside(int(self.podman.state(container, "Pid")))


class _Inside(http.client.HTTPConnection):
    def __init__(self, pid: int) -> None:
        super().__init__(HOST, 8000, timeout=20)
        self._pid = pid

    def connect(self) -> None:
        """Connect from a thread that has entered the other network; what it opens stays there."""
        made: list[socket.socket] = []

        def enter() -> None:
            with Path(f"/proc/{self._pid}/ns/net").open() as network:
                if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), _CLONE_NEWNET):
                    return
            with contextlib.suppress(OSError):
                made.append(socket.create_connection(("127.0.0.1", self.port), timeout=self.timeout))

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if not made:
            raise ConnectionRefusedError(f"nothing listens in the container of process {self._pid}")
        self.sock = made[0]


@pytest.fixture
def site() -> Iterator[Site]:
    if os.geteuid() != 0 or not BASES.is_dir():
        unavailable("base images", "they are made by root, with mmdebstrap")
    for name in ("podman", "runc", "kubectl"):
        program(name)
    with contextlib.ExitStack() as stack:
        podman = Podman(Path(tempfile.mkdtemp(prefix="mksi")))
        stack.callback(podman.stop)
        bases = [
            podman.import_base(BASES / f"{file}.tar", name) for file, name in (("build", BUILD), ("run", RUN))
        ]
        servers = podman.folder / "servers"
        servers.mkdir(mode=0o777)
        for folder in (podman.folder, servers):
            folder.chmod(0o777)
        # As in compose.yml, and not older than the programs of the image.
        programs = postgres_with_hypopg()
        database = PostgresServer(programs, max_connections="120", unix_socket_directories=str(servers))
        redis = RedisServer(servers, unix_socket=True, options={"unixsocketperm": "777"})
        for server in (database, redis):
            server.start()
            stack.callback(server.stop)
        pinned = f'[image]\nbuild_from = "{bases[0]}"\nrun_from = "{bases[1]}"\n'
        tree = _tree(podman.folder / "tree", deployed(pinned), database)
        podman.build(tree, f"{REGISTRY}/{NAME}:1")
        podman.build(tree, f"{REGISTRY}/{NAME}-backup:1", "--target=backup")
        yield Site(tree, podman, database, servers)


def _tree(tree: Path, text: str, database: PostgresServer) -> Path:
    """Prepare a source tree as the page on containers says."""
    settings = read_settings(text)
    for name in (*settings.image.files, settings.image.requirements):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        if (SOURCE / name).is_dir():
            shutil.copytree(SOURCE / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(SOURCE / name, tree / name)
    (tree / "deploy.toml").write_text(text)
    secrets = tree / "secrets"
    make_missing(secrets, settings, compose=True)
    where = f"?host={SERVERS}&port={database.port}"
    (secrets / "database_url").write_text(f"postgresql+psycopg://{database.user}@/postgres{where}")
    for name, number in (("redis_url", 0), ("cache_url", 1)):
        (secrets / name).write_text(f"unix://{SERVERS}/redis.sock?db={number}")
    (secrets / "celery_broker_url").write_text(f"redis+socket://{SERVERS}/redis.sock?virtual_host=2")
    options = ["--settings", str(tree / "deploy.toml"), "--secrets", str(secrets)]
    assert main(["render", *options, "--out", str(tree / "out")]) == 0
    shutil.copytree(tree / "out" / "docker", tree / "docker")
    shutil.copytree(tree / "out" / "kubernetes", tree / "kubernetes")
    shutil.copytree(secrets, tree / "kubernetes" / "secrets")
    shutil.copy(tree / "deploy.toml", tree / "kubernetes")
    for file in secrets.iterdir():
        os.chown(file, ACCOUNT, ACCOUNT)
    return tree


def _service(site: Site, name: str, *, detach: bool = False) -> list[str]:
    """Return arguments of ``podman run`` for a service of compose."""
    service = yaml.safe_load((site.tree / "docker/compose.yml").read_text())["services"][name]
    given = {**service["environment"], "MKS_TRUSTED_PROXIES": "127.0.0.0/8"}  # there is no network `inside`
    options = [
        "--pull=never",
        "--network=none",
        f"--volume={site.servers}:{SERVERS}",
        f"--user={service['user']}",
    ]
    options += [f"--env={name}={value}" for name, value in given.items()]
    options += [f"--read-only={str(service['read_only']).lower()}", f"--pids-limit={service['pids_limit']}"]
    options += [f"--cap-drop={each}" for each in service["cap_drop"]]
    options += [f"--security-opt={each.removesuffix(':true')}" for each in service["security_opt"]]
    options += [f"--tmpfs={each}" for each in service["tmpfs"]]
    options += [f"--volume={site.tree}/secrets/{each}:/run/secrets/{each}:ro" for each in service["secrets"]]
    options += [f"--volume={each.replace('../', f'{site.tree}/')}" for each in service["volumes"]]
    words: list[str] = []
    if entry := service.get("entrypoint"):
        options.append(f"--entrypoint={entry[0]}")
        words = [*entry[1:], *service.get("command", ())]
    options += ["--detach"] if detach else []
    target = service["build"].get("target")
    return ["run", *options, f"--name={name}", f"{REGISTRY}/{NAME}{f'-{target}' if target else ''}:1", *words]


def _status(site: Site, container: str, path: str) -> int:
    connection = site.http(container)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def test_images_serve_migrate_and_back_up_as_services_and_as_pods(site: Site) -> None:
    """One test, because two would build twice beside each other."""
    _check_contents(site)
    for played in (_run_services, _run_pods):
        site.database.execute("DROP SCHEMA public CASCADE")
        site.database.execute("CREATE SCHEMA public")
        try:
            played(site)
        finally:
            site.podman.remove_containers()


def _check_contents(site: Site) -> None:
    """The image has the application and no more."""
    image = f"{REGISTRY}/{NAME}:1"
    (found,) = yaml.safe_load(site.podman("image", "inspect", image))
    config = found["Config"]
    assert (config["User"], config["StopSignal"]) == (f"{ACCOUNT}:{ACCOUNT}", "SIGTERM")
    assert found["Healthcheck"]["Test"][0] == "CMD"
    root = Path(site.podman("image", "mount", image))
    for name in ("sh", "bash", "dash", "apt-get", "pg_dump"):
        assert not any((root / folder / name).exists() for folder in ("usr/bin", "usr/sbin", "usr/local/bin"))
    # The account that serves can change nothing of what it runs.
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [path for path in files if path.stat().st_uid == ACCOUNT or path.stat().st_mode & 0o002]
    # The tree has secrets in two folders when it is sent to the builder.
    backup = Path(site.podman("image", "mount", f"{REGISTRY}/{NAME}-backup:1"))
    for each in (root, backup):
        assert (each / "opt/venv/bin/mks-deploy").is_file()
        assert not [
            path for name in ("deploy.toml", "database_url", "secret_keys") for path in each.rglob(name)
        ]
    site.podman("image", "unmount", "--all")


def _run_services(site: Site) -> None:
    """Migrate, serve, stop and back up with the services of compose."""
    podman = site.podman
    podman(*_service(site, "migrate"))
    podman(*_service(site, "application", detach=True))
    wait_until(lambda: _status(site, "application", "/readyz") == 200, timeout=60, what="the application")
    # As the Dockerfile says, from inside: podman and Docker ask it every ten seconds.
    podman("healthcheck", "run", "application")
    status = Path(f"/proc/{podman.state('application', 'Pid')}/status").read_text()
    seen = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert set(seen["Uid"].split()) == {str(ACCOUNT)}
    assert {int(seen[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {0}
    assert seen["NoNewPrivs"] == "1"
    write = (
        "import errno, os\ntry: os.mkdir('/x')\nexcept OSError as error: print(errno.errorcode[error.errno])"
    )
    assert podman("exec", "application", PYTHON, "-c", write) == "EROFS"

    answer, took = _stop_during_a_request(site)
    assert answer < 500
    compose = yaml.safe_load((site.tree / "docker/compose.yml").read_text())
    grace = int(compose["services"]["application"]["stop_grace_period"].removesuffix("s"))
    assert (podman.state("application", "ExitCode"), took < grace) == ("0", True)

    made = podman(*_service(site, "backup"))
    assert made.startswith(f"/var/backups/{NAME}/")
    _restored(site, "backups")


def _stop_during_a_request(site: Site) -> tuple[int, float]:
    """Stop the container while a request is sent; return the status of the response and the seconds it took."""
    connection = site.http("application")
    connection.putrequest("POST", "/sign-in")
    body = b"username=nobody&password=" + b"x" * 20
    fields: Mapping[str, str] = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Content-Length": str(len(body)),
        "X-Forwarded-Proto": "https",
        "X-Forwarded-For": "203.0.113.7",
    }
    for name, value in fields.items():
        connection.putheader(name, value)
    connection.endheaders(body[:10])
    time.sleep(0.5)
    started = time.monotonic()
    stopping = subprocess.Popen(
        site.podman.command("stop", "--time=45", "application"), stdout=subprocess.DEVNULL
    )
    try:
        wait_until(
            lambda: _status(site, "application", "/livez") == 0, timeout=20, what="the end of new requests"
        )
        early, _, _ = select.select([connection.sock], [], [], 0)
        assert not early, "the response did not wait for the whole request"
        connection.send(body[10:])
        status = connection.getresponse().status
    finally:
        stopping.wait(60)
        connection.close()
    return status, time.monotonic() - started


def _restored(site: Site, volume: str) -> None:
    """Restore the only backup of a volume into an empty database, with the image that made it."""
    folder = Path(site.podman("volume", "inspect", volume, "--format", "{{.Mountpoint}}"))
    (made,) = folder.glob("[0-9]*")
    site.database.execute("DROP DATABASE IF EXISTS restored")
    site.database.execute("CREATE DATABASE restored")
    url = f"postgresql://{site.database.user}@/restored?host={SERVERS}&port={site.database.port}"
    options = ["--pull=never", "--network=none", "--read-only", "--tmpfs=/tmp", f"--env=DATABASE_URL={url}"]
    options += [f"--volume={site.servers}:{SERVERS}", f"--volume={folder}:/backups:ro"]
    image = ["--entrypoint=/opt/venv/bin/mks-deploy", f"{REGISTRY}/{NAME}-backup:1"]
    words = ["restore", f"/backups/{made.name}", "--uploads", "/tmp/uploads"]  # noqa: S108 - in the container
    site.podman("run", *options, *image, *words)
    assert site.database.execute("SELECT count(*) FROM alembic_version", database="restored") == [(1,)]


def _run_pods(site: Site) -> None:
    """Play the pods as kubectl sends them; the probes are asked here, podman would ask with a curl inside."""
    podman = site.podman
    whole = _played(site)
    shared = [each for each in whole if each["kind"] in {"ConfigMap", "Secret", "PersistentVolumeClaim"}]
    workloads = {
        each["metadata"]["name"]: each for each in whole if each["kind"] in {"Deployment", "Job", "CronJob"}
    }
    cron = workloads["backup"]
    # What `kubectl create job --from cronjob/backup` makes of it.
    workloads["backup"] = {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "backup"}, **cron["spec"]["jobTemplate"]
    }  # fmt: skip
    for name in ("migrate", "application", "worker", "beat", "backup"):
        _play(site, name, [*shared, workloads[name]])
        if name in {"migrate", "backup"}:
            assert podman("wait", f"{name}-pod-{name}") == "0", podman("logs", f"{name}-pod-{name}")
    container = "application-pod-application"
    (spec,) = workloads["application"]["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        path = spec[probe]["httpGet"]["path"]
        wait_until(lambda path=path: _status(site, container, path) == 200, timeout=60, what=probe)
    (worker,) = workloads["worker"]["spec"]["template"]["spec"]["containers"]
    ping = worker["livenessProbe"]["exec"]["command"]
    wait_until(
        lambda: "pong" in podman("exec", "worker-pod-worker", *ping, check=False),
        timeout=90,
        what="the worker",
    )
    used = _memory(int(podman.state(container, "Pid")))
    request = int(spec["resources"]["requests"]["memory"].removesuffix("Mi"))
    assert used < request, f"{used:.0f} MiB of {request} MiB requested"
    for name in ("application", "worker", "beat"):
        started = time.monotonic()
        podman("stop", f"{name}-pod-{name}", "--time=90")
        grace = workloads[name]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        assert time.monotonic() - started < grace, name
        assert podman.state(f"{name}-pod-{name}", "ExitCode") == "0", name
    _restored(site, "backups")


def _memory(pid: int) -> float:
    """Return the MiB of a process and of those that it started."""
    (size,) = (
        line for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if line.startswith("Pss:")
    )
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(size.split()[1]) / 1024 + sum(_memory(int(child)) for child in children)


def _played(site: Site) -> list[dict[str, Any]]:
    """Return what kubectl sends, with what podman cannot do replaced."""
    done = subprocess.run(
        [program("kubectl"), "kustomize", str(site.tree / "kubernetes")],
        check=True,
        capture_output=True,
        text=True,
    )
    whole = list(yaml.safe_load_all(done.stdout))
    account = {f"volume.podman.io/{name}": str(ACCOUNT) for name in ("uid", "gid")}
    for each in whole:
        each["metadata"].pop("namespace", None)
        if each["kind"] == "PersistentVolumeClaim":  # instead of fsGroup
            each["metadata"]["annotations"] = account
    return whole


def _play(site: Site, name: str, documents: list[dict[str, Any]]) -> None:
    pod = documents[-1]["spec"]["template"]["spec"]
    pod["volumes"].append({"name": "servers", "hostPath": {"path": str(site.servers)}})
    for volume in pod["volumes"]:
        if "secret" in volume:
            volume["secret"]["defaultMode"] = 0o444  # instead of fsGroup
    (container,) = pod["containers"]
    container["imagePullPolicy"] = "Never"
    container["volumeMounts"].append({"name": "servers", "mountPath": SERVERS})
    played = {key: value for key, value in container.items() if not key.endswith("Probe")}
    template = {**documents[-1]["spec"]["template"], "spec": {**pod, "containers": [played]}}
    whole = {**documents[-1], "spec": {"template": template}}
    file = site.podman.folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump_all([*documents[:-1], whole]))
    site.podman("kube", "play", "--network=none", str(file))

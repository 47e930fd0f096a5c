"""Rendering of settings to files: templates with target path and mode; nothing is written here."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import PurePosixPath
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from mks_deploy.alerts import alerts_of
from mks_deploy.dashboard import dashboard
from mks_deploy.environment_file import variables_of
from mks_deploy.settings.consistency import (
    POD_WORKERS,
    connections_needed,
    connections_of_workers,
    max_pods,
)
from mks_deploy.settings.credentials import (
    STORES_CERTIFICATE,
    Credential,
    bindings,
    credentials_of,
    is_wanted,
)
from mks_deploy.settings.definitions import HOST_VARIABLES, Settings
from mks_deploy.template_tables import (
    EDGE_ERRORS,
    EDGE_HEADERS,
    STRIPPED_HEADERS,
    UNITS,
    Slot,
    page_headers,
    timers,
)
from mks_deploy.versions import Installed

__all__ = ["HOST_FILE", "RenderedFile", "render", "upstream"]

_MIB: Final = 1024**2
# Addresses that only probes ask for; app.ready of an application without one is a page that visitors read.
_HEALTH: Final = re.compile(
    r"/(?:.*/)?[._-]*(?:is[_-]?)?(?:alive|health(?:y)?|heartbeat|live(?:ness)?|ping|read(?:y|iness)|startup|status|up)"
    r"(?:z|[_-]?checks?)?/?"
)
HOST_FILE: Final = "host"
"""File beside ``deploy.toml`` that says which of several hosts this one is."""


@dataclass(frozen=True, slots=True)
class RenderedFile:
    """One rendered file.

    Attributes:
        path: path below the output directory; ``etc`` and ``usr`` are copied to ``/``.
        text: content.
        mode: permissions.
    """

    path: str
    text: str
    mode: int = 0o644


def render(
    settings: Settings, installed: Installed, *, credentials: tuple[Credential, ...] = ()
) -> tuple[RenderedFile, ...]:
    """Render all files, sorted by path; equal input gives equal bytes.

    Args:
        settings: the validated settings.
        installed: versions to render for.
        credentials: secrets of the application; the required ones by default.
    """
    given = credentials or tuple(
        each for each in credentials_of(settings) if each.variable and is_wanted(each, settings)
    )
    templates = _templates()
    templates.globals.update(_values(settings, installed, given))
    share = _below_root(settings.paths.share)
    files = [RenderedFile(f"{share}/grafana/dashboard.json", dashboard(settings))]
    files += [
        RenderedFile(target, templates.get_template(f"{template}.j2").render(more), mode)
        for template, target, mode, more in _targets(settings)
    ]
    return tuple(sorted(files, key=lambda file: file.path))


def upstream(settings: Settings, weights: Mapping[Slot, int], *, drawn: str = "", state: str = "") -> str:
    """Render nginx's upstream block.

    Args:
        settings: settings of the deployment.
        weights: share of each slot.
        drawn: text that decides, with the cookie of a visitor, which of several slots the visitor gets.
        state: what a release stores with it, in one line.
    """
    several = sum(weight > 0 for weight in weights.values()) > 1
    return (
        _templates()
        .get_template("nginx/upstream.conf.j2")
        .render(
            s=settings,
            name=settings.name,
            paths=settings.paths,
            weights=weights,
            drawn=drawn,
            state=state,
            sticky=several and settings.release.canary_cookie,
        )
    )


def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("mks_deploy"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - configuration files, from values that contain nothing to escape
    )


def _values(settings: Settings, installed: Installed, credentials: tuple[Credential, ...]) -> dict[str, Any]:
    style = _style()
    certificate, key = settings.certificate_files
    return {
        "s": settings,
        "name": settings.name,
        "paths": settings.paths,
        "host": settings.canonical_host,
        "installed": installed,
        "hosts_served": (*settings.site.hosts, *settings.site.redirect_hosts),
        "certificate": certificate,
        "certificate_key": key,
        "credentials": credentials,
        "load_credential": f"LoadCredential{'Encrypted' if settings.host.encrypt_secrets else ''}",
        "bindings": lambda credential: bindings(credential, settings),
        "secret_values": [secret.variable for secret in settings.secrets if secret.as_value],
        "reasons": _reasons(settings),
        "host_variables": _host_variables(settings),
        "health_paths": "|".join(
            dict.fromkeys(
                _regex(path) for path in (settings.app.live, settings.app.ready) if _HEALTH.fullmatch(path)
            )
        ),
        "servers": _servers(settings),
        "stores_certificate": STORES_CERTIFICATE,
        "open_ports": tuple(_open_ports(settings)),
        "in_url": lambda address: f"[{address}]" if ":" in address else address,
        "sign_in_paths": "|".join(_regex(path) for path in settings.edge.sign_in_paths),
        "edge_headers": EDGE_HEADERS,
        "page_headers": page_headers(settings),
        "policy_in_frames": _without_frames(settings.edge.content_security_policy),
        "stripped_headers": STRIPPED_HEADERS,
        "edge_errors": EDGE_ERRORS,
        "style": style,
        "style_hash": base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        "hsts": _hsts(settings),
        "variables": list(variables_of(settings, credentials)),
        "megabytes": lambda size: max(1, size // _MIB),
        "duration": _duration,
        "connections_needed": connections_needed(settings),
        "connections_needed_by_clients": connections_of_workers(settings) + settings.tasks.processes,
        "most_pods": max_pods(settings),
        "pod_workers": POD_WORKERS,
        "pod_drain": _pod_drain(settings),
        # In MiB, for a process and those it starts.
        "memory_request": lambda processes: 128 * (processes + 1),
        "memory_limit": lambda processes: 512 * (processes + 1),
        "alerts": alerts_of(settings),
    }


def _without_frames(policy: str) -> str:
    return re.sub(r"(?:\A|; )frame-ancestors[^;]*", "", policy).lstrip("; ")


def _regex(path: str) -> str:
    """Return a path below the root for a regular expression of nginx, where a dot has a meaning."""
    return path[1:].replace(".", r"\.")


def _servers(settings: Settings) -> str:
    """Return the units of the servers that the application needs, each after a blank."""
    units = ["postgresql.service"] if settings.serves_database else []
    units += [f"{settings.name}-pooler.service"] if settings.pools_here else []
    units += ["redis-server.service"] if settings.serves_redis else []
    units += ["redis-server@cache.service"] if settings.serves_cache else []
    return "".join(f" {unit}" for unit in units)


def _open_ports(settings: Settings) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the ports of this host that the other hosts need, and which hosts do."""
    application = ("web", "worker")
    for port, here, needed_by in (
        (settings.edge.inner_port, ("web",), ("edge",)),
        (5432, ("database", "standby"), (*application, "database", "standby")),
        (6379, ("redis", "queue"), (*application, "redis", "sentinel")),
        (6380, ("cache",), application),
        (26_379, ("sentinel",), (*application, "redis", "sentinel")),
    ):
        if settings.here is not None and settings.has_role(*here):
            others = [host.address for host in settings.with_role(*needed_by) if host is not settings.here]
            for version in (4, 6):
                if chosen := tuple(each for each in others if ip_address(each).version == version):
                    yield port, chosen


def _host_variables(settings: Settings) -> dict[str, str]:
    """Return the facts about the host that the application reads."""
    facts = {
        "MKS_UPLOADS": f"{settings.paths.state}/uploads",
        "MKS_UPLOADS_REDIRECT": "/-/uploads",
        "MKS_BACKUPS": settings.paths.backups,
        "MKS_BACKUP_MAX_AGE": f"{settings.upkeep.backup_max_age}s",
        "MKS_OFFICES": ",".join(f"{network}={rate}" for network, rate in settings.edge.offices),
    }
    wanted = settings.app.host_variables
    return {name: facts[name] for name in HOST_VARIABLES if name in wanted and facts[name]}


def _reasons(settings: Settings) -> tuple[tuple[str, str], ...]:
    """Return the lines that open the sandbox of the application's units, each with its reason."""
    sandbox = settings.sandbox
    lines = [
        ("MemoryDenyWriteExecute=no", sandbox.write_execute),
        # After the list that refuses it: a later line of the same setting counts.
        ("SystemCallFilter=@chown", sandbox.chown),
        ("ProcSubset=all", sandbox.whole_proc),
        *((f"ReadWritePaths={path}", reason) for path, reason in sandbox.write_paths),
    ]
    return tuple((line, reason) for line, reason in lines if reason)


def _targets(settings: Settings) -> Iterator[tuple[str, str, int, dict[str, Any]]]:
    name, paths = settings.name, settings.paths
    shared = _below_root(paths.share)
    if settings.edge.mode == "nginx" and settings.has_role("web"):
        nginx = _below_root(paths.nginx)
        yield "logrotate/nginx", "etc/logrotate.d/nginx", 0o644, {}
        yield "nginx/nginx.conf", f"{nginx}/nginx.conf", 0o644, {}
        for part in ("http", "maintenance", "errors"):
            yield f"nginx/{part}.conf", f"{nginx}/{name}/{part}.conf", 0o644, {}
        yield "nginx/proxy.conf", f"{nginx}/{name}/proxy.conf", 0o644, {"inner": False}
        if settings.hosts:
            yield "nginx/proxy.conf", f"{nginx}/{name}/inner.conf", 0o644, {"inner": True}
        # Not in nginx's directory: rendering again must not route requests to a slot that is not running.
        yield (
            "nginx/upstream.conf",
            f"{shared}/nginx/upstream.conf",
            0o644,
            {"weights": {"blue": 1}, "sticky": False, "state": ""},
        )
        yield "nginx/site.conf", f"{nginx}/sites-enabled/{name}.conf", 0o644, {}
        for error in EDGE_ERRORS:
            more = {"error": error}
            yield "edge/error.html", f"{shared}/edge/{error.status}.html", 0o644, more
            yield "edge/error.json", f"{shared}/edge/{error.status}.json", 0o644, more
        yield "edge/robots.txt", f"{shared}/edge/robots.txt", 0o644, {}
    yield from _container_targets(settings)
    server = {
        "uvicorn": "uvicorn_server.py",
        "hypercorn": "hypercorn.conf.py",
        "granian": "granian_server.py",
    }.get(settings.app.server, "gunicorn.conf.py")
    if settings.runs_application:
        yield f"{settings.server.program}/{server}", f"{_below_root(paths.config)}/{server}", 0o644, {}
        if settings.edge.mode == "nginx":
            file = "behind_nginx.py"
            yield f"gunicorn/{file}", f"{_below_root(paths.config)}/{file}", 0o644, {}
    if settings.edge.mode == "direct":
        yield "gunicorn/redirect.conf.py", f"{_below_root(paths.config)}/redirect.conf.py", 0o644, {}
    yield "environment", f"{_below_root(paths.config)}/{name}.env", 0o644, {}
    for unit in UNITS:
        if unit.wanted(settings):
            yield f"systemd/{unit.template}", f"etc/systemd/system/{unit.file.format(name=name)}", 0o644, {}
    for timer in timers(settings):
        yield "systemd/timer", f"etc/systemd/system/{name}-{timer.unit}.timer", 0o644, {"timer": timer}
    yield "host/sysusers.conf", f"etc/sysusers.d/{name}.conf", 0o644, {}
    yield "host/tmpfiles.conf", f"etc/tmpfiles.d/{name}.conf", 0o644, {}
    if settings.logs.ship:
        yield "syslog-ng/logs.conf", f"{_below_root(paths.config)}/logs.conf", 0o644, {}
    if settings.host.firewall:
        yield "host/firewall.nft", f"{_below_root(paths.config)}/firewall.nft", 0o644, {}
    if settings.host.ssh_keys_only:
        yield "host/sshd.conf", f"etc/ssh/sshd_config.d/{name}.conf", 0o644, {}
    if settings.host.unattended_upgrades:
        yield "host/upgrades.conf", f"etc/apt/apt.conf.d/52{name}", 0o644, {}
    yield "logrotate/logrotate.conf", f"{_below_root(paths.config)}/logrotate.conf", 0o644, {}
    yield from _server_targets(settings)
    for part in ("scrape", "rules"):
        yield f"prometheus/{part}.yml", f"etc/prometheus/{part}/{name}.yml", 0o644, {}
    for part in (
        "prometheus/alertmanager",
        "prometheus/prometheus",
        "grafana/datasource",
        "grafana/dashboards",
    ):
        yield f"{part}.yml", f"{shared}/{part.removeprefix('prometheus/')}.yml", 0o644, {}
    if settings.tls.source == "acme" and settings.has_role("edge"):
        real = {"directory": settings.tls.directory, "folder": paths.acme}
        yield "certbot/certbot.ini", f"{_below_root(paths.config)}/certbot.ini", 0o644, real
        if staging := settings.rehearsal_directory:
            target = f"{_below_root(paths.config)}/certbot-rehearsal.ini"
            yield (
                "certbot/certbot.ini",
                target,
                0o644,
                {"directory": staging, "folder": f"{paths.acme}/rehearsal"},
            )
        yield "certbot/certificate-hook", f"{_below_root(paths.config)}/certificate-hook", 0o755, {}


def _container_targets(settings: Settings) -> Iterator[tuple[str, str, int, dict[str, Any]]]:
    for part in ("Dockerfile", "Dockerfile.dockerignore", "compose.yml"):
        yield f"docker/{part}", f"docker/{part}", 0o644, {}
    server = settings.gunicorn
    for where, workers, drain in (
        ("docker", server.workers, server.graceful_timeout),
        ("kubernetes", POD_WORKERS, _pod_drain(settings)),
    ):
        numbers = {"workers": workers, "drain": drain}
        yield "docker/gunicorn.conf.py", f"{where}/gunicorn.conf.py", 0o644, numbers
    for part in (
        "kustomization.yaml",
        "namespace.yaml",
        "application.yaml",
        "backup.yaml",
        "network.yaml",
        "gateway.yaml",
        "settings.env",
    ):
        yield f"kubernetes/{part}", f"kubernetes/{part}", 0o644, {}
    if settings.app.migrate:
        yield "kubernetes/migrate.yaml", "kubernetes/migrate.yaml", 0o644, {}
    if settings.has_tasks:
        yield "kubernetes/worker.yaml", "kubernetes/worker.yaml", 0o644, {}


def _pod_drain(settings: Settings) -> int:
    """Return the seconds a pod takes at most to end: a cluster ends pods at any hour, and no request with them."""
    return max(settings.gunicorn.graceful_timeout, settings.edge.read_timeout + 1)


def _server_targets(settings: Settings) -> Iterator[tuple[str, str, int, dict[str, Any]]]:
    """Yield the files of PostgreSQL, Redis and Sentinel on this host."""
    name, paths = settings.name, settings.paths
    if settings.here is not None:
        yield "host/name", f"{_below_root(paths.config)}/{HOST_FILE}", 0o644, {}
    if settings.serves_cache:
        yield "redis/redis-cache.conf", "etc/redis/redis-cache.conf", 0o644, {}
    if settings.serves_redis:
        yield "redis/redis.conf", f"{_below_root(paths.config)}/redis.conf", 0o644, {}
    if settings.with_role("sentinel") and settings.has_role("sentinel"):
        yield "redis/sentinel.conf", f"{_below_root(paths.config)}/sentinel.conf", 0o644, {}
    if settings.pools_here:
        yield "pgbouncer/pgbouncer.ini", f"{_below_root(paths.config)}/pgbouncer.ini", 0o644, {}
        yield "pgbouncer/pgbouncer.hba", f"{_below_root(paths.config)}/pgbouncer.hba", 0o644, {}
        if not settings.hosts:
            yield "pgbouncer/pgbouncer.users", f"{_below_root(paths.config)}/pgbouncer.users", 0o644, {}
    if settings.guards_primary:
        drop_in = f"etc/systemd/system/postgresql@.service.d/{name}.conf"
        yield "systemd/postgresql-fence.conf", drop_in, 0o644, {}
    if settings.serves_database and settings.hosts:
        yield "postgresql/pg_hba.conf", f"{_below_root(paths.config)}/pg_hba.conf", 0o644, {}
    if settings.serves_database:
        yield "postgresql/postgresql.conf", f"{_below_root(paths.config)}/postgresql.conf", 0o644, {}


def _below_root(path: str) -> str:
    return str(PurePosixPath(path).relative_to("/"))


def _hsts(settings: Settings) -> str:
    tls = settings.tls
    parts = [f"max-age={tls.hsts_max_age}"]
    parts += ["includeSubDomains"] if tls.hsts_subdomains else []
    parts += ["preload"] if tls.hsts_preload else []
    return "; ".join(parts)


def _duration(seconds: int) -> str:
    """Format seconds in the largest fitting unit, in the syntax of nginx and systemd."""
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _style() -> str:
    return "body{font-family:system-ui,sans-serif;max-width:40rem;margin:15vh auto;padding:0 1rem;line-height:1.7}"

"""What remains to be done on a host, as a list of steps; nothing is read or changed here.

The plan follows from what the host has, not from what was done before: a run that was cut off anywhere is completed
by the same command, and a second run finds nothing to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from mks_deploy.operations.release import ReleaseError
from mks_deploy.template_tables import timers

if TYPE_CHECKING:
    from mks_deploy.settings.definitions import Settings

__all__ = ["Call", "HostFacts", "SetupStep", "plan_setup", "setup_packages", "units_to_enable"]

Call = Literal["", "write files", "copy secrets", "include Redis settings"]
"""What a step does besides its commands: things that need more than a program."""

Certificate = Literal["none", "placeholder", "issued"]


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What a host has.

    Attributes:
        packages: packages of the distribution that are installed.
        wanted: digest of the rendered files, by what has to take notice of them.
        applied: the same digests as of the last time that each took notice.
        files_differ: whether a file on the host is not as rendered.
        secrets_differ: names of secrets that are missing on the host or have another value.
        cluster: version of PostgreSQL's cluster ``main``; empty without one.
        has_role: whether the database account exists.
        has_database: whether the database exists.
        includes_redis: whether Redis includes the rendered settings.
        certificate: what nginx presents.
        linked: version that ``current`` names; empty without the link.
        has_command: whether ``/usr/local/bin/mks-deploy`` is there.
        running: version that gets the requests; empty before the first release.
        has_backup: whether a backup is recent enough for a migration.
        enabled: units that start with the host.
        version: version to release; its folder has a virtual environment.
        has_root_key: whether a key leads to root over ssh.
    """

    packages: frozenset[str] = frozenset()
    wanted: Mapping[str, str] = field(default_factory=dict[str, str])
    applied: Mapping[str, str] = field(default_factory=dict[str, str])
    files_differ: bool = True
    secrets_differ: tuple[str, ...] = ()
    cluster: str = ""
    has_role: bool = False
    has_database: bool = False
    includes_redis: bool = False
    certificate: Certificate = "none"
    linked: str = ""
    has_command: bool = False
    running: str = ""
    has_backup: bool = False
    enabled: frozenset[str] = frozenset()
    version: str = ""
    has_root_key: bool = False

    def took_notice(self, topic: str) -> bool:
        """Whether a part of the host works with the files as they are rendered now."""
        return self.applied.get(topic) == self.wanted.get(topic, "")


@dataclass(frozen=True, slots=True)
class SetupStep:
    """One step.

    Attributes:
        key: its name.
        what: what it does, in one line.
        commands: programs with their arguments, run one after the other as root; ``mks-deploy`` is the kit's own.
        undo: how to go back.
        call: what it does before its commands.
        topic: digest to remember once it is done.
    """

    key: str
    what: str
    commands: tuple[tuple[str, ...], ...]
    undo: str
    call: Call = ""
    topic: str = ""


_COMMAND: Final = "/usr/local/bin/mks-deploy"


def setup_packages(settings: Settings) -> tuple[str, ...]:
    """Return the packages of Debian that a deployment needs."""
    wanted = ["logrotate"]
    wanted += ["nginx"] if settings.edge.mode == "nginx" else []
    wanted += ["certbot"] if settings.tls.source == "acme" else []
    wanted += ["postgresql"] if settings.has_database else []
    wanted += ["redis-server"] if settings.has_redis else []
    wanted += ["restic"] if settings.offsite.repository else []
    wanted += ["openssh-client"] if settings.offsite.needs_ssh else []
    wanted += ["nftables"] if settings.host.firewall else []
    wanted += ["unattended-upgrades"] if settings.host.unattended_upgrades else []
    return tuple(sorted(wanted))


def units_to_enable(settings: Settings) -> tuple[str, ...]:
    """Return the units that start with the host, besides those that a release starts."""
    parts = [f"{timer.unit}.timer" for timer in timers(settings)]
    parts += ["worker.service", "beat.service"] if settings.has_tasks else []
    return tuple(f"{settings.name}-{part}" for part in parts)


def plan_setup(
    settings: Settings, facts: HostFacts, *, issue: bool = True, migrate: bool = True
) -> tuple[SetupStep, ...]:
    """Return the steps that remain, in order.

    Args:
        settings: settings of the deployment.
        facts: what the host has.
        issue: whether to ask the provider for a certificate; without it, nginx keeps the placeholder.
        migrate: whether a release runs ``app.migrate``.

    Raises:
        ReleaseError: a step would lock everybody out.
    """
    if settings.host.ssh_keys_only and not facts.has_root_key:
        raise ReleaseError(
            "host.ssh_keys_only: /root/.ssh/authorized_keys names no key, so nobody could sign in"
        )
    return tuple(_steps(settings, facts, issue=issue, migrate=migrate))


def _steps(settings: Settings, facts: HostFacts, *, issue: bool, migrate: bool) -> Iterator[SetupStep]:
    name, config = settings.name, settings.paths.config
    if missing := tuple(each for each in setup_packages(settings) if each not in facts.packages):
        yield SetupStep(
            "packages",
            f"install {', '.join(missing)}",
            (
                ("apt-get", "update", "-q"),
                ("apt-get", "install", "-q", "-y", "--no-install-recommends", *missing),
            ),
            f"apt-get remove {' '.join(missing)}",
        )
    if facts.files_differ or not facts.took_notice("files"):
        yield SetupStep(
            "files",
            "write the rendered files, make accounts and folders",
            (
                ("systemd-sysusers", f"/etc/sysusers.d/{name}.conf"),
                ("systemd-tmpfiles", "--create", f"/etc/tmpfiles.d/{name}.conf"),
                ("systemctl", "daemon-reload"),
            ),
            "apply the former deploy.toml; accounts and folders stay",
            call="write files",
            topic="files",
        )
    if facts.secrets_differ:
        yield SetupStep(
            "secrets",
            f"copy the secrets {', '.join(facts.secrets_differ)}",
            (),
            f"apply with the former secrets; {settings.paths.credentials} holds one file for each",
            call="copy secrets",
        )
    yield from _stores(settings, facts)
    if not facts.linked:
        yield SetupStep(
            "current",
            f"make version {facts.version} the current one",
            (
                (
                    "ln",
                    "-sfn",
                    f"{settings.paths.releases}/versions/{facts.version}",
                    f"{settings.paths.releases}/current",
                ),
            ),
            f"rm {settings.paths.releases}/current",
        )
    if not facts.has_command:
        yield SetupStep(
            "command",
            f"make {_COMMAND}",
            (("ln", "-sfn", f"{settings.paths.releases}/current/venv/bin/mks-deploy", _COMMAND),),
            f"rm {_COMMAND}",
        )
    if facts.certificate == "none" and settings.tls.source == "acme":
        yield SetupStep(
            "placeholder",
            "make a certificate for the first start of nginx",
            (("mks-deploy", "certificate", "placeholder", "--settings", f"{config}/deploy.toml"),),
            f"rm {settings.paths.acme}/served",
        )
    if not facts.took_notice("nginx"):
        yield SetupStep(
            "nginx",
            "test the configuration of nginx and load it",
            (
                ("nginx", "-t", "-q"),
                ("systemctl", "enable", "nginx.service"),
                ("systemctl", "reload-or-restart", "nginx.service"),
            ),
            "apply the former deploy.toml",
            topic="nginx",
        )
    if facts.certificate != "issued" and settings.tls.source == "acme" and issue:
        yield SetupStep(
            "certificate",
            f"ask {settings.tls.directory} for a certificate",
            (("mks-deploy", "certificate", "issue", "--settings", f"{config}/deploy.toml"),),
            f"certbot --config {config}/certbot.ini revoke --cert-name {name}",
        )
    yield from _release(settings, facts, migrate=migrate and bool(settings.app.migrate))
    yield from _ways_in(settings, facts)
    if issue and settings.rehearsal_directory and not facts.took_notice("renewal"):
        yield SetupStep(
            "rehearsal",
            f"rehearse the renewal of the certificate against {settings.rehearsal_directory}",
            (("mks-deploy", "certificate", "rehearse", "--settings", f"{config}/deploy.toml"),),
            "it leaves nothing behind",
            topic="renewal",
        )


def _ways_in(settings: Settings, facts: HostFacts) -> Iterator[SetupStep]:
    """Yield what the settings allow to change of the ways into the host."""
    name = settings.name
    if settings.host.ssh_keys_only and not facts.took_notice("ssh"):
        yield SetupStep(
            "ssh",
            "test the settings of sshd and load them: no passwords",
            (("sshd", "-t"), ("systemctl", "reload-or-restart", "ssh.service")),
            f"rm /etc/ssh/sshd_config.d/{name}.conf, and reload ssh.service",
            topic="ssh",
        )
    if settings.host.firewall and not facts.took_notice("firewall"):
        yield SetupStep(
            "firewall",
            f"start the firewall; it is taken back after five minutes unless {name}-firewall-undo.timer is stopped",
            (
                ("nft", "--check", "--file", f"{settings.paths.config}/firewall.nft"),
                # First what takes it back: a connection that is lost here is not lost for good.
                ("systemctl", "restart", f"{name}-firewall-undo.timer"),
                ("systemctl", "enable", f"{name}-firewall.service"),
                ("systemctl", "restart", f"{name}-firewall.service"),
            ),
            f"systemctl disable --now {name}-firewall.service",
            topic="firewall",
        )


def _stores(settings: Settings, facts: HostFacts) -> Iterator[SetupStep]:
    name, config = settings.name, settings.paths.config
    as_postgres = ("runuser", "-u", "postgres", "--")
    if settings.has_database:
        place = f"/etc/postgresql/{facts.cluster or '*'}/main/conf.d/{name}.conf"
        if not facts.took_notice("postgresql"):
            yield SetupStep(
                "postgresql",
                "give PostgreSQL its settings, and restart it",
                (
                    ("install", "-m", "644", f"{config}/postgresql.conf", place),
                    ("systemctl", "restart", f"postgresql@{facts.cluster}-main.service"),
                ),
                f"rm {place}, and restart PostgreSQL",
                topic="postgresql",
            )
        if not facts.has_role:
            yield SetupStep(
                "role",
                f"make the database account {name}, which needs no password on this host",
                ((*as_postgres, "createuser", "--createdb", name),),
                f"runuser -u postgres -- dropuser {name}",
            )
        if not facts.has_database:
            database = settings.stores.database_name
            yield SetupStep(
                "database",
                f"make the database {database}",
                ((*as_postgres, "createdb", "--owner", name, database),),
                f"runuser -u postgres -- dropdb {database}, which deletes its data",
            )
    if settings.has_redis and not (facts.includes_redis and facts.took_notice("redis")):
        yield SetupStep(
            "redis",
            "give Redis its settings, and restart it and the Redis of the cache",
            (
                ("systemctl", "restart", "redis-server.service"),
                ("systemctl", "enable", "redis-server@cache.service"),
                ("systemctl", "restart", "redis-server@cache.service"),
            ),
            f"take the include of {config}/redis.conf out of /etc/redis/redis.conf, and restart Redis",
            call="include Redis settings",
            topic="redis",
        )


def _release(settings: Settings, facts: HostFacts, *, migrate: bool) -> Iterator[SetupStep]:
    name, given = settings.name, ("--settings", f"{settings.paths.config}/deploy.toml")
    if facts.running != facts.version:
        if migrate and not facts.has_backup:
            yield SetupStep(
                "backup",
                "make a backup, which each migration requires",
                (("systemctl", "start", f"{name}-backup.service"),),
                f"delete the newest folder of {settings.paths.backups}",
            )
        yield SetupStep(
            "release",
            f"release version {facts.version}" + (", with its migration" if migrate else ""),
            (("mks-deploy", "release", facts.version, *(("--migrate",) if migrate else ()), *given),),
            "mks-deploy rollback" if facts.running else f"systemctl disable --now {name}@blue.socket",
            topic="application",
        )
    elif not facts.took_notice("application"):
        yield SetupStep(
            "restart",
            f"start version {facts.version} anew with the changed settings or secrets",
            (("mks-deploy", "restart", *given),),
            "apply the former deploy.toml and secrets",
            topic="application",
        )
    if off := tuple(unit for unit in units_to_enable(settings) if unit not in facts.enabled):
        yield SetupStep(
            "units",
            f"start {', '.join(off)} now and with the host",
            (("systemctl", "enable", "--now", *off),),
            f"systemctl disable --now {' '.join(off)}",
        )

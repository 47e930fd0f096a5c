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

__all__ = ["Call", "HostFacts", "SetupStep", "Stage", "plan_setup", "setup_packages", "units_to_enable"]

Call = Literal[
    "", "write files", "copy secrets", "put secrets aside", "write store files", "include Redis settings"
]
"""What a step does besides its commands: things that need more than a program."""

Stage = Literal["", "servers", "migration"]
"""How far to go: to PostgreSQL and Redis, to the migration, or, if empty, to the end."""

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
        secrets_left: names of secrets on the host that are not among those to use.
        cluster: version of PostgreSQL's cluster ``main``; empty without one.
        has_role: whether the database account exists.
        has_database: whether the database exists.
        follows: whether PostgreSQL follows another server, and takes no writes.
        is_copy: whether the cluster of a standby is a copy of the primary.
        store_files_differ: whether a file with a secret of PostgreSQL or Redis is not as it should be.
        includes_redis: whether Redis includes the rendered settings.
        certificate: what nginx presents.
        linked: version that ``current`` names; empty without the link.
        has_command: whether ``/usr/local/bin/mks-deploy`` is there.
        running: version that gets the requests; empty before the first release.
        has_backup: whether a backup is recent enough for a migration.
        enabled: units that start with the host.
        version: version to release; its folder has a virtual environment.
        can_encrypt: whether systemd-creds encrypts as ``host.encrypt_secrets`` wants.
        has_root_key: whether a key leads to root over ssh.
        follows_connections: whether the kernel follows connections, for the firewall.
    """

    packages: frozenset[str] = frozenset()
    wanted: Mapping[str, str] = field(default_factory=dict[str, str])
    applied: Mapping[str, str] = field(default_factory=dict[str, str])
    files_differ: bool = True
    secrets_differ: tuple[str, ...] = ()
    secrets_left: tuple[str, ...] = ()
    cluster: str = ""
    has_role: bool = False
    has_database: bool = False
    follows: bool = False
    is_copy: bool = False
    store_files_differ: bool = False
    includes_redis: bool = False
    certificate: Certificate = "none"
    linked: str = ""
    has_command: bool = False
    running: str = ""
    has_backup: bool = False
    enabled: frozenset[str] = frozenset()
    version: str = ""
    can_encrypt: bool = True
    has_root_key: bool = False
    follows_connections: bool = False

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
    wanted += ["nginx"] if settings.edge.mode == "nginx" and settings.has_role("web") else []
    wanted += ["certbot"] if settings.tls.source == "acme" and settings.has_role("edge") else []
    # Where backups are made, a test of a restore needs a server of its own.
    wanted += (
        ["postgresql"] if settings.has_database and (settings.serves_database or settings.is_main) else []
    )
    wanted += ["pgbouncer"] if settings.pools_here else []
    wanted += ["redis-server"] if settings.serves_redis or settings.serves_cache else []
    wanted += ["redis-sentinel"] if settings.with_role("sentinel") and settings.has_role("sentinel") else []
    wanted += ["restic"] if settings.offsite.repository and settings.is_main else []
    wanted += ["openssh-client"] if settings.offsite.needs_ssh and settings.is_main else []
    wanted += ["syslog-ng-core", "syslog-ng-mod-http"] if settings.logs.ship else []
    wanted += ["nftables"] if settings.host.firewall else []
    wanted += ["unattended-upgrades"] if settings.host.unattended_upgrades else []
    return tuple(sorted(wanted))


def units_to_enable(settings: Settings) -> tuple[str, ...]:
    """Return the units that start with the host, besides those that a release starts."""
    parts = [f"{timer.unit}.timer" for timer in timers(settings)]
    parts += ["guard.service"] if settings.guards_primary else []
    parts += ["pooler.service"] if settings.pools_here else []
    parts += ["worker.service"] if settings.runs_tasks else []
    parts += ["beat.service"] if settings.runs_beat else []
    parts += ["sink.service"] if settings.upkeep.mail_sink else []
    parts += ["logs.service"] if settings.logs.ship else []
    return tuple(f"{settings.name}-{part}" for part in parts)


def plan_setup(
    settings: Settings, facts: HostFacts, *, issue: bool = True, migrate: bool = True, stage: Stage = ""
) -> tuple[SetupStep, ...]:
    """Return the steps that remain, in order.

    Args:
        settings: settings of the deployment.
        facts: what the host has.
        issue: whether to ask the provider for a certificate; without it, nginx keeps the placeholder.
        migrate: whether a release runs ``app.migrate``.
        stage: how far to go.

    Raises:
        ReleaseError: a step would lock everybody out, or units could not read their secrets.
    """
    if not facts.can_encrypt:
        raise ReleaseError(
            f'host.encrypt_secrets = "{settings.host.encrypt_secrets}": systemd-creds cannot encrypt on this host'
        )
    if settings.host.ssh_keys_only and not facts.has_root_key:
        raise ReleaseError(
            "host.ssh_keys_only: /root/.ssh/authorized_keys names no key, so nobody could sign in"
        )
    steps = [*_to_the_servers(settings, facts)]
    if stage == "migration":
        steps += _migration(settings, facts)
    elif not stage:
        steps += _to_the_end(settings, facts, issue=issue, migrate=migrate)
    return tuple(steps)


def _to_the_servers(settings: Settings, facts: HostFacts) -> Iterator[SetupStep]:
    name = settings.name
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
    if facts.secrets_left:
        former = f"{settings.paths.credentials}/former"
        files = " ".join(f"{former}/{each}" for each in facts.secrets_left)
        yield SetupStep(
            "former secrets",
            f"move the secrets {', '.join(facts.secrets_left)}, which are not among those given, to {former}; "
            f"delete them when you will not go back: rm {files}",
            (),
            "apply with the former secrets, which include them",
            call="put secrets aside",
        )
    if facts.store_files_differ:
        yield SetupStep(
            "store files",
            "write the files of PostgreSQL and Redis that hold a password or key, each for their account alone",
            (),
            "apply with the former secrets",
            call="write store files",
        )
    yield from _follow_connections(settings, facts)
    yield from _stores(settings, facts)
    # With slots, a release moves the link.
    if not facts.linked or (not settings.runs_application and facts.linked != facts.version):
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


def _follow_connections(settings: Settings, facts: HostFacts) -> Iterator[SetupStep]:
    """Yield what the firewall needs to know of connections that are older than it.

    The kernel only follows connections while a rule asks for it. A standby or a worker that waits for something
    from another host may have sent nothing by the time the firewall starts, which would refuse what it waits for.
    """
    if settings.host.firewall and not facts.follows_connections:
        table = settings.firewall_table
        # The firewall replaces the table; until then, all is accepted.
        chain = "chain seen { type filter hook input priority filter - 1; ct state established accept; };"
        yield SetupStep(
            "connections",
            "follow connections from now on, so that the firewall knows those that begin before it",
            (("nft", f"add table inet {table} {{ {chain} }}"),),
            f"nft delete table inet {table}",
        )


def _migration(settings: Settings, facts: HostFacts) -> Iterator[SetupStep]:
    """Yield the change of the database, before any host runs the version."""
    if settings.app.migrate and not facts.took_notice("migration"):
        if not facts.has_backup:
            yield _backup(settings)
        yield SetupStep(
            "migration",
            f"change the database for version {facts.version}, while the version before still runs",
            (("systemctl", "start", f"{settings.name}-migrate@{facts.version}.service"),),
            "none: the change suits the version before too; else restore the backup",
            topic="migration",
        )


def _backup(settings: Settings) -> SetupStep:
    return SetupStep(
        "backup",
        "make a backup, which each migration requires",
        (("systemctl", "start", f"{settings.name}-backup.service"),),
        f"delete the newest folder of {settings.paths.backups}",
    )


def _to_the_end(settings: Settings, facts: HostFacts, *, issue: bool, migrate: bool) -> Iterator[SetupStep]:
    name, config, edge = settings.name, settings.paths.config, settings.has_role("edge")
    if edge and facts.certificate == "none" and settings.tls.source == "acme":
        yield SetupStep(
            "placeholder",
            "make a certificate for the first start of nginx",
            (("mks-deploy", "certificate", "placeholder", "--settings", f"{config}/deploy.toml"),),
            f"rm {settings.paths.acme}/served",
        )
    if settings.has_role("web") and not facts.took_notice("nginx"):
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
    if edge and facts.certificate != "issued" and settings.tls.source == "acme" and issue:
        yield SetupStep(
            "certificate",
            f"ask {settings.tls.directory} for a certificate",
            (("mks-deploy", "certificate", "issue", "--settings", f"{config}/deploy.toml"),),
            f"certbot --config {config}/certbot.ini revoke --cert-name {name}",
        )
    if settings.pools_here and not facts.took_notice("pooler"):
        yield SetupStep(
            "pooler",
            "start PgBouncer for the application, in place of the one of the distribution",
            (
                ("systemctl", "disable", "--now", "pgbouncer.service"),
                ("systemctl", "enable", f"{name}-pooler.service"),
                ("systemctl", "restart", f"{name}-pooler.service"),
            ),
            f"systemctl disable --now {name}-pooler.service, and stores.pooler = false",
            topic="pooler",
        )
    if settings.has_role("web"):
        # Of several hosts, one has changed the database for all.
        migrate = migrate and bool(settings.app.migrate) and not settings.hosts
        yield from _release(settings, facts, migrate=migrate)
    elif settings.runs_application and (
        facts.linked != facts.version or not facts.took_notice("application")
    ):
        units = tuple(
            unit for unit in units_to_enable(settings) if unit.endswith(("-worker.service", "-beat.service"))
        )
        yield SetupStep(
            "workers",
            f"move the workers to version {facts.version}; running tasks get {settings.tasks.stop_timeout} s",
            (
                (
                    "ln",
                    "-sfn",
                    f"{settings.paths.releases}/versions/{facts.version}",
                    f"{settings.paths.releases}/current",
                ),
                ("systemctl", "restart", *units),
            ),
            f"the same with version {facts.linked}",
            topic="application",
        )
    if off := tuple(unit for unit in units_to_enable(settings) if unit not in facts.enabled):
        yield SetupStep(
            "units",
            f"start {', '.join(off)} now and with the host",
            (("systemctl", "enable", "--now", *off),),
            f"systemctl disable --now {' '.join(off)}",
        )
    yield from _ways_in(settings, facts)
    if edge and issue and settings.rehearsal_directory and not facts.took_notice("renewal"):
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
    if settings.serves_database:
        place = f"/etc/postgresql/{facts.cluster or '*'}/main/conf.d/{name}.conf"
        # An empty cluster that answers would be taken for a primary.
        empty = settings.hosts != () and settings.has_role("standby") and not facts.is_copy
        if not facts.took_notice("postgresql"):
            unit = f"postgresql@{facts.cluster}-main.service"
            signal = f"/var/lib/postgresql/{facts.cluster}/main/standby.signal"
            yield SetupStep(
                "postgresql",
                "give PostgreSQL its settings, and "
                + ("stop it: it is not a copy of the primary yet" if empty else "restart it"),
                (
                    ("install", "-m", "644", f"{config}/postgresql.conf", place),
                    *(
                        (
                            ("systemctl", "stop", unit),
                            ("install", "-o", "postgres", "-g", "postgres", "-m", "600", "/dev/null", signal),
                        )
                        if empty
                        else (("systemctl", "restart", unit),)
                    ),
                ),
                f"rm {place}, and restart PostgreSQL",
                topic="postgresql",
            )
        if empty or facts.follows:
            pass  # what the primary has comes over from there
        elif settings.hosts and not facts.took_notice("accounts"):
            yield SetupStep(
                "accounts",
                f"make the database accounts {name} and replicator, and set their passwords",
                (("mks-deploy", "database", "accounts", "--settings", f"{config}/deploy.toml"),),
                f"runuser -u postgres -- dropuser {name}",
                topic="accounts",
            )
        elif not settings.hosts and not facts.has_role:
            yield SetupStep(
                "role",
                f"make the database account {name}, which needs no password on this host",
                ((*as_postgres, "createuser", "--createdb", name),),
                f"runuser -u postgres -- dropuser {name}",
            )
        if not (empty or facts.follows or facts.has_database):
            database = settings.stores.database_name
            yield SetupStep(
                "database",
                f"make the database {database}",
                ((*as_postgres, "createdb", "--owner", name, database),),
                f"runuser -u postgres -- dropdb {database}, which deletes its data",
            )
    state, cache = settings.serves_redis, settings.serves_cache
    if (state or cache) and not ((facts.includes_redis or not state) and facts.took_notice("redis")):
        yield SetupStep(
            "redis",
            f"give Redis its settings, and restart {' and '.join(_restarted(settings))}",
            (
                *((("systemctl", "restart", "redis-server.service"),) if state else ()),
                *(
                    (
                        ("systemctl", "enable", "redis-server@cache.service"),
                        ("systemctl", "restart", "redis-server@cache.service"),
                    )
                    if cache
                    else ()
                ),
            ),
            f"take the include of {config}/redis.conf out of /etc/redis/redis.conf, and restart Redis",
            call="include Redis settings" if state else "",
            topic="redis",
        )
    if "sentinel" in facts.wanted and not facts.took_notice("sentinel"):
        yield SetupStep(
            "sentinel",
            "start Sentinel",
            (
                ("systemctl", "enable", "redis-sentinel.service"),
                ("systemctl", "restart", "redis-sentinel.service"),
            ),
            "systemctl disable --now redis-sentinel.service",
            topic="sentinel",
        )


def _restarted(settings: Settings) -> Iterator[str]:
    if settings.serves_redis:
        yield "it"
    if settings.serves_cache:
        yield "the Redis of the cache"


def _release(settings: Settings, facts: HostFacts, *, migrate: bool) -> Iterator[SetupStep]:
    name, given = settings.name, ("--settings", f"{settings.paths.config}/deploy.toml")
    if facts.running != facts.version:
        if migrate and not facts.has_backup:
            yield _backup(settings)
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
            f"start version {facts.version} again with the changed settings or secrets",
            (("mks-deploy", "restart", *given),),
            "apply the former deploy.toml and secrets",
            topic="application",
        )

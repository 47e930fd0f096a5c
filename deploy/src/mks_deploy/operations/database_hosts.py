"""PostgreSQL on several hosts: a standby that follows the primary, and takes over by a command.

A host that was fenced has the file ``standby.signal`` in its data: whoever starts it, it takes no writes. Each
server queries the others before it starts (``may_start``). One that was cut off and runs on stops itself when it
sees the new primary (``primary_guard``).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from mks_deploy.operations.release import ReleaseError
from mks_deploy.settings.credentials import STORES_CERTIFICATE

if TYPE_CHECKING:
    from mks_deploy.settings.definitions import Host, Settings

__all__ = [
    "TIMELINE",
    "DatabaseHosts",
    "ServerState",
    "Shell",
    "account_statements",
    "may_start",
    "replication_connection",
    "standby_mark",
]

TIMELINE: Final = """(CASE WHEN pg_is_in_recovery() THEN 0
  ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END)"""
"""SQL for the number of the timeline to which a server writes; 0 if it takes no writes."""
_AS_POSTGRES: Final = ("runuser", "-u", "postgres", "--")
_QUERY: Final = f"""
SELECT pg_is_in_recovery(), (SELECT system_identifier FROM pg_control_system()),
  (CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn(), '0/0')
        ELSE pg_current_wal_flush_lsn() END - '0/0')::bigint,
  coalesce((pg_last_wal_replay_lsn() - '0/0')::bigint, 0),
  CASE WHEN pg_is_in_recovery() THEN round(extract(epoch FROM now() - pg_last_xact_replay_timestamp()))
       ELSE 0 END,
  (SELECT round(extract(epoch FROM now() - last_msg_receipt_time)) FROM pg_stat_wal_receiver
   WHERE status = 'streaming'),
  (CASE WHEN pg_is_in_recovery() THEN to_char(pg_last_xact_replay_timestamp() AT TIME ZONE 'UTC',
                                              'YYYY-MM-DD HH24:MI:SS "UTC"') END),
  {TIMELINE}
"""  # noqa: S608 - constants
_PATIENCE: Final = 60
_SILENT: Final = 60
"""Seconds after which a standby gives up (``wal_receiver_timeout``); after half of it, it sends a request."""
_LATE: Final = 60
"""Seconds by which the newest change on a standby that lacks others may be old."""
_NOT_INSTALLED: Final = 127  # of the shell: there is no such program


class Shell(Protocol):
    """Runs programs as root of a host."""

    def run(self, words: Sequence[str], *, sends: bytes = b"", shown: bool = True) -> tuple[int, str]:
        """Run a program; return its exit code, and its output if it is not shown."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """What a server of the database is doing.

    Attributes:
        host: name of the host.
        reached: whether ssh reaches the host, and its clusters can be listed.
        version: version of its cluster; empty if it has none.
        data: folder of the cluster.
        online: whether PostgreSQL answers.
        follows: whether it follows another server, and takes no writes.
        system: identifier that all copies of one cluster share.
        received: position of the last change that it has, in bytes.
        replayed: position up to which queries see the changes.
        behind: seconds since the newest change that it has replayed; ``None`` if unknown.
        heard: seconds since the primary sent something to a standby; ``None`` if it is not connected.
        newest_change: when the newest change that it has replayed was made; empty if unknown.
        lacks: bytes of changes of the primary that queries do not see yet; ``None`` if unknown.
        timeline: number of the timeline to which it writes; 0 if it takes no writes.
        newer: host that has taken over from it, although it still takes writes; empty if none has.
    """

    host: str
    reached: bool = True
    version: str = ""
    data: str = ""
    online: bool = False
    follows: bool = False
    system: str = ""
    received: int = 0
    replayed: int = 0
    behind: int | None = None
    heard: int | None = None
    newest_change: str = ""
    lacks: int | None = None
    timeline: int = 0
    newer: str = ""

    @property
    def is_primary(self) -> bool:
        """Whether it takes writes."""
        return self.online and not self.follows

    @property
    def is_current(self) -> bool:
        """Whether it is a standby that receives the changes of the primary and shows them in time."""
        return not self._problem

    @property
    def _problem(self) -> str:
        if not self.follows:
            return "takes writes" if self.online else "does not run"
        if self.heard is None:
            return "standby that receives nothing from a primary"
        if self.heard > _SILENT:
            return f"standby that has received nothing from the primary for {self.heard} s"
        if self.lacks and (self.behind is None or self.behind > _LATE):
            return "standby that receives the changes and applies them late"
        return "" if self.lacks is not None else "standby of an unknown primary"

    @property
    def newest(self) -> int:
        """Position of the last change that it has: after a restart, it may have replayed more than it received."""
        return max(self.received, self.replayed)

    @property
    def unit(self) -> str:
        """The unit of the server."""
        return f"postgresql@{self.version}-main.service"

    def __str__(self) -> str:
        if not self.reached:
            return "ssh does not reach it, or pg_lsclusters fails there"
        if not self.version:
            return "has no PostgreSQL"
        if not self.online:
            return "does not run"
        if self.newer:
            repair = f"mks-deploy database standby --host {self.host}"
            return f"must not take writes, because {self.newer} has taken over: {repair}"
        if self.is_primary:
            return f"primary, at {self.received}"
        lag = "unknown" if self.lacks is None else f"{self.lacks} bytes"
        since = f"{self.newest_change} ({self.behind} s ago)" if self.newest_change else "unknown"
        return f"{self._problem or 'follows'}; lag {lag}, newest change {since}, replayed {self.replayed}"


class DatabaseHosts:
    """The servers of the database, reached by ssh.

    Args:
        settings: settings of the deployment.
        shells: a shell for each host with PostgreSQL, by its name.
        pause: sleeps for a number of seconds.
    """

    def __init__(
        self,
        settings: Settings,
        shells: Mapping[str, Shell],
        *,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._settings = settings
        self._shells = shells
        self._pause = pause

    def states(self) -> tuple[ServerState, ...]:
        """Read the state of each server; nothing is changed."""
        states = [self._state(host.name) for host in self._hosts()]
        primaries = [state for state in states if state.is_primary]
        if len(primaries) != 1:  # there is nothing to compare with, or it is a split brain
            return tuple(replace(state, newer=_newer(state, primaries)) for state in states)
        (primary,) = primaries
        return tuple(
            # The standby was read before or after the primary, which continues to write.
            replace(state, lacks=max(primary.received - state.replayed, 0))
            if state.follows and state.system == primary.system
            else state
            for state in states
        )

    def promote(self, name: str, *, old_is_off: bool = False, lose_changes: bool = False) -> Iterator[str]:
        """Make a standby the primary, after the former one was stopped and fenced; yield each step before.

        Args:
            name: name of the host.
            old_is_off: confirms that a former primary that ssh does not reach is switched off.
            lose_changes: whether to continue without the changes that a stopped primary has and the standby lacks.

        Raises:
            ReleaseError: another server could still take writes, or a step failed.
        """
        states = {state.host: state for state in self.states()}
        new = self._known(name, states)
        if new.is_primary:
            raise ReleaseError(f"{name} is the primary already")
        if not new.online:
            raise ReleaseError(f"{name} {new}: a standby that runs can take over")
        if lost := [state.host for state in states.values() if not state.reached]:
            if not old_is_off:
                raise ReleaseError(
                    f"ssh does not reach {', '.join(lost)}, which may still take writes, or pg_lsclusters fails "
                    "there: switch it off, and repeat with --old-primary-is-off; nothing was changed"
                )
            yield f"{', '.join(lost)}: taken to be off, as you say; it asks the others before it starts again"
        # Also one that does not run: it could be started again as a second primary.
        others = [state for state in states.values() if state.reached and state.version and state is not new]
        ahead = [state.host for state in others if state.follows and state.newest > new.newest]
        if ahead and not any(state.is_primary for state in others):
            raise ReleaseError(
                f"{', '.join(ahead)} has changes that {name} lacks: promote it instead, or stop its PostgreSQL "
                "to lose them; nothing was changed"
            )
        for old in (state for state in others if not state.follows):
            yield f"{old.host}: stop PostgreSQL, and fence it: it takes no writes, whoever starts it"
            self._fence(old)
            # Also one that was stopped before: this command may have been cut off between.
            if position := 0 if lose_changes else self._last_position(old, new.system):
                yield f"{name}: wait for the last change of {old.host}"
                self._wait_for(name, position)
        yield f"{name}: take over"
        if self._query(name, f"SELECT pg_promote(true, {_PATIENCE})") != "t":
            raise ReleaseError(f"{name}: PostgreSQL did not take over within {_PATIENCE} s")
        for host in self._hosts():
            if host.name != name:
                self._make_slot(name, host.name)
        yield f"{name} is the primary; make the others its standbys: mks-deploy database standby HOST"

    def standby(self, name: str) -> Iterator[str]:
        """Make a host a standby of the primary, with a new copy of its data; yield each step before it is done.

        What the cluster held before is kept, each time in another folder, because writes that the primary never got
        may be in it. Nothing deletes these folders but you.

        Raises:
            ReleaseError: there is not exactly one primary, it is this host, or a step failed.
        """
        states = {state.host: state for state in self.states()}
        new = self._known(name, states)
        primaries = [state for state in states.values() if state.is_primary and state is not new]
        if len(primaries) != 1:
            found = ", ".join(state.host for state in primaries) or "none"
            raise ReleaseError(f"there must be one primary besides {name} to follow; there is: {found}")
        (primary,) = primaries
        if not new.reached or not new.version:
            raise ReleaseError(f"{name} {new}: mks-deploy up prepares it")
        if new.is_primary and new.system == primary.system:
            if new.timeline >= primary.timeline:
                raise ReleaseError(
                    f"{name} takes writes, and so does {primary.host}: stop one of them, by hand"
                )
            yield f"{name}: stop PostgreSQL, and fence it, because {primary.host} has taken over from it"
            self._fence(new)
        data = new.data
        yield f"{primary.host}: keep what {name} will need, stores.standby_wal at most"
        self._make_slot(primary.host, name)
        yield f"{name}: copy the cluster of {primary.host}"
        self._must(name, ["rm", "-rf", f"{data}.new"])
        address = next(host.address for host in self._hosts() if host.name == primary.host)
        self._must(name, [*_AS_POSTGRES, *_base_backup(self._settings, new, address)])
        former = self._former(name, data)
        kept = next(
            path
            for number in count(1)
            if (path := f"{data}.before{f'-{number}' * (number > 1)}") not in former
        )
        more = f"; delete what you do not need of {', '.join(former)}" if former else ""
        yield f"{name}: start it in place of the one that was there, which stays in {kept}{more}"
        self._must(name, ["systemctl", "stop", new.unit])
        # Cut off between the two moves, there is none to keep. With -T, nothing is moved into a folder that exists.
        if self._shells[name].run(["test", "-e", data], shown=False)[0] == 0:
            self._must(name, ["mv", "-T", data, kept])
        self._must(name, ["mv", "-T", f"{data}.new", data])
        self._must(name, ["systemctl", "start", new.unit])
        self._must(name, ["touch", str(standby_mark(self._settings))])
        slot = _slot(name)
        following = (
            f"SELECT count(*) FROM pg_stat_replication WHERE application_name = '{slot}' "  # noqa: S608 - a slug
            "AND state = 'streaming'"
        )
        for _ in range(_PATIENCE):
            if self._query(primary.host, following) == "1":
                break
            self._pause(1)
        else:
            raise ReleaseError(
                f"{name} did not follow {primary.host} within {_PATIENCE} s: journalctl -u {new.unit}"
            )
        yield f"{name} follows {primary.host}"

    def _former(self, name: str, data: str) -> list[str]:
        """Return the folders with what the cluster held before."""
        folder, _, own = data.rpartition("/")
        words = ["find", folder or "/", "-maxdepth", "1", "-name", f"{own}.before*"]
        return sorted(self._must(name, words).splitlines())

    def _hosts(self) -> tuple[Host, ...]:
        return self._settings.with_role("database", "standby")

    def _known(self, name: str, states: Mapping[str, ServerState]) -> ServerState:
        if name not in states:
            raise ReleaseError(
                f"--host must be one of {', '.join(states)}, which have PostgreSQL, not {name[:60]}"
            )
        return states[name]

    def _state(self, name: str) -> ServerState:
        shell = self._shells[name]
        try:
            code, said = shell.run(["pg_lsclusters", "--no-header"], shown=False)
        except ReleaseError:
            return ServerState(name, reached=False)
        if code not in {0, _NOT_INSTALLED}:  # a full disk, for example: PostgreSQL may run all the same
            return ServerState(name, reached=False)
        found = [line.split() for line in said.splitlines()]
        clusters = sorted(
            (float(words[0]), words) for words in found if len(words) > 5 and words[1] == "main"
        )
        if not clusters:
            return ServerState(name)
        words = clusters[-1][1]
        state = ServerState(name, version=words[0], data=words[5])
        code, row = shell.run([*_AS_POSTGRES, *_psql(_QUERY)], shown=False)
        if code:
            return state
        follows, system, received, replayed, behind, heard, newest_change, timeline = row.strip("\n").split(
            "|"
        )
        return ServerState(
            name,
            version=words[0],
            data=words[5],
            online=True,
            follows=follows == "t",
            system=system,
            received=int(received),
            replayed=int(replayed),
            behind=int(behind) if behind else None,
            heard=int(heard) if heard else None,
            newest_change=newest_change,
            timeline=int(timeline),
        )

    def _fence(self, old: ServerState) -> None:
        # First the file: should this end here, a start makes no second primary.
        signal = f"{old.data}/standby.signal"
        owner = ("-o", "postgres", "-g", "postgres", "-m", "600")
        self._must(old.host, ["install", *owner, "/dev/null", signal])
        self._must(old.host, ["systemctl", "stop", old.unit])

    def _last_position(self, old: ServerState, system: str) -> int:
        """Return the position of the last change of a server that was stopped in order; 0 if it was not.

        Also 0 if its cluster is another one.
        """
        program = f"/usr/lib/postgresql/{old.version}/bin/pg_controldata"
        _, said = self._shells[old.host].run(["env", "LANG=C", program, "-D", old.data], shown=False)
        facts = {
            key.strip(): value.strip()
            for key, _, value in (line.partition(":") for line in said.splitlines())
        }
        if (facts.get("Database cluster state"), facts.get("Database system identifier")) != (
            "shut down",
            system,
        ):
            return 0
        high, _, low = facts["Latest checkpoint location"].partition("/")
        return (int(high, 16) << 32) + int(low, 16)

    def _wait_for(self, name: str, position: int) -> None:
        for _ in range(_PATIENCE):
            if self._state(name).newest >= position:
                return
            self._pause(1)
        raise ReleaseError(
            f"{name} lacks changes of the former primary, which is stopped and fenced. To go back, delete "
            "standby.signal in its data and start it; to lose them, repeat the command with --lose-changes"
        )

    def _make_slot(self, primary: str, name: str) -> None:
        slot = _slot(name)
        sql = (
            f"SELECT pg_create_physical_replication_slot('{slot}', true) WHERE NOT EXISTS "  # noqa: S608 - a slug
            f"(SELECT FROM pg_replication_slots WHERE slot_name = '{slot}')"
        )
        # One that was invalidated, because it needed more than may be kept, keeps nothing.
        lost = (
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "  # noqa: S608 - a slug
            f"WHERE slot_name = '{slot}' AND NOT active AND wal_status = 'lost'"
        )
        self._query(primary, lost)
        self._query(primary, sql)

    def _query(self, name: str, sql: str) -> str:
        return self._must(name, [*_AS_POSTGRES, *_psql(sql)]).strip()

    def _must(self, name: str, words: Sequence[str]) -> str:
        code, said = self._shells[name].run(list(words), shown=False)
        if code:
            raise ReleaseError(f"{name}: {' '.join(words)[:200]} ended with {code}")
        return said


def _newer(state: ServerState, primaries: Sequence[ServerState]) -> str:
    """Return the host that has taken over from a primary: the one with the newest timeline of the same cluster."""
    others = [other for other in primaries if other.system == state.system]
    newest = max(others, key=lambda other: other.timeline, default=state)
    return newest.host if state.is_primary and newest.timeline > state.timeline else ""


def standby_mark(settings: Settings) -> Path:
    """Return the file that says that the cluster of a standby is a copy, and may be started."""
    return Path(settings.paths.config) / "standby.made"


def may_start(settings: Settings, data: Path) -> str:
    """Return why PostgreSQL must not start here: another host takes writes. Empty if it may.

    A server that cannot be reached is taken to be off: else the last of them could never start.

    Args:
        settings: settings as seen from this host.
        data: folder of the cluster.
    """
    if (data / "standby.signal").exists():
        return ""
    import psycopg

    others = [host for host in settings.with_role("database", "standby") if host is not settings.here]
    for host in others:
        try:
            with psycopg.connect(
                f"{replication_connection(settings, host.address)} dbname=postgres "
                "target_session_attrs=read-write"
            ):
                return f"{host.name} is the primary: mks-deploy database standby --host {_own_name(settings)}"
        except psycopg.OperationalError:
            continue
    return ""


def account_statements(settings: Settings, password: str, replication: str) -> str:
    """Return statements that make the accounts of the application and of standbys, and set their passwords.

    Only what SCRAM-SHA-256 (RFC 5802, RFC 7677) derives from a password is in them: statements may be logged.
    """
    made = []
    for account, rights, secret in (
        (settings.name, "LOGIN CREATEDB", password),
        ("replicator", "LOGIN REPLICATION", replication),
    ):
        made.append(
            f"SELECT 'CREATE ROLE \"{account}\" {rights}' WHERE NOT EXISTS "  # noqa: S608 - slugs
            f"(SELECT FROM pg_roles WHERE rolname = '{account}') \\gexec\n"
            f"ALTER ROLE \"{account}\" PASSWORD '{_scram(secret)}';\n"
        )
    return "".join(made)


def _scram(password: str) -> str:
    salt, rounds = secrets.token_bytes(16), 4096
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)

    def key(name: bytes) -> bytes:
        return hmac.digest(salted, name, "sha256")

    stored = hashlib.sha256(key(b"Client Key")).digest()
    parts = [base64.b64encode(part).decode() for part in (salt, stored, key(b"Server Key"))]
    return f"SCRAM-SHA-256${rounds}:{parts[0]}${parts[1]}:{parts[2]}"


def _own_name(settings: Settings) -> str:
    return settings.here.name if settings.here else ""


def _slot(name: str) -> str:
    return name.replace("-", "_")


def _psql(sql: str) -> tuple[str, ...]:
    return ("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-c", " ".join(sql.split()))


def replication_connection(settings: Settings, address: str, *, connect_timeout: int = 5) -> str:
    """Return the parameters by which a server reaches another one, as the account for replication.

    Args:
        settings: settings of the deployment.
        address: address of the other server.
        connect_timeout: seconds that it may take.
    """
    config = settings.paths.config
    return (
        f"host={address} port=5432 user=replicator passfile={config}/replication.pgpass sslmode=verify-full "
        f"sslrootcert={config}/{STORES_CERTIFICATE} connect_timeout={connect_timeout}"
    )


def _base_backup(settings: Settings, new: ServerState, address: str) -> tuple[str, ...]:
    return (
        "pg_basebackup",
        f"--pgdata={new.data}.new",
        f"--slot={_slot(new.host)}",
        "--wal-method=stream",
        "--checkpoint=fast",
        "--write-recovery-conf",
        "--no-password",
        f"--dbname={replication_connection(settings, address)} application_name={_slot(new.host)}",
    )

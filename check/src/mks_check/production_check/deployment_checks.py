"""Checks of systemd, logrotate, Redis, PostgreSQL and containers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Final, cast

from mks_check.production_check.check_definition import CheckGroup
from mks_check.production_check.config_files import KeyValueFile, SystemdUnit
from mks_check.production_check.facts import Facts
from mks_check.production_check.finding import Evidence
from mks_check.production_check.nginx_checks import files_of
from mks_check.production_check.values import as_integer
from mks_hardening._core.redaction.secret_names import ends_in_secret

__all__ = ["GROUP"]

GROUP: Final = CheckGroup("files")

_SYSTEMD: Final = "https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html"
_REDIS: Final = "https://redis.io/docs/latest/operate/oss_and_stack/management/"
_POSTGRESQL: Final = "https://www.postgresql.org/docs/current/"
_DOCKER: Final = "https://cheatsheetseries.owasp.org/cheatsheets/Docker_Security_Cheat_Sheet.html"
_LOGROTATE: Final = "https://man7.org/linux/man-pages/man8/logrotate.8.html"
_SERVER: Final = re.compile(
    r"(?:^|[/ ])(?:gunicorn|uvicorn|hypercorn|granian|daphne|waitress-serve|celery|uwsgi)\b"
)
_DEVELOPMENT: Final = re.compile(
    r"\bflask\b.*\brun\b|\bmanage\.py\s+runserver\b|\s--reload\b|\s--debug\b|\bfastapi\s+dev\b"
)
_SANDBOX: Final = ("NoNewPrivileges", "ProtectSystem", "ProtectHome", "PrivateTmp")
_DATABASE_PORTS: Final = "5432|3306|6379|27017|11211|5672|9200"
_SECRET_LINE: Final = re.compile(r"^\s*-?\s*([A-Za-z_][A-Za-z0-9_]*)\s*[:=]\s*['\"]?([^'\"\s#]+)")


def _line(unit: SystemdUnit, name: str) -> int:
    found = unit.values(name)
    return found[-1][1] if found else 1


def _servers(facts: Facts) -> Iterator[SystemdUnit]:
    for unit in files_of(facts).units:
        if _SERVER.search(unit.command) or _DEVELOPMENT.search(unit.command):
            yield unit


@GROUP.register(
    "MKS-DEP-040",
    "error",
    en=("The application runs as root.", "Set `User=` to an account of its own, or `DynamicUser=yes`."),
    ja=(
        "アプリケーションが root で動いています。",
        "`User=` に専用アカウントを指定するか、`DynamicUser=yes` を設定してください。",
    ),
    link=_SYSTEMD,
)
def unit_as_root(facts: Facts) -> Iterator[Evidence]:
    """Report units of servers without an account."""
    for unit in _servers(facts):
        if unit.value("User") in {"", "root", "0"} and unit.value("DynamicUser").lower() not in {
            "yes",
            "true",
            "1",
            "on",
        }:
            text = f"User={unit.value('User')}" if unit.value("User") else "User= is not set"
            yield Evidence(text=text, key="User", file=unit.path, line=_line(unit, "User"))


@GROUP.register(
    "MKS-DEP-041",
    "error",
    en=(
        "A secret stands in `Environment=`, which every account of the machine can read.",
        "Use `LoadCredential=` and a `…_FILE` variable.",
    ),
    ja=(
        "マシンのすべてのアカウントが読み取れる `Environment=` に、秘密の値が書かれています。",
        "`LoadCredential=` と `…_FILE` 変数を使ってください。",
    ),
    link=_SYSTEMD,
)
def secret_in_unit(facts: Facts) -> Iterator[Evidence]:
    """Report secrets in units, by the names of variables and by passwords in URLs."""
    for unit in files_of(facts).units:
        for value, line in unit.values("Environment"):
            for name, text in re.findall(r"([A-Za-z_][A-Za-z0-9_]*)=([^\s\"']*)", value):
                secret = (ends_in_secret(name) and not name.endswith("_FILE")) or re.search(
                    r"://[^/\s:@]*:[^/\s@]+@", text
                )
                if secret and text:
                    yield Evidence(text=name, key=name, file=unit.path, line=line)


@GROUP.register(
    "MKS-DEP-042",
    "warning",
    en=(
        "The unit is not confined: an attacker inside can write and read far more than the application needs.",
        "Set `NoNewPrivileges=yes`, `ProtectSystem=strict`, `ProtectHome=yes` and `PrivateTmp=yes`; `systemd-analyze security` shows the rest.",
    ),
    ja=(
        "ユニットが隔離されていないため、侵入者はアプリケーションに不要なファイルまで読み書きできます。",
        "`NoNewPrivileges=yes`、`ProtectSystem=strict`、`ProtectHome=yes`、`PrivateTmp=yes` を設定してください。残りは `systemd-analyze security` で確認できます。",
    ),
    link=_SYSTEMD,
)
def no_sandbox(facts: Facts) -> Iterator[Evidence]:
    """Report missing settings of the sandbox."""
    for unit in _servers(facts):
        missing = [name for name in _SANDBOX if unit.value(name).lower() in {"", "no", "false", "0", "off"}]
        if missing:
            yield Evidence(text=", ".join(missing), key="sandbox", file=unit.path, line=1)


@GROUP.register(
    "MKS-DEP-043",
    "warning",
    en=("The service stays down after a crash.", "`Restart=always` (or `on-failure`) and `RestartSec=2`."),
    ja=(
        "サービスが異常終了した後、自動で再起動しません。",
        "`Restart=always`（または `on-failure`）と `RestartSec=2` を設定してください。",
    ),
    link="https://www.freedesktop.org/software/systemd/man/latest/systemd.service.html",
)
def no_restart(facts: Facts) -> Iterator[Evidence]:
    """Report servers that are not restarted."""
    for unit in _servers(facts):
        if unit.value("Restart") in {"", "no"} and unit.value("Type") != "oneshot":
            yield Evidence(text="Restart= is not set", key="Restart", file=unit.path, line=1)


@GROUP.register(
    "MKS-DEP-044",
    "error",
    en=(
        "A server for development serves users.",
        "Start gunicorn, uvicorn or another server for production, without `--reload` and `--debug`.",
    ),
    ja=(
        "開発用サーバーで利用者にサービスを提供しています。",
        "gunicorn や uvicorn などの本番用サーバーを、`--reload` と `--debug` なしで起動してください。",
    ),
    link="https://flask.palletsprojects.com/en/stable/deploying/",
)
def development_server(facts: Facts) -> Iterator[Evidence]:
    """Report development servers in units and Dockerfiles."""
    for unit in files_of(facts).units:
        match = _DEVELOPMENT.search(unit.command)
        if match:
            yield Evidence(
                text=match[0].strip(), key="ExecStart", file=unit.path, line=_line(unit, "ExecStart")
            )
    for path, instructions in files_of(facts).dockerfiles:
        for name, value, line in instructions:
            plain = re.sub(r"[\[\]\",]+", " ", value)
            match = _DEVELOPMENT.search(plain) if name in {"CMD", "ENTRYPOINT"} else None
            if match:
                yield Evidence(text=match[0].strip(), key=name, file=path, line=line)


@GROUP.register(
    "MKS-DEP-045",
    "error",
    en=(
        "A reload ends the server: uvicorn with one process exits at SIGHUP.",
        "Remove `ExecReload=`, or start several workers.",
    ),
    ja=(
        "再読み込みでサーバーが終了します。単一プロセスの uvicorn は SIGHUP で終了します。",
        "`ExecReload=` を削除するか、複数のワーカーで起動してください。",
    ),
    link="https://www.uvicorn.org/deployment/",
)
def reload_ends_server(facts: Facts) -> Iterator[Evidence]:
    """Report a signal that uvicorn does not survive."""
    for unit in files_of(facts).units:
        workers = re.search(r"--workers[= ](\d+)", unit.command)
        several = workers is not None and workers[1] != "1"
        if (
            re.search(r"(?:^|[/ ])uvicorn\b", unit.command)
            and not several
            and "HUP" in unit.value("ExecReload")
        ):
            yield Evidence(
                text=unit.value("ExecReload"),
                key="ExecReload",
                file=unit.path,
                line=_line(unit, "ExecReload"),
            )


@GROUP.register(
    "MKS-DEP-046",
    "note",
    en=("New files of the service can be read by every account.", "`UMask=0027`"),
    ja=(
        "サービスが作成するファイルを、すべてのアカウントが読み取れます。",
        "`UMask=0027` を設定してください。",
    ),
    link=_SYSTEMD,
)
def open_umask(facts: Facts) -> Iterator[Evidence]:
    """Report masks that leave files readable for others."""
    for unit in _servers(facts):
        mask = unit.value("UMask") or "0022"
        if mask[-1:] != "7":
            yield Evidence(text=f"UMask={mask}", key="UMask", file=unit.path, line=_line(unit, "UMask"))


@GROUP.register(
    "MKS-DEP-050",
    "warning",
    en=(
        "`copytruncate` loses lines that are written between copy and cut.",
        "Rename the file: the application opens it again (`create`, without `copytruncate`).",
    ),
    ja=(
        "`copytruncate` では、コピーから切り詰めまでに書かれた行が失われます。",
        "`copytruncate` を削除して `create` を使ってください。アプリケーションはファイルを開き直します。",
    ),
    link=_LOGROTATE,
)
def copytruncate(facts: Facts) -> Iterator[Evidence]:
    """Report ``copytruncate``."""
    for rule in files_of(facts).rules:
        if "copytruncate" in rule.directives:
            yield Evidence(text=" ".join(rule.patterns), key="copytruncate", file=rule.path, line=rule.line)


@GROUP.register(
    "MKS-DEP-051",
    "error",
    en=(
        "logrotate cannot read the rule: a comment stands behind a directive.",
        "Put each comment on a line of its own.",
    ),
    ja=(
        "ディレクティブの後ろにコメントがあるため、logrotate はこの規則を読み取れません。",
        "コメントは独立した行に書いてください。",
    ),
    link=_LOGROTATE,
)
def comment_behind_directive(facts: Facts) -> Iterator[Evidence]:
    """Report comments on the line of a directive."""
    for rule in files_of(facts).rules:
        for line in rule.comments[:1]:
            yield Evidence(
                text=" ".join(rule.patterns), key=" ".join(rule.patterns), file=rule.path, line=line
            )


@GROUP.register(
    "MKS-DEP-052",
    "note",
    en=("A log is rotated by time only, so one bad day can fill the disk.", "Add `maxsize 200M`."),
    ja=(
        "ログを時間だけでローテーションしているため、大量の出力でディスクが満杯になることがあります。",
        "`maxsize 200M` を追加してください。",
    ),
    link=_LOGROTATE,
)
def no_size(facts: Facts) -> Iterator[Evidence]:
    """Report rules without a size."""
    for rule in files_of(facts).rules:
        if not {"maxsize", "size"} & rule.directives.keys():
            yield Evidence(
                text=" ".join(rule.patterns), key=" ".join(rule.patterns), file=rule.path, line=rule.line
            )


@GROUP.register(
    "MKS-DEP-053",
    "warning",
    en=("A log file is never rotated.", "Add a rule of logrotate, or set `MKS_LOG_MAX_BYTES`."),
    ja=(
        "ローテーションされないログファイルがあります。",
        "logrotate の規則を追加するか、`MKS_LOG_MAX_BYTES` を設定してください。",
    ),
    link=_LOGROTATE,
)
def never_rotated(facts: Facts) -> Iterator[Evidence]:
    """Report files of the application and of gunicorn that no rule names."""
    files = files_of(facts)
    patterns = [pattern for rule in files.rules for pattern in rule.patterns]
    named: list[tuple[str, str, int]] = []
    settings = facts.settings
    if (
        settings is not None
        and settings.hardening.logging.max_bytes is None
        and settings.hardening.logging.file
    ):
        named.append((settings.hardening.logging.file, settings.file, settings.lines.get("MKS_LOG_FILE", 0)))
    for file in files.gunicorn:
        for name in ("accesslog", "errorlog"):
            named += [
                (path, file.path, file.lines.get(name, 0))
                for path in file.texts(name)
                if path.startswith("/")
            ]
    for path, where, line in named:
        if not any(fnmatch(path, pattern) for pattern in patterns):
            yield Evidence(text=path, key=path, file=where, line=line)


@GROUP.register(
    "MKS-DEP-060",
    "error",
    en=(
        "Redis accepts commands from the network without a password.",
        "Bind it to a Unix socket or loopback, or set `requirepass` or an ACL file.",
    ),
    ja=(
        "Redis がネットワークからのコマンドをパスワードなしで受け付けます。",
        "Unix ソケットかループバックで待ち受けるか、`requirepass` または ACL ファイルを設定してください。",
    ),
    link=_REDIS + "security/",
)
def open_redis(facts: Facts) -> Iterator[Evidence]:
    """Report TCP ports beyond loopback without authentication."""
    for file in files_of(facts).redis:
        if file.values.get("port", "6379") == "0" or {"requirepass", "aclfile", "user"} & file.values.keys():
            continue
        addresses = file.values.get("bind", "127.0.0.1").replace("-::1", "").split()
        remote = [each for each in addresses if each not in {"127.0.0.1", "::1", "localhost"}]
        if remote or file.values.get("protected-mode") == "no":
            yield _of(file, "bind" if remote else "protected-mode", f"bind {' '.join(addresses)}")


@GROUP.register(
    "MKS-DEP-061",
    "error",
    en=(
        "Redis keeps data on disk and may evict it all the same: sessions, limits and tasks vanish when memory is short.",
        "`maxmemory-policy noeviction` here, and a second Redis for the cache.",
    ),
    ja=(
        "永続化している Redis が、メモリー不足時にセッション、レート制限、タスクを削除します。",
        "`maxmemory-policy noeviction` を設定し、キャッシュには別の Redis を使ってください。",
    ),
    link=_REDIS + "config/",
)
def evicted_sessions(facts: Facts) -> Iterator[Evidence]:
    """Report eviction together with persistence."""
    for file in files_of(facts).redis:
        policy = file.values.get("maxmemory-policy", "noeviction")
        if policy != "noeviction" and _persists(file):
            yield _of(file, "maxmemory-policy", f"maxmemory-policy {policy}")


@GROUP.register(
    "MKS-DEP-062",
    "warning",
    en=("Redis may use all memory of the machine.", "Set `maxmemory`."),
    ja=("Redis のメモリー使用量に上限がありません。", "`maxmemory` を設定してください。"),
    link=_REDIS + "config/",
)
def unlimited_redis(facts: Facts) -> Iterator[Evidence]:
    """Report Redis without ``maxmemory``."""
    for file in files_of(facts).redis:
        if file.values.get("maxmemory", "0") == "0":
            yield _of(file, "maxmemory", "maxmemory is not set")


@GROUP.register(
    "MKS-DEP-063",
    "warning",
    en=(
        "A restart of Redis signs everybody out and loses tasks: nothing is kept on disk.",
        "`appendonly yes`; a cache alone may go without (`maxmemory-policy allkeys-lru`).",
    ),
    ja=(
        "Redis を再起動するとセッションとタスクが失われます。ディスクに何も保存していません。",
        "`appendonly yes` を設定してください。キャッシュ専用なら不要です（`maxmemory-policy allkeys-lru`）。",
    ),
    link=_REDIS + "persistence/",
)
def forgetful_redis(facts: Facts) -> Iterator[Evidence]:
    """Report Redis that evicts nothing and persists nothing."""
    for file in files_of(facts).redis:
        if not _persists(file) and file.values.get("maxmemory-policy", "noeviction") == "noeviction":
            yield _of(file, "appendonly", 'appendonly no, save ""')


def _persists(file: KeyValueFile) -> bool:
    if file.values.get("appendonly") == "yes":
        return True
    return file.values.get("save", "3600 1") not in {'""', "''", ""}


def _of(file: KeyValueFile, name: str, text: str) -> Evidence:
    return Evidence(text=text, key=name, file=file.path, line=file.lines.get(name, 1))


@GROUP.register(
    "MKS-DEP-065",
    "error",
    en=(
        "PostgreSQL accepts unencrypted connections from other machines.",
        "`ssl = on` and `hostssl` in pg_hba.conf, or `listen_addresses = ''` on one machine.",
    ),
    ja=(
        "PostgreSQL が他のマシンからの暗号化されていない接続を受け付けます。",
        "`ssl = on` と pg_hba.conf の `hostssl` を設定するか、1台構成なら `listen_addresses = ''` にしてください。",
    ),
    link=_POSTGRESQL + "ssl-tcp.html",
)
def unencrypted_postgresql(facts: Facts) -> Iterator[Evidence]:
    """Report public addresses without TLS."""
    for file in files_of(facts).postgresql:
        addresses = file.values.get("listen_addresses", "localhost")
        local = {"", "localhost", "127.0.0.1", "::1"}
        remote = [each.strip() for each in addresses.split(",") if each.strip() not in local]
        if remote and file.values.get("ssl", "off") not in {"on", "true", "yes", "1"}:
            yield _of(file, "listen_addresses", f"listen_addresses {addresses}, ssl is off")


@GROUP.register(
    "MKS-DEP-066",
    "warning",
    en=(
        "A statement or an open transaction may hold locks for ever.",
        "Set `statement_timeout`, `lock_timeout` and `idle_in_transaction_session_timeout`.",
    ),
    ja=(
        "SQL 文や開いたままのトランザクションが、ロックを無期限に保持できます。",
        "`statement_timeout`、`lock_timeout`、`idle_in_transaction_session_timeout` を設定してください。",
    ),
    link=_POSTGRESQL + "runtime-config-client.html",
)
def endless_statements(facts: Facts) -> Iterator[Evidence]:
    """Report missing limits of the server."""
    names = ("statement_timeout", "idle_in_transaction_session_timeout")
    for file in files_of(facts).postgresql:
        missing = [name for name in names if file.values.get(name, "0") in {"0", ""}]
        if missing:
            yield _of(file, missing[0], ", ".join(missing))


@GROUP.register(
    "MKS-DEP-067",
    "error",
    en=(
        "PostgreSQL lets clients of the network in without a password, or with one that can be read on the way.",
        "`scram-sha-256` over `hostssl`.",
    ),
    ja=(
        "PostgreSQL がネットワークからの接続を、パスワードなしか盗聴されうる方式で許可しています。",
        "`hostssl` と `scram-sha-256` を使ってください。",
    ),
    link=_POSTGRESQL + "auth-pg-hba-conf.html",
)
def weak_pg_hba(facts: Facts) -> Iterator[Evidence]:
    """Report ``trust``, ``password`` and ``md5`` for connections over TCP beyond loopback."""
    for file in files_of(facts).pg_hba:
        for kind, rest, line in file.all:
            words = rest.split()
            loopback = any(word.startswith(("127.", "::1", "localhost", "samehost")) for word in words)
            weak = {"trust", "password", "md5"} & set(words[2:])
            if kind.startswith("host") and weak and not (loopback and "trust" not in weak):
                yield Evidence(text=f"{kind} {rest}", key=rest, file=file.path, line=line)


@GROUP.register(
    "MKS-DEP-068",
    "error",
    en=(
        "The pools of all workers may open more connections than the database allows, counted twice for a release.",
        "Use `hardened_engine` with `MKS_DB_MAX_CONNECTIONS`, or make pool and overflow smaller.",
    ),
    ja=(
        "全ワーカーの接続プールの合計が、データベースの上限を超えることがあります（リリース時は新旧の2倍）。",
        "`hardened_engine` と `MKS_DB_MAX_CONNECTIONS` を使うか、プールとオーバーフローを小さくしてください。",
    ),
    link="https://docs.sqlalchemy.org/en/20/core/pooling.html",
    reads=("application",),
)
def too_many_connections(facts: Facts) -> Iterator[Evidence]:
    """Multiply the pool with workers and two generations."""
    application = facts.application
    options: object = application.config.get("SQLALCHEMY_ENGINE_OPTIONS") if application else None
    if not isinstance(options, dict):
        return
    given = cast("dict[object, object]", options)
    if not {"pool_size", "max_overflow"} & given.keys():
        return
    pool = (as_integer(given.get("pool_size")) or 5) + _or(as_integer(given.get("max_overflow")), 10)
    files = files_of(facts)
    workers = max((count for file in files.gunicorn if (count := file.integer("workers"))), default=0)
    if not workers and facts.settings is not None:
        workers = facts.settings.hardening.db.workers
    limits = [as_integer(file.values.get("max_connections")) for file in files.postgresql]
    known = [limit for limit in limits if limit] or [100]
    needed = pool * max(workers, 1) * 2
    if needed > min(known) - 3:
        text = (
            f"pool {pool} x {max(workers, 1)} workers x 2 generations = {needed} > {min(known)} - 3 reserved"
        )
        yield Evidence(text=text, key="SQLALCHEMY_ENGINE_OPTIONS")


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


@GROUP.register(
    "MKS-DEP-069",
    "error",
    en=(
        "`MKS_DB_MAX_CONNECTIONS` is more than PostgreSQL allows.",
        "Set it to `max_connections` minus the reserved ones and those of tasks and operators.",
    ),
    ja=(
        "`MKS_DB_MAX_CONNECTIONS` が PostgreSQL の上限を超えています。",
        "`max_connections` から予約分、タスク、運用者の分を引いた数を設定してください。",
    ),
    link=_POSTGRESQL + "runtime-config-connection.html",
    reads=("settings",),
)
def more_than_allowed(facts: Facts) -> Iterator[Evidence]:
    """Compare the setting with postgresql.conf."""
    settings = facts.settings
    planned = settings.hardening.db.max_connections if settings else None
    for file in files_of(facts).postgresql:
        allowed = as_integer(file.values.get("max_connections"))
        reserved = _or(as_integer(file.values.get("superuser_reserved_connections")), 3)
        if planned is not None and allowed is not None and planned > allowed - reserved:
            yield _of(file, "max_connections", f"MKS_DB_MAX_CONNECTIONS={planned} > {allowed} - {reserved}")


@GROUP.register(
    "MKS-DEP-070",
    "error",
    en=("The image runs as root.", "End the Dockerfile with `USER` and a number other than 0."),
    ja=("イメージが root で動きます。", "Dockerfile の最後で `USER` に0以外の番号を指定してください。"),
    link=_DOCKER,
)
def image_as_root(facts: Facts) -> Iterator[Evidence]:
    """Report Dockerfiles whose last stage has no account."""
    for path, instructions in files_of(facts).dockerfiles:
        user, line = "", 1
        for name, value, number in instructions:
            if name == "FROM":
                user, line = ("nonroot" if "nonroot" in value else ""), number
            elif name == "USER":
                user, line = value, number
        if user.partition(":")[0] in {"", "root", "0"}:
            yield Evidence(text=f"USER {user}" if user else "no USER", key="USER", file=path, line=line)


@GROUP.register(
    "MKS-DEP-071",
    "error",
    en=(
        "A secret becomes part of the image: whoever has the image has it.",
        "Mount it while it is needed (`RUN --mount=type=secret`), and give it to the container as a file.",
    ),
    ja=(
        "秘密の値がイメージに残ります。イメージを入手した人は誰でも読み取れます。",
        "必要なときだけマウントし（`RUN --mount=type=secret`）、コンテナーにはファイルとして渡してください。",
    ),
    link=_DOCKER,
)
def secret_in_image(facts: Facts) -> Iterator[Evidence]:
    """Report secrets in ``ENV`` and ``ARG``, and copied environment files."""
    for path, instructions in files_of(facts).dockerfiles:
        for name, value, line in instructions:
            if name in {"ENV", "ARG"}:
                pairs = re.findall(r"([A-Za-z_][A-Za-z0-9_]*)(?:=|\s+)(\S+)", value)
                for variable, text in pairs:
                    if (
                        ends_in_secret(variable)
                        and not variable.endswith("_FILE")
                        and text not in {'""', "''"}
                    ):
                        yield Evidence(text=f"{name} {variable}", key=variable, file=path, line=line)
            if name in {"COPY", "ADD"} and re.search(r"(?:^|[/\s])(?:\.env|id_rsa|secrets?)(?:\s|$)", value):
                yield Evidence(text=f"{name} {value}", key=value, file=path, line=line)


@GROUP.register(
    "MKS-DEP-072",
    "warning",
    en=("Nothing notices that the container does not answer.", "Add `HEALTHCHECK`."),
    ja=("コンテナーが応答しなくなっても検知されません。", "`HEALTHCHECK` を追加してください。"),
    link="https://docs.docker.com/reference/dockerfile/#healthcheck",
)
def no_healthcheck(facts: Facts) -> Iterator[Evidence]:
    """Report Dockerfiles that start something without ``HEALTHCHECK``."""
    for path, instructions in files_of(facts).dockerfiles:
        names = {name for name, _, _ in instructions}
        if {"CMD", "ENTRYPOINT"} & names and "HEALTHCHECK" not in names:
            yield Evidence(text="no HEALTHCHECK", key="HEALTHCHECK", file=path, line=1)


@GROUP.register(
    "MKS-DEP-074",
    "error",
    en=(
        "A container can take over its host.",
        "Remove `privileged`, the socket of Docker and the namespaces of the host.",
    ),
    ja=(
        "コンテナーからホストを乗っ取ることができます。",
        "`privileged`、Docker のソケット、ホストの名前空間の共有を削除してください。",
    ),
    link=_DOCKER,
)
def privileged_container(facts: Facts) -> Iterator[Evidence]:
    """Report privileges in compose files and manifests."""
    pattern = re.compile(
        r"^\s*-?\s*(?:privileged:\s*true|(?:network_mode|pid|ipc):\s*[\"']?host|host(?:Network|PID|IPC):\s*true"
        r"|.*docker\.sock|.*hostPath:|.*SYS_ADMIN)"
    )
    for path, lines in files_of(facts).compose:
        for text, number in lines:
            if not text.lstrip().startswith("#") and pattern.match(text):
                yield Evidence(text=text.strip(), key=text.strip(), file=path, line=number)


@GROUP.register(
    "MKS-DEP-075",
    "error",
    en=(
        "A database port is published: Docker opens it to everybody, whatever the firewall of the host says.",
        "Remove the port, or publish it on loopback: `127.0.0.1:5432:5432`.",
    ),
    ja=(
        "データベースのポートが公開されています。Docker はホストのファイアウォールに関係なくポートを開きます。",
        "ポートの公開をやめるか、`127.0.0.1:5432:5432` のようにループバックだけに公開してください。",
    ),
    link="https://docs.docker.com/engine/network/packet-filtering-firewalls/",
)
def published_database(facts: Facts) -> Iterator[Evidence]:
    """Report published ports of databases and stores."""
    pattern = re.compile(
        rf"(?:^|[\s\[,\"'-])(?:0\.0\.0\.0:)?\d{{2,5}}:(?:{_DATABASE_PORTS})(?:/tcp)?(?=[\"'\s,\]]|$)"
    )
    for path, lines in files_of(facts).compose:
        for text, number in lines:
            match = None if text.lstrip().startswith("#") else pattern.search(text)
            if match and "127.0.0.1" not in text:
                yield Evidence(text=text.strip(), key=text.strip(), file=path, line=number)


@GROUP.register(
    "MKS-DEP-076",
    "error",
    en=(
        "A secret stands in a compose file or manifest.",
        "Use `secrets:` and a `…_FILE` variable, or a Secret of the cluster.",
    ),
    ja=(
        "compose ファイルまたはマニフェストに秘密の値が書かれています。",
        "`secrets:` と `…_FILE` 変数、またはクラスターの Secret を使ってください。",
    ),
    link=_DOCKER,
)
def secret_in_compose(facts: Facts) -> Iterator[Evidence]:
    """Report literal values of variables whose name is that of a secret."""
    for path, lines in files_of(facts).compose:
        for text, number in lines:
            match = _SECRET_LINE.match(text)
            if match is None or not match[1].isupper() or match[1].endswith("_FILE"):
                continue
            if ends_in_secret(match[1]) and not match[2].startswith(("$", "{", "[", "/run/secrets")):
                yield Evidence(text=match[1], key=match[1], file=path, line=number)

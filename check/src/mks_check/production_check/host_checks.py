"""Checks of the machine that the application runs on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mks_check.production_check.check_definition import CheckGroup
from mks_check.production_check.facts import Facts
from mks_check.production_check.finding import Evidence
from mks_check.production_check.host_facts import HostFacts
from mks_check.production_check.known_weaknesses import AS_OF, known_weakness

__all__ = ["GROUP"]

GROUP: Final = CheckGroup("host")

_OWASP: Final = "https://cheatsheetseries.owasp.org/cheatsheets/"
_DATABASES: Final = {
    3306: "MySQL",
    5432: "PostgreSQL",
    6379: "Redis",
    11211: "memcached",
    27017: "MongoDB",
    5672: "AMQP",
    9200: "Elasticsearch",
}
_END_OF_LIFE: Final = (3, 10)  # the newest line whose support ended (October 2026)
_LARGE: Final = 1024**3


def _host(facts: Facts) -> HostFacts:
    assert facts.host is not None  # noqa: S101 - the runner has looked at CheckDefinition.reads
    return facts.host


@GROUP.register(
    "MKS-HOST-001",
    "warning",
    en=(
        "The clock is not synchronised: codes of second factors, sessions and certificates depend on it.",
        "Enable systemd-timesyncd or chrony.",
    ),
    ja=(
        "時計が同期していません。二段階認証のコード、セッション、証明書は時刻に依存します。",
        "systemd-timesyncd か chrony を有効にしてください。",
    ),
    link="https://www.freedesktop.org/software/systemd/man/latest/systemd-timesyncd.service.html",
)
def clock(facts: Facts) -> Iterator[Evidence]:
    """Report a clock that the kernel calls unsynchronised."""
    if _host(facts).synchronised is False:
        yield Evidence(text="the kernel reports an unsynchronised clock", key="clock")


@GROUP.register(
    "MKS-HOST-002",
    "error",
    en=(
        "Other accounts can read a file with secrets.",
        "`chmod 640` or stricter, owned by root and the group of the service.",
    ),
    ja=(
        "秘密の値を含むファイルを、ほかのアカウントが読み取れます。",
        "所有者を root とサービスのグループにし、`chmod 640` 以下にしてください。",
    ),
    link=_OWASP + "Secrets_Management_Cheat_Sheet.html",
)
def readable_secret(facts: Facts) -> Iterator[Evidence]:
    """Report modes with rights for others."""
    for path, mode in _host(facts).modes.items():
        if mode & 0o007:
            yield Evidence(text=f"{path} has mode {mode:04o}", key=path, file=path)


@GROUP.register(
    "MKS-HOST-003",
    "error",
    en=("Every account can change a configuration file.", "`chmod o-w`"),
    ja=("設定ファイルを、すべてのアカウントが変更できます。", "`chmod o-w` を実行してください。"),
    link=_OWASP + "Secure_Product_Design_Cheat_Sheet.html",
)
def writable_configuration(facts: Facts) -> Iterator[Evidence]:
    """Report modes with write access for others."""
    for path, mode in _host(facts).writable.items():
        if mode & 0o002:
            yield Evidence(text=f"{path} has mode {mode:04o}", key=path, file=path)


@GROUP.register(
    "MKS-HOST-004",
    "error",
    en=("A package has a known weakness.", "Update it; `pip-audit` finds more than this small table."),
    ja=(
        "既知の脆弱性があるパッケージがインストールされています。",
        "更新してください。`pip-audit` を使うと、この小さな一覧より多くの問題を検出できます。",
    ),
    link="https://osv.dev/list?ecosystem=PyPI",
)
def weak_versions(facts: Facts) -> Iterator[Evidence]:
    """Report versions before the fix, with the age of the table."""
    for package, version in _host(facts).packages.items():
        weakness = known_weakness(package, version)
        if weakness:
            yield Evidence(text=f"{weakness} (table of {AS_OF})", key=package)


@GROUP.register(
    "MKS-HOST-005",
    "warning",
    en=("This version of Python gets no security fixes any more.", "Use a maintained version."),
    ja=(
        "この Python のバージョンには、もうセキュリティ修正が提供されません。",
        "保守されているバージョンを使ってください。",
    ),
    link="https://devguide.python.org/versions/",
)
def old_python(facts: Facts) -> Iterator[Evidence]:
    """Report versions after their end of life."""
    version = _host(facts).python
    if version and version[:2] <= _END_OF_LIFE:
        yield Evidence(text=f"Python {'.'.join(map(str, version))}", key="python")


@GROUP.register(
    "MKS-HOST-006",
    "error",
    en=(
        "A package that the settings need is not installed.",
        'Install the extra: `pip install "mks-hardening[…]"`.',
    ),
    ja=(
        "設定に必要なパッケージがインストールされていません。",
        '`pip install "mks-hardening[…]"` で追加してください。',
    ),
    link="https://packaging.python.org/en/latest/specifications/dependency-specifiers/#extras",
    reads=("settings",),
)
def missing_extras(facts: Facts) -> Iterator[Evidence]:
    """Compare settings with installed distributions."""
    settings = facts.settings
    packages = _host(facts).packages
    if settings is None:
        return
    hardening = settings.hardening
    redis = hardening.core.redis_url or hardening.cache.url or hardening.security.rate_limit_url
    needed = [("redis", "cache", bool(redis)), ("sqlalchemy", "db", hardening.db.url is not None)]
    needed += [
        ("cryptography", "security", bool(hardening.security.secret_keys)),
        ("requests", "notify", hardening.notify.slack_webhook_url is not None),
    ]
    for package, extra, wanted in needed:
        if wanted and package not in packages:
            yield Evidence(text=f"{package} ({extra})", key=package)


@GROUP.register(
    "MKS-HOST-007",
    "warning",
    en=(
        "Less than a tenth of the disk or of its inodes is free.",
        "Remove what is old: logs, releases, backups.",
    ),
    ja=(
        "ディスクまたは inode の空きが10%を切っています。",
        "古いログ、リリース、バックアップを削除してください。",
    ),
    link=_OWASP + "Logging_Cheat_Sheet.html",
)
def full_disk(facts: Facts) -> Iterator[Evidence]:
    """Report folders with little space."""
    for folder, (space, inodes) in _host(facts).free.items():
        if min(space, inodes) < 0.1:
            yield Evidence(text=f"{folder}: {space:.0%} of the space, {inodes:.0%} of the inodes", key=folder)


@GROUP.register(
    "MKS-HOST-008",
    "warning",
    en=("A log file is larger than 1 GiB: its rotation does not run.", "Look at the timer of logrotate."),
    ja=(
        "ログファイルが1 GiB を超えています。ローテーションが動いていません。",
        "logrotate のタイマーを確認してください。",
    ),
    link="https://man7.org/linux/man-pages/man8/logrotate.8.html",
)
def large_log(facts: Facts) -> Iterator[Evidence]:
    """Report large files."""
    for path, size in _host(facts).large_logs.items():
        if size > _LARGE:
            yield Evidence(text=f"{path}: {size / _LARGE:.1f} GiB", key=path, file=path)


@GROUP.register(
    "MKS-HOST-009",
    "error",
    en=("A database listens on every address.", "Bind it to a Unix socket or to 127.0.0.1."),
    ja=(
        "データベースがすべてのアドレスで待ち受けています。",
        "Unix ソケットか 127.0.0.1 で待ち受けてください。",
    ),
    link=_OWASP + "Database_Security_Cheat_Sheet.html",
)
def open_database(facts: Facts) -> Iterator[Evidence]:
    """Report ports of databases on 0.0.0.0 and [::]."""
    for port in _host(facts).listening:
        if port in _DATABASES:
            yield Evidence(text=f"{_DATABASES[port]} on port {port}", key=str(port))


@GROUP.register(
    "MKS-HOST-010",
    "error",
    en=(
        "Workers of an application server run as root.",
        "Start them under an account of their own (`User=`).",
    ),
    ja=(
        "アプリケーションサーバーのワーカーが root で動いています。",
        "専用アカウントで起動してください（`User=`）。",
    ),
    link="https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html",
)
def root_worker(facts: Facts) -> Iterator[Evidence]:
    """Report servers whose workers have the user id 0."""
    for name in _host(facts).root_processes:
        yield Evidence(text=name, key=name)


@GROUP.register(
    "MKS-HOST-011",
    "error",
    en=("A secret stands on a command line, which every account can read.", "Read it from a file."),
    ja=(
        "すべてのアカウントが読み取れるコマンドラインに、秘密の値があります。",
        "ファイルから読み込んでください。",
    ),
    link=_OWASP + "Secrets_Management_Cheat_Sheet.html",
)
def secret_argument(facts: Facts) -> Iterator[Evidence]:
    """Report arguments by their names."""
    for command, name in _host(facts).exposed_arguments.items():
        yield Evidence(text=f"{command} --{name}", key=f"{command} {name}")


@GROUP.register(
    "MKS-HOST-012",
    "error",
    en=(
        "The running Redis evicts sessions, limits and tasks when its memory is full.",
        "`CONFIG SET maxmemory-policy noeviction`, and in redis.conf; a cache belongs to a Redis of its own.",
    ),
    ja=(
        "稼働中の Redis が、メモリー不足時にセッション、レート制限、タスクを削除します。",
        "`CONFIG SET maxmemory-policy noeviction` を実行し、redis.conf にも設定してください。キャッシュは別の Redis に分けてください。",
    ),
    link="https://redis.io/docs/latest/develop/reference/eviction/",
)
def evicting_redis(facts: Facts) -> Iterator[Evidence]:
    """Report the policy of the Redis that ``MKS_REDIS_URL`` names."""
    redis = _host(facts).redis or {}
    policy = redis.get("maxmemory-policy", "noeviction")
    if policy != "noeviction" and redis.get("maxmemory", "0") != "0":
        yield Evidence(text=f"maxmemory-policy {policy}", key="maxmemory-policy")


@GROUP.register(
    "MKS-HOST-013",
    "warning",
    en=(
        "The running Redis keeps nothing on disk: a restart signs everybody out and loses tasks.",
        "`appendonly yes`",
    ),
    ja=(
        "稼働中の Redis がディスクに何も保存していないため、再起動でセッションとタスクが失われます。",
        "`appendonly yes` を設定してください。",
    ),
    link="https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/",
)
def forgetful_redis(facts: Facts) -> Iterator[Evidence]:
    """Report Redis without a file of commands and without snapshots."""
    redis = _host(facts).redis
    if redis is not None and redis.get("appendonly") == "no" and not redis.get("save", ""):
        yield Evidence(text='appendonly no, save ""', key="appendonly")


@GROUP.register(
    "MKS-HOST-014",
    "error",
    en=(
        "The running PostgreSQL allows fewer connections than `MKS_DB_MAX_CONNECTIONS` says.",
        "Set the variable to `SHOW max_connections` minus the reserved ones.",
    ),
    ja=(
        "稼働中の PostgreSQL の最大接続数が、`MKS_DB_MAX_CONNECTIONS` の値より小さいです。",
        "`SHOW max_connections` の値から予約分を引いた数を設定してください。",
    ),
    link="https://www.postgresql.org/docs/current/runtime-config-connection.html",
    reads=("settings",),
)
def fewer_connections(facts: Facts) -> Iterator[Evidence]:
    """Compare the setting with the server."""
    allowed = _host(facts).max_connections
    planned = facts.settings.hardening.db.max_connections if facts.settings else None
    if allowed is not None and planned is not None and planned > allowed:
        yield Evidence(
            text=f"MKS_DB_MAX_CONNECTIONS={planned}, max_connections={allowed}", key="max_connections"
        )

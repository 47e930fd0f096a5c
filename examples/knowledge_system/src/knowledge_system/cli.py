"""Command line: ``knowledge-system COMMAND``: a demonstration, and the work of operators."""

from __future__ import annotations

import argparse
import os
import pwd
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import OperationalError

from knowledge_system.console import complain, progress, say
from mks_hardening.exceptions import ConfigurationError, SettingsError

if TYPE_CHECKING:
    from knowledge_system.demo.environment import Ports
    from knowledge_system.settings import AppSettings


_AGAIN: Final = (
    "続きは、別の名前の報告ファイルでもう一度実行してください。/ run again, with another name for the report"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except (SettingsError, ConfigurationError) as error:
        complain(f"設定に誤りがあります / invalid configuration\n{error}")
        return 2
    except OperationalError as error:
        complain(
            f"データベースを使えません / the database cannot be used\n  {str(error.orig).splitlines()[0]}"
        )
        return 4
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="knowledge-system", description="建設土木ナレッジシステム")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text)
        added.set_defaults(run=run)
        return added

    demo = command("demo", _demo, "このパソコンで動かす / run on this machine")
    demo.add_argument("--https-port", type=int, metavar="PORT", help="MKS_DEMO_HTTPS_PORT, 8443")
    demo.add_argument("--http-port", type=int, metavar="PORT", help="MKS_DEMO_HTTP_PORT, 8080")

    walk = command("walkthrough", _walkthrough, "動いているデモを通しで確かめる / run through a running demo")
    walk.add_argument("--url", help="https://localhost:8443")
    walk.add_argument("--http-url", help="http://localhost:8080")
    walk.add_argument("--ca", type=Path, help="DATA/tls/ca.pem")

    seed = command("seed", _seed, "記事を読み込み、増やす / load articles and generate more")
    for each in (demo, seed):
        each.add_argument(
            "--articles",
            type=int,
            default=0,
            metavar="N",
            help="この件数まで増やす / generate up to this number",
        )

    take_over = command(
        "take-over", _take_over, "旧システムとフォルダーから引き継ぐ / take over from old systems and folders"
    )
    take_over.add_argument("mapping", type=Path, help="対応表 (TOML) / mapping file")
    take_over.add_argument("--dry-run", action="store_true", help="何も保存しない / store nothing")
    take_over.add_argument(
        "--report",
        type=Path,
        required=True,
        metavar="FILE",
        help="結果を書く新しいファイル (.csv, .jsonl) / a new file for what became of each",
    )
    take_over.add_argument(
        "--allow-other-user",
        action="store_true",
        help="データの持ち主ではないユーザーで実行する / run as a user who does not own the data",
    )

    tables = command("upgrade", _upgrade, "テーブルを最新の版にする / migrate to the newest revision")
    tables.add_argument(
        "--without-backup",
        metavar="REASON",
        help="本番でバックアップなしに実行する理由 / reason, in production",
    )

    admin = command("create-admin", _create_admin, "最初の管理者を作る / add the first administrator")
    admin.add_argument("username", help="半角の英小文字・数字・._-")
    admin.add_argument("--name", required=True, metavar="NAME", help="氏名 / as shown to others")
    admin.add_argument("--email", default="", metavar="ADDRESS", help="通知の宛先 / address for notices")

    check = command("check", _check, "設定と環境を確かめる / check settings and environment")

    data = Path(os.environ.get("MKS_DATA_DIR") or "var/demo")
    for each in (demo, walk, seed, take_over, tables, admin, check):
        each.add_argument("--data", type=Path, default=data, metavar="DIR", help="MKS_DATA_DIR, var/demo")
    treated = "DATABASE_URL のデータベースをデモとして扱う / treat the database of DATABASE_URL as a demo"
    for each in (seed, take_over, tables, admin, check):
        each.add_argument("--demo", action="store_true", help=treated)

    totp = command("totp", _totp, "二段階認証のコードを表示する / show a TOTP code")
    totp.add_argument("secret", nargs="+", help="設定画面に表示された文字 / the secret shown at enrolment")
    return parser


def _demo(options: argparse.Namespace) -> int:
    from knowledge_system.demo import launcher

    ports = _ports(options.https_port, options.http_port)
    return launcher.run(os.environ, data_dir=options.data, ports=ports, articles=options.articles)


def _walkthrough(options: argparse.Namespace) -> int:
    from knowledge_system.demo import walkthrough

    ports = _ports(None, None)
    return walkthrough.run(
        options.url or f"https://localhost:{ports.https}",
        http_url=options.http_url or f"http://localhost:{ports.http}",
        ca_file=options.ca or options.data / "tls" / "ca.pem",
    )


def _seed(options: argparse.Namespace) -> int:
    from knowledge_system.demo import launcher

    if _names_database() and not options.demo:
        complain(
            "DATABASE_URL は実際のデータベースです。デモ用の利用者を入れるには --demo を付けてください。\n"
            "DATABASE_URL is a real database; everybody knows the password of the users that seed adds. "
            "Give --demo if it is a demonstration."
        )
        return 2
    people, articles = launcher.load_content(_settings(options), time, options.articles)
    say(f"利用者 {people} 名、記事 {articles} 件を追加しました。")
    return 0


def _take_over(options: argparse.Namespace) -> int:
    from knowledge_system import app
    from knowledge_system.domain.problems import Problem, describe
    from knowledge_system.services.attachments.upload_intake import Intake
    from knowledge_system.services.take_over import mapping, report
    from knowledge_system.services.take_over.take_over import TakeOver

    settings, mapped = _settings(options), mapping.read(options.mapping)
    if not options.allow_other_user and (refusal := _other_user(settings.upload_folder)):
        complain(refusal)
        return 2
    with app.open_database(settings) as (engine, search):
        taken = TakeOver(
            mapped,
            sessions=app.session_factory(engine),
            search=search,
            intake=Intake.from_settings(settings),
            clock=time,
            dry_run=options.dry_run,
            four_eyes=settings.four_eyes,
        )
        try:
            counts = report.write(options.report, taken.lines(), progress("引き継ぎ"))
        except Problem as problem:
            complain(f"{describe(problem, language='ja')['detail']}\n{_AGAIN}")
            return 4
        except report.ReportError as error:
            last = (
                "" if error.line is None else f"\n{error.line.kind} {error.line.source}: {error.line.outcome}"
            )
            complain(
                f"{options.report} に書けません / cannot be written: {error.reason}"
                f"{last and f'{last} (報告にない最後の 1 件 / the last one, not in the report)'}\n{_AGAIN}"
            )
            return 4
    say(
        f"{'試行: ' if options.dry_run else ''}追加 {counts['created']} 件、既存 {counts['known']} 件、"
        f"引き継げないもの {counts['skipped']} 件。詳しくは {options.report} を見てください。"
    )
    return 0


def _other_user(folder: Path) -> str:
    """Return why this process should not store files below a folder; empty if it may.

    Files are readable by their owner and group only, so the application could not read those of another user.
    """
    while not folder.exists():
        folder = folder.parent
    owner, own = folder.stat().st_uid, os.geteuid()
    if owner == own:
        return ""
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = f"#{owner}"
    return (
        f"サイトのユーザーで実行してください: {folder} の持ち主は {name} です / "
        f"run as the user of the site ({name}, uid {owner}, not {own}), or give --allow-other-user"
    )


def _upgrade(options: argparse.Namespace) -> int:
    from knowledge_system import app, database
    from knowledge_system.migrations.runner import MigrationError

    settings = _settings(options)
    with app.open_database(settings) as (engine, _):
        try:
            done = database.upgrade(engine, settings, clock=time, without_backup=options.without_backup)
        except MigrationError as error:
            complain(f"テーブルを更新できません / the tables cannot be migrated\n  {error}")
            return 5
    say(f"テーブルを更新しました: {', '.join(done)}" if done else "テーブルは最新です。")
    return 0


def _create_admin(options: argparse.Namespace) -> int:
    from knowledge_system import app
    from knowledge_system.domain import fields
    from knowledge_system.domain.problems import Problem, describe
    from knowledge_system.domain.validation import take
    from knowledge_system.services.identity import accounts

    settings = _settings(options)
    given = {"username": options.username, "display_name": options.name, "email": options.email}
    try:
        values = take({**given, "role": "admin", "password": _typed_password()}, fields.ACCOUNT)
        with app.open_database(settings) as (engine, _), app.session_factory(engine).begin() as session:
            accounts.register(session, **values, now=datetime.now(UTC))
    except Problem as problem:
        described = describe(problem, language="ja")
        errors = [f"{error['field']}: {error['message']}" for error in described.get("errors", [])]
        complain("\n  ".join([described["detail"], *errors]))
        return 2
    say(f"管理者 {options.username} を追加しました。サインインして二段階認証を設定してください。")
    return 0


def _typed_password() -> str:
    """Read a password from the terminal or the first line of stdin; arguments would be visible to every user."""
    if sys.stdin.isatty():
        return getpass("パスワード(12 文字以上): ")
    return sys.stdin.readline().rstrip("\n")


def _check(options: argparse.Namespace) -> int:
    from knowledge_system import configuration_check

    found = list(configuration_check.findings(_settings(options), clock=time))
    for finding in found:
        say(f"{'誤り / error' if finding.error else '注意 / warning'}: {finding.text}")
    if not found:
        say("問題はありません / no problems found")
    return int(any(finding.error for finding in found))


def _totp(options: argparse.Namespace) -> int:
    from mks_hardening.security import totp_code

    try:
        code = totp_code("".join(options.secret))
    except ValueError as error:
        complain(str(error))
        return 2
    say(f"{code}  (あと {30 - int(time.time()) % 30} 秒)")
    return 0


def _names_database() -> bool:
    return bool(os.environ.get("DATABASE_URL") or os.environ.get("DATABASE_URL_FILE"))


def _settings(options: argparse.Namespace) -> AppSettings:
    """Read the environment; use the demo settings with ``--demo``, or if no database is configured."""
    from knowledge_system.demo.environment import demo_environment
    from knowledge_system.settings import AppSettings

    if _names_database() and not options.demo:
        return AppSettings.from_env()
    return AppSettings.from_env(
        demo_environment(os.environ, data_dir=options.data.resolve(), ports=_ports(None, None))
    )


def _ports(https: int | None, http: int | None) -> Ports:
    from knowledge_system.demo.environment import Ports

    return Ports(https or _port("MKS_DEMO_HTTPS_PORT", 8443), http or _port("MKS_DEMO_HTTP_PORT", 8080))


def _port(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise SettingsError((f"{name} must be a port number from 1 to 65535",))
    return int(text)

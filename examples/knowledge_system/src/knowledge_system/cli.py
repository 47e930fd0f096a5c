"""The command line: ``knowledge-system demo | walkthrough | seed | init-db | totp``."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.exc import OperationalError

from knowledge_system.console import complain, progress, say
from mks_hardening.exceptions import SettingsError

if TYPE_CHECKING:
    from knowledge_system.demo.environment import Ports
    from knowledge_system.settings import AppSettings

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except SettingsError as error:
        complain(f"設定に誤りがあります / wrong configuration\n{error}")
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

    demo = commands.add_parser("demo", help="このパソコンで動かす / run on this machine")
    _data_option(demo)
    demo.add_argument(
        "--https-port", type=int, default=None, metavar="PORT", help="MKS_DEMO_HTTPS_PORT, 8443"
    )
    demo.add_argument("--http-port", type=int, default=None, metavar="PORT", help="MKS_DEMO_HTTP_PORT, 8080")
    demo.set_defaults(run=_demo)

    walk = commands.add_parser("walkthrough", help="動いているデモを通しで確かめる / drive a running demo")
    _data_option(walk)
    walk.add_argument("--url", default=None, help="https://localhost:8443")
    walk.add_argument("--http-url", default=None, help="http://localhost:8080")
    walk.add_argument("--ca", type=Path, default=None, help="DATA/tls/ca.pem")
    walk.set_defaults(run=_walkthrough)

    seed = commands.add_parser("seed", help="記事を読み込み、増やす / load articles and generate more")
    _data_option(seed)
    seed.add_argument(
        "--articles", type=int, default=0, metavar="N", help="この件数まで増やす / up to so many"
    )
    seed.set_defaults(run=_seed)

    tables = commands.add_parser("init-db", help="表を作る / create the tables")
    _data_option(tables)
    tables.set_defaults(run=_init_db)

    totp = commands.add_parser("totp", help="二段階認証のコードを表示する / show a TOTP code")
    totp.add_argument("secret", nargs="+", help="設定画面に表示された文字 / the secret shown at enrolment")
    totp.set_defaults(run=_totp)
    return parser


def _data_option(parser: argparse.ArgumentParser) -> None:
    default = Path(os.environ.get("MKS_DATA_DIR") or "var/demo")
    parser.add_argument("--data", type=Path, default=default, metavar="DIR", help="MKS_DATA_DIR, var/demo")


def _demo(options: argparse.Namespace) -> int:
    from knowledge_system.demo import launcher

    ports = _ports(options.https_port, options.http_port)
    return launcher.run(os.environ, data_dir=options.data, ports=ports)


def _walkthrough(options: argparse.Namespace) -> int:
    from knowledge_system import walkthrough

    ports = _ports(None, None)
    return walkthrough.run(
        options.url or f"https://localhost:{ports.https}",
        http_url=options.http_url or f"http://localhost:{ports.http}",
        ca_file=options.ca or options.data / "tls" / "ca.pem",
    )


def _seed(options: argparse.Namespace) -> int:
    from knowledge_system import app, database
    from knowledge_system.settings import DEMO_PASSWORD

    engine, search = app.open_database(_settings(options))
    database.create_tables(engine, search)
    people, articles = database.fill(
        app.session_factory(engine),
        search,
        password=DEMO_PASSWORD,
        clock=time,
        number=options.articles,
        progress=progress,
    )
    engine.dispose()
    say(f"利用者 {people} 名、記事 {articles} 件を追加しました。")
    return 0


def _init_db(options: argparse.Namespace) -> int:
    from knowledge_system import app, database

    engine, search = app.open_database(_settings(options))
    database.create_tables(engine, search)
    engine.dispose()
    say("表を作成しました。")
    return 0


def _totp(options: argparse.Namespace) -> int:
    from mks_hardening.security import totp_code

    try:
        code = totp_code("".join(options.secret))
    except ValueError as error:
        complain(str(error))
        return 2
    say(f"{code}  (あと {30 - int(time.time()) % 30} 秒)")
    return 0


def _settings(options: argparse.Namespace) -> AppSettings:
    from knowledge_system.demo.environment import demo_environment
    from knowledge_system.settings import AppSettings

    return AppSettings.from_env(
        demo_environment(os.environ, data_dir=options.data.resolve(), ports=_ports(None, None))
    )


def _ports(https: int | None, http: int | None) -> Ports:
    from knowledge_system.demo.environment import Ports

    return Ports(
        https or _port("MKS_DEMO_HTTPS_PORT", 8443),
        http or _port("MKS_DEMO_HTTP_PORT", 8080),
    )


def _port(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise SettingsError((f"{name} must be a port number from 1 to 65535",))
    return int(text)

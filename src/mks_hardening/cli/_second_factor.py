"""``mks-hardening second-factor``: maintenance of stored second factors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError

if TYPE_CHECKING:
    from mks_hardening.security import RedisTwoFactorStore, SQLAlchemyTwoFactorStore
    from mks_hardening.settings import HardeningSettings

__all__ = ["add_commands"]


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    job = commands.add_parser(
        "re-encrypt",
        help="re-encrypt every record with the first key of MKS_SECRET_KEYS, while users sign in",
        description=(
            "Run it after adding a new key in front of MKS_SECRET_KEYS. Records that already use this key are "
            "skipped, so the command can be interrupted and run again. Once it exits with 0, the old keys can be "
            "removed."
        ),
    )
    job.add_argument(
        "--store",
        choices=("database", "redis"),
        default="database",
        help="where the records are: the database of DATABASE_URL or the Redis of MKS_REDIS_URL (database)",
    )
    job.add_argument("--table", default="mks_two_factor", help="name of the table (mks_two_factor)")
    job.add_argument("--namespace", default="mks", help="prefix of the keys in Redis (mks)")
    job.add_argument("--batch", type=int, default=100, help="records per batch (100)")
    job.add_argument("--cursor", default=None, help="the cursor that an interrupted run printed")
    job.set_defaults(run=_reencrypt)


def _reencrypt(parsed: argparse.Namespace) -> int:
    from mks_hardening.cli._progress import Progress
    from mks_hardening.security import SecretBox, TwoFactorManager
    from mks_hardening.settings import HardeningSettings

    if not 1 <= parsed.batch <= 100_000:
        raise ConfigurationError("--batch must be from 1 to 100000", parameter="batch")
    settings = HardeningSettings.from_env()
    keys = settings.security.secret_keys
    if not keys:
        raise ConfigurationError(
            "MKS_SECRET_KEYS must contain the application's keys", parameter="secret_keys"
        )
    with _store(settings, parsed) as store:
        manager = TwoFactorManager(store, issuer=settings.security.issuer, secret_box=SecretBox(keys))
        progress = Progress(0, unit="records")
        # Printed when the run is interrupted, so that it can be resumed without starting again.
        cursor: str | None = parsed.cursor
        examined = changed = failed = 0
        try:
            progress = Progress(store.count(), unit="records")
            while True:
                progress.show(examined)
                batch = manager.reencrypt(batch=parsed.batch, cursor=cursor)
                examined += batch.examined
                changed += batch.changed
                failed += batch.failed
                cursor = batch.cursor
                if cursor is None:
                    break
            progress.show(examined)
        except (KeyboardInterrupt, BackendUnavailableError) as error:
            progress.end()
            why = str(error) or "stopped"
            go_on = "" if cursor is None else f"; continue with --cursor {cursor!r}"
            # On stderr, since stdout is for the result.
            print(f"{why} after {examined} records{go_on}", file=sys.stderr)
            return 3 if isinstance(error, BackendUnavailableError) else 1
        progress.end()
    print(f"examined: {examined}  re-encrypted: {changed}  unreadable: {failed}")
    return 1 if failed else 0


@contextmanager
def _store(
    settings: HardeningSettings, parsed: argparse.Namespace
) -> Generator[SQLAlchemyTwoFactorStore | RedisTwoFactorStore]:
    """Open the application's store of second factors."""
    if parsed.store == "redis":
        from mks_hardening.security import RedisTwoFactorStore

        url, plain = settings.core.redis_url, settings.core.allow_plaintext
        if url is None:
            raise ConfigurationError("MKS_REDIS_URL must point to the application's Redis", parameter="url")
        with RedisTwoFactorStore(
            url, namespace=parsed.namespace, store_budget=5, allow_plaintext=plain
        ) as records:
            yield records
        return
    from mks_hardening.cli._database import opened_database
    from mks_hardening.security import SQLAlchemyTwoFactorStore

    with opened_database(settings, command="second-factor", table=parsed.table) as engine:
        yield SQLAlchemyTwoFactorStore(engine, table=parsed.table)

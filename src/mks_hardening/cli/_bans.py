"""``mks-hardening bans``: list, lift and add temporary bans of clients."""

from __future__ import annotations

import argparse
import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from mks_hardening._edge.client_rules.redis_bans import RedisBans

__all__ = ["add_commands"]

_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_PATIENCE: Final = 5.0
_CLIENT: Final = "IPv4 or IPv6 address; an IPv6 address stands for its network"


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    listed = commands.add_parser("list", help="print the bans in force, those that end last first")
    listed.set_defaults(run=_list)
    lift = commands.add_parser("lift", help="lift the ban of a client and forget its offences")
    lift.add_argument("address", metavar="ADDRESS", help=_CLIENT)
    lift.set_defaults(run=_lift)
    add = commands.add_parser("add", help="ban a client")
    add.add_argument("address", metavar="ADDRESS", help=_CLIENT)
    add.add_argument(
        "--for",
        dest="duration",
        required=True,
        metavar="TIME",
        help="for example 90s, 15m, 1h or 2d; 30d at most",
    )
    add.add_argument("--reason", default="manual", help="for the list (manual)")
    add.set_defaults(run=_add)
    for command in (lift, add):
        command.add_argument(
            "--ipv6-prefix", type=int, default=64, help="the ipv6_prefix of the application's BanList (64)"
        )
    for command in (listed, lift, add):
        command.add_argument("--redis", metavar="URL", help="the store of the BanList (MKS_REDIS_URL)")
        command.add_argument("--namespace", default="mks", help="the namespace of the BanList (mks)")
        command.add_argument(
            "--max-bans", type=int, default=10_000, help="the max_bans of the BanList (10000)"
        )


@contextmanager
def _bans(parsed: argparse.Namespace) -> Generator[RedisBans]:
    """Open the store itself, so that an outage is an error: a ``BanList`` would continue in its memory."""
    from mks_hardening._core.backend.redis_client import RedisClient
    from mks_hardening._core.checks import namespace_of
    from mks_hardening._edge.client_rules.redis_bans import RedisBans

    url, plain = parsed.redis, False
    if url is None:
        from mks_hardening.settings import HardeningSettings

        core = HardeningSettings.from_env().core
        url, plain = core.redis_url, core.allow_plaintext
        if url is None:
            raise ConfigurationError(
                "--redis or MKS_REDIS_URL must name the store of the bans", parameter="redis"
            )
    namespace = namespace_of(parsed.namespace)
    with RedisClient(url, name="bans", store_budget=_PATIENCE, allow_plaintext=plain) as client:
        yield RedisBans(client, namespace=namespace, max_bans=parsed.max_bans)


def _list(parsed: argparse.Namespace) -> int:
    from mks_hardening._core.operations import run

    with _bans(parsed) as bans:
        found = run(bans.read()).bans or []
    for client, left, reason in sorted(found, key=lambda ban: -ban[1]):
        print(f"{client:<24} {_shown(left):>10}  {reason}")
    print(f"{len(found)} bans" if len(found) != 1 else "1 ban")
    return 0


def _lift(parsed: argparse.Namespace) -> int:
    client = _client(parsed)
    banned = _change(parsed, client, 0.0, "")
    print(f"{client}  {'ban lifted' if banned else 'was not banned'}")
    return 0 if banned else 1


def _add(parsed: argparse.Namespace) -> int:
    from mks_hardening._edge.client_rules.ban_rule import LONGEST_BAN

    client, length = _client(parsed), _seconds(parsed.duration)
    if not 0 < length <= LONGEST_BAN:
        raise ConfigurationError(
            "--for must be at most 30d; put the client on the deny list", parameter="for"
        )
    _change(parsed, client, length, parsed.reason)
    print(f"{client}  banned for {_shown(length)}")
    return 0


def _change(parsed: argparse.Namespace, client: str, length: float, reason: str) -> bool:
    from mks_hardening._core.operations import run

    with _bans(parsed) as bans:
        (banned,) = run(bans.change([(client, length, reason)]))
    return banned


def _client(parsed: argparse.Namespace) -> str:
    from mks_hardening._edge.client_rules.banned_client import banned_client, ipv6_prefix_of

    return banned_client(parsed.address, ipv6_prefix=ipv6_prefix_of(parsed.ipv6_prefix))


def _seconds(text: str) -> float:
    found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text, re.ASCII)
    if found is None:
        raise ConfigurationError("--for must be a time such as 90s, 15m, 1h or 2d", parameter="for")
    return float(int(found[1]) * _UNITS[found[2]])


def _shown(length: float) -> str:
    rest = max(1, round(length))
    shown = ""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        number, rest = divmod(rest, size)
        shown += f"{number}{unit}" if number else ""
    return shown

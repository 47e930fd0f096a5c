"""``mks-hardening cache``: what is cached, and invalidation by hand."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError

if TYPE_CHECKING:
    from mks_hardening.cache import RedisCache

__all__ = ["add_commands"]

_PATIENCE: Final = 5.0
_OUTCOMES: Final = ("hit", "stale", "miss", "error", "bypass")
_COUNTERS: Final = {"mks_cached_calls_total": "function", "mks_cache_reads_total": "namespace"}
_PATTERN: Final = "glob pattern of keys: *, ?, [abc]"


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    stats = commands.add_parser(
        "stats",
        help="print number and size of the stored values of each function, and how often they were used",
    )
    stats.add_argument(
        "--metrics",
        metavar="DIRECTORY",
        help="the directory in which the processes share their metrics (PROMETHEUS_MULTIPROC_DIR), for the number "
        "of hits and misses of each function and namespace",
    )
    stats.set_defaults(run=_stats)
    keys = commands.add_parser("keys", help="print the keys that have a value")
    keys.add_argument("--limit", type=int, default=100, help="maximum number of keys (100)")
    keys.set_defaults(run=_keys)
    for command in (stats, keys):
        command.add_argument(
            "pattern", nargs="?", default="*", metavar="PATTERN", help=f"{_PATTERN} (all keys)"
        )
    invalidate = commands.add_parser(
        "invalidate", help="delete values, and void the computations that are running"
    )
    invalidate.add_argument("keys", nargs="*", metavar="KEY", help="keys to delete")
    invalidate.add_argument("--tag", action="append", default=[], help="invalidate all values with this tag")
    invalidate.add_argument("--pattern", action="append", default=[], help=_PATTERN)
    invalidate.add_argument("--all", action="store_true", help="delete everything in the namespace")
    invalidate.set_defaults(run=_invalidate)
    for command in (stats, keys, invalidate):
        command.add_argument(
            "--redis", metavar="URL", help="the Redis of the cache (MKS_CACHE_URL, MKS_REDIS_URL)"
        )
        command.add_argument("--namespace", help="the namespace of the cache (MKS_CACHE_NAMESPACE)")


@contextmanager
def _cache(parsed: argparse.Namespace) -> Generator[RedisCache]:
    """Open the cache of the settings; an outage is an error here, and not a miss."""
    from mks_hardening import compose
    from mks_hardening.cache import RedisCache
    from mks_hardening.settings import HardeningSettings

    settings = HardeningSettings.from_env()
    url = parsed.redis or settings.cache.url
    namespace = parsed.namespace or settings.cache.namespace
    settings = replace(
        settings,
        core=replace(settings.core, store_budget=_PATIENCE),
        cache=replace(settings.cache, url=url, namespace=namespace),
    )
    cache = compose.cache_backend(settings)
    if not isinstance(cache, RedisCache):
        raise ConfigurationError(
            "--redis, MKS_CACHE_URL or MKS_REDIS_URL must name the Redis of the cache: a cache in memory belongs "
            "to its process",
            parameter="redis",
        )
    with cache:
        if not cache.ping():
            raise BackendUnavailableError("cache", "error", operation="ping", detail="Redis does not respond")
        yield cache
        stats = cache.stats()
        if stats.errors or stats.pending_invalidations:
            raise BackendUnavailableError(
                "cache", "error", detail="Redis did not respond to everything; repeat the command"
            )


def _stats(parsed: argparse.Namespace) -> int:
    from mks_hardening._core.environment.parsers import parse_text
    from mks_hardening._core.environment.variables import Environment
    from mks_hardening._core.operations import run

    with _cache(parsed) as cache:
        found = run(cache.redis.sizes(parsed.pattern))
    for name, (count, size) in sorted(found.items(), key=lambda item: -item[1][1]):
        print(f"{count:>10}  {size:>12}  {_printable(name)}")
    total = [sum(each) for each in zip(*found.values(), strict=True)] or [0, 0]
    print(f"{total[0]:>10}  {total[1]:>12}  values and bytes in all")
    directory = parsed.metrics or Environment().read("PROMETHEUS_MULTIPROC_DIR", parse_text)
    if directory is not None:
        for kind, counts in _calls(directory).items():
            print("".join(f"{outcome:>10}" for outcome in _OUTCOMES), "", kind)
            for name, numbers in sorted(counts.items()):
                print("".join(f"{numbers[outcome]:>10}" for outcome in _OUTCOMES), "", _printable(name))
    return 0


def _calls(directory: str) -> dict[str, dict[str, Counter[str]]]:
    """Return how often functions and namespaces were used, by outcome, from the metrics of all processes."""
    from mks_hardening.contrib.prometheus_observer import shared_samples

    if not Path(directory).is_dir():
        raise ConfigurationError("--metrics must be an existing directory", parameter="metrics")
    found: dict[str, dict[str, Counter[str]]] = {"function": {}, "namespace": {}}
    for sample in shared_samples(Path(directory)):
        kind = _COUNTERS.get(sample.name)
        if kind is not None:
            counts = found[kind].setdefault(sample.labels[kind], Counter())
            counts[sample.labels["outcome"]] += int(sample.value)
    return found


def _keys(parsed: argparse.Namespace) -> int:
    with _cache(parsed) as cache:
        found = cache.keys(parsed.pattern, most=parsed.limit)
    for key in sorted(found):
        print(_printable(key))
    return 0


def _invalidate(parsed: argparse.Namespace) -> int:
    if not (parsed.keys or parsed.tag or parsed.pattern or parsed.all):
        raise ConfigurationError("name keys, --tag, --pattern or --all", parameter="keys")
    with _cache(parsed) as cache:
        if parsed.all:
            cache.clear()
        if parsed.tag:
            cache.invalidate_tags(*parsed.tag)
        removed = cache.delete(*parsed.keys) if parsed.keys else 0
        removed += sum(cache.delete_pattern(pattern) for pattern in parsed.pattern)
    if parsed.all:
        print("everything deleted")
    if parsed.tag:
        print(f"invalidated by tag: {', '.join(map(_printable, parsed.tag))}")
    if parsed.keys or parsed.pattern:
        print(f"{removed} deleted")
    return 0


def _printable(text: str) -> str:
    """Return a key that cannot break the line or the terminal."""
    return text if text.isprintable() else ascii(text)[1:-1]

"""Purging the CDN, with a problem that says what was not purged."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from knowledge_system.domain.problems import FieldError, Problem
from mks_hardening.cache import CDNManager, PurgeResult
from mks_hardening.exceptions import ConfigurationError


def check(
    cdn: CDNManager | None, urls: Sequence[str], tags: Sequence[str], *, everything: bool
) -> CDNManager:
    """Check a request to purge; return the CDN.

    Raises:
        Problem: ``no-cdn``; ``invalid`` unless exactly one of ``everything`` and the others is given.
    """
    if cdn is None:
        raise Problem("no-cdn")
    if everything is bool(urls or tags):
        raise Problem("invalid", errors=[FieldError("everything", "alone")])
    return cdn


def purge(cdn: CDNManager, urls: Sequence[str], tags: Sequence[str], *, everything: bool) -> list[str]:
    """Purge addresses and tags, or everything; return what was purged.

    Raises:
        Problem: ``invalid`` for a malformed address or tag; ``not-purged`` or ``purge-refused`` with what was and
            was not done.
    """
    try:
        result = (
            cdn.purge_cache(purge_everything=True)
            if everything
            else cdn.purge_cache(urls or None, tags=tags or None)
        )
    except ConfigurationError as error:
        field = "tags" if error.parameter == "tags" else "urls"
        raise Problem("invalid", errors=[FieldError(field, "pattern")]) from error
    if not result:
        raise _not_purged(result)
    return list(result.done)


def _not_purged(result: PurgeResult) -> Problem:
    """Build the problem; never 502, which a proxy sends on its own and which would not say what was purged."""
    outcome = {"done": list(result.done), "failed": list(result.failed), "reasons": list(result.errors)}
    if result.retry_after is None:
        return Problem("purge-refused", extra=outcome)
    return Problem("not-purged", extra=outcome, headers={"Retry-After": str(ceil(result.retry_after))})

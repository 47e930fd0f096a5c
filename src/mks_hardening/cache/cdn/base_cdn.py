"""Interface of all CDNs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import cast

from mks_hardening._core.checks import instances, strings
from mks_hardening._core.closing import Closing
from mks_hardening.cache.cdn.purge_item import PurgeItem, URLVariant
from mks_hardening.cache.cdn.purge_result import PurgeResult
from mks_hardening.exceptions import ConfigurationError

__all__ = ["BaseCDN"]


class BaseCDN(Closing, ABC):
    """A CDN that can purge what it has cached.

    For a CDN of your own, implement ``send_items``, ``refusal`` if it cannot purge all kinds of items, ``__repr__``
    to tell its zones or services apart, and ``close`` if something has to be released.
    """

    def purge_cache(
        self,
        urls: Iterable[str | URLVariant] | None = None,
        *,
        tags: Iterable[str] | None = None,
        prefixes: Iterable[str] | None = None,
        hosts: Iterable[str] | None = None,
        purge_everything: bool = False,
    ) -> PurgeResult:
        """Purge URLs, tags, prefixes and hosts, or everything; errors of the service are returned, not raised.

        Args:
            urls: absolute http(s) URLs, or ``{"url": URL, "headers": {name: value}}`` for one variant of a URL.
            tags: names from ``Cache-Tag`` (Cloudflare) or ``Surrogate-Key`` (Fastly).
            prefixes: ``host/path`` without scheme.
            hosts: host names.
            purge_everything: exactly ``True``, and without other arguments.

        Raises:
            ConfigurationError: nothing to purge, or an item that this CDN cannot purge; no request was sent.
        """
        return self.purge_items(_items_of(urls, tags, prefixes, hosts, purge_everything=purge_everything))

    def purge_items(self, items: Iterable[PurgeItem]) -> PurgeResult:
        """Purge items, for example ``failed_items`` of an earlier result.

        Raises:
            ConfigurationError: an item that this CDN cannot purge; no request was sent. Or ``send_items`` of your
                class returned no ``PurgeResult``.
        """
        checked = tuple(dict.fromkeys(instances(items, PurgeItem, parameter="items")))
        self.check_items(checked)
        return result_of(self, checked)

    def check_items(self, items: Iterable[PurgeItem]) -> None:
        """Raise the error that purging these items would raise.

        Raises:
            ConfigurationError: an item that this CDN cannot purge.
        """
        for item in items:
            reason = item.error or self.refusal(item)
            if reason is not None:
                # Without the value: a URL may contain secrets.
                raise ConfigurationError(f"{item.kind}: {reason}", parameter=item.kind)

    def refusal(self, item: PurgeItem) -> str | None:  # noqa: ARG002 - for those that override it
        """Return why this CDN cannot purge a valid item, or None if it can."""
        return None

    @abstractmethod
    def send_items(self, items: Sequence[PurgeItem]) -> PurgeResult:
        """Purge checked items; errors of the service are part of the result."""

    def close(self) -> None:
        """Release connections; calling it twice is safe."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def result_of(cdn: BaseCDN, items: Sequence[PurgeItem]) -> PurgeResult:
    """Purge checked items, and check what a class of the user returns.

    Raises:
        ConfigurationError: not a ``PurgeResult``.
    """
    result: object = cdn.send_items(items)
    if not isinstance(result, PurgeResult):
        raise ConfigurationError(
            f"send_items of {type(cdn).__name__} must return a PurgeResult, not {type(result).__name__}",
            parameter="send_items",
        )
    return result


def _items_of(
    urls: Iterable[str | URLVariant] | None,
    tags: Iterable[str] | None,
    prefixes: Iterable[str] | None,
    hosts: Iterable[str] | None,
    *,
    purge_everything: object,
) -> tuple[PurgeItem, ...]:
    """Return the items of a purge; they are not checked yet.

    Raises:
        ConfigurationError: nothing to purge, or not a list.
    """
    # `is True`: a list intended for another parameter must not purge the whole zone.
    if purge_everything is True:
        if any(given is not None for given in (urls, tags, prefixes, hosts)):
            raise ConfigurationError(
                "purge_everything cannot be combined with other arguments", parameter="purge_everything"
            )
        return (PurgeItem("everything", "*"),)
    found = [
        *_url_items(urls),
        *(PurgeItem("tags", tag) for tag in strings(tags or (), parameter="tags")),
        *(PurgeItem("prefixes", prefix) for prefix in strings(prefixes or (), parameter="prefixes")),
        *(PurgeItem("hosts", host) for host in strings(hosts or (), parameter="hosts")),
    ]
    if not found:
        raise ConfigurationError("purge_cache requires urls, tags, prefixes, hosts or purge_everything=True")
    return tuple(found)


def _url_items(urls: Iterable[str | URLVariant] | None) -> Iterator[PurgeItem]:
    whole: object = urls
    if not isinstance(whole, Iterable) or isinstance(whole, (str, bytes, Mapping)):
        strings(cast("Iterable[str]", urls or ()), parameter="urls", of="URLs")
        return
    for url in cast("Iterable[object]", whole):
        if isinstance(url, Mapping):
            yield _variant_item(cast("Mapping[object, object]", url))
        else:
            yield from (
                PurgeItem("urls", text)
                for text in strings([cast("str", url)], parameter="urls", of="URLs or variants")
            )


def _variant_item(variant: Mapping[object, object]) -> PurgeItem:
    match dict(variant):
        case {"url": str(url), "headers": Mapping(), **others} if variant["headers"] and not others:
            return PurgeItem("urls", url, (*cast("Mapping[str, str]", variant["headers"]).items(),))
        case _:
            raise ConfigurationError(
                'urls: a variant must be {"url": URL, "headers": {name: value}} with at least one header',
                parameter="urls",
            )

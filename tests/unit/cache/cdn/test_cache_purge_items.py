"""What each CDN can purge, and why not."""

from __future__ import annotations

from typing import Any

import pytest

from mks_hardening.cache import BaseCDN, CDNManager, FastlyCDN, PurgeItem
from mks_hardening.exceptions import ConfigurationError

CLOUDFLARE = CDNManager("0" * 32, api_token="t" * 20)
FASTLY = FastlyCDN("SU1Z0isxPaozGVKXdv0eY", api_token="t" * 20)
SOFT = FastlyCDN("SU1Z0isxPaozGVKXdv0eY", api_token="t" * 20, soft=True)
LONG = "a." * 126 + "b"  # 253 characters

# Item, and what is in the error of Cloudflare and of Fastly (None: it can be purged).
ITEMS: list[tuple[PurgeItem, str | None, str | None]] = [
    (PurgeItem("everything", "*"), None, None),
    (PurgeItem("everything", "all"), "the kind must be", "the kind must be"),
    (PurgeItem("urls", "https://example.com"), None, None),
    (PurgeItem("urls", "http://example.com:8080/a?b=c,d&e=%22"), None, None),
    (PurgeItem("urls", "https://example.com/a b"), "a URL must be", "a URL must be"),
    (PurgeItem("urls", "https://user@example.com/"), "a URL must be", "a URL must be"),
    (PurgeItem("urls", "https://example.com/#x"), "a URL must be", "a URL must be"),
    (PurgeItem("urls", "https:///a"), "a URL must be", "a URL must be"),
    (PurgeItem("urls", "ftp://example.com/"), "a URL must be", "a URL must be"),
    (PurgeItem("urls", "https://[::1/"), "a URL must be", "a URL must be"),
    (PurgeItem("urls", "https://example.com/\n"), "a URL must be", "a URL must be"),
    (PurgeItem("urls", "https://example.com/a/../b"), None, "as a segment"),
    (PurgeItem("urls", "https://example.com/%2E"), None, "as a segment"),
    (PurgeItem("urls", "https://../service/SU1Z0isxPaozGVKXdv0eY/purge_all"), None, "as the host"),
    (PurgeItem("urls", "https://./x"), None, "as the host"),
    (PurgeItem("urls", "https://example.com/%2F"), None, None),
    (PurgeItem("urls", "https://example.com/%41"), None, "upper-case"),
    (PurgeItem("urls", "https://example.com/?q=%2f"), None, "upper-case"),
    (PurgeItem("urls", "https://example.com/%4"), None, "upper-case"),
    (PurgeItem("urls", "https://example.com/", (("a", "b"),)), None, "one variant"),
    (PurgeItem("urls", "https://example.com/", (("a", "b\n"),)), "headers must be", "headers must be"),
    (PurgeItem("urls", "https://example.com/", (("a:", "b"),)), "headers must be", "headers must be"),
    (PurgeItem("tags", "x" * 1024), None, None),
    (PurgeItem("tags", "x" * 1025), "a tag must be", "a tag must be"),
    (PurgeItem("tags", ""), "a tag must be", "a tag must be"),
    (PurgeItem("tags", "a b"), "a tag must be", "a tag must be"),
    (PurgeItem("tags", "a,b"), "comma", None),
    (PurgeItem("tags", "a", (("a", "b"),)), "the kind must be", "the kind must be"),
    (PurgeItem("prefixes", "example.com/a"), None, "no purge by prefix"),
    (PurgeItem("prefixes", "https://example.com/a"), "without a scheme", "without a scheme"),
    (PurgeItem("prefixes", "/a"), "without a scheme", "without a scheme"),
    (PurgeItem("hosts", LONG), None, "no purge by prefix or host"),
    (PurgeItem("hosts", LONG + "c"), "a host must be", "a host must be"),
    (PurgeItem("hosts", "localhost"), "a host must be", "a host must be"),
]


@pytest.mark.parametrize(("item", "cloudflare", "fastly"), ITEMS, ids=lambda part: repr(part)[:60])
def test_each_cdn_says_what_it_cannot_purge(
    item: PurgeItem, cloudflare: str | None, fastly: str | None
) -> None:
    checked: list[tuple[BaseCDN, str | None]] = [(CLOUDFLARE, cloudflare), (FASTLY, fastly)]
    for cdn, reason in checked:
        if reason is None:
            cdn.check_items([item])
            continue
        with pytest.raises(ConfigurationError, match=reason) as caught:
            cdn.check_items([PurgeItem("tags", "fine"), item])
        assert caught.value.parameter == item.kind


def test_everything_cannot_be_purged_softly() -> None:
    SOFT.check_items([PurgeItem("tags", "a"), PurgeItem("urls", "https://example.com/")])
    with pytest.raises(ConfigurationError, match="soft=False"):
        SOFT.check_items([PurgeItem("everything", "*")])


def test_what_is_read_from_elsewhere_is_checked_by_its_types() -> None:
    wrong: Any = [("tags", 5, ()), ("files", "a", ()), (5, "a", ()), ("urls", None, ()), ("tags", "a", None)]
    for kind, value, headers in wrong:
        assert PurgeItem(kind, value, headers).error is not None
    odd: Any = PurgeItem("urls", "https://example.com/", ((1, "a"),))
    assert odd.error is not None


def test_the_reprs_tell_services_apart() -> None:
    assert [repr(cdn) for cdn in (CLOUDFLARE, FASTLY, SOFT)] == [
        f"CDNManager('{'0' * 32}')",
        "FastlyCDN('SU1Z0isxPaozGVKXdv0eY')",
        "FastlyCDN('SU1Z0isxPaozGVKXdv0eY', soft=True)",
    ]

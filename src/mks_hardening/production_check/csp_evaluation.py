"""Elements of a page that its Content-Security-Policy keeps a browser from loading, applying or submitting.

What style sheets and scripts load themselves is not seen. Source: W3C CSP Level 3, 6.6 and 6.7.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from typing import Final, NamedTuple
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

__all__ = ["BlockedElement", "blocked_elements"]

_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_SCHEMES: Final = {"http": ("http", "https"), "ws": ("ws", "wss", "http", "https"), "wss": ("wss", "https")}
_FALLBACKS: Final = {
    **{f"{kind}-src-{part}": (f"{kind}-src", "default-src") for kind in ("script", "style") for part in ("elem", "attr")},
    **dict.fromkeys(("img-src", "media-src", "object-src"), ("default-src",)),
    "frame-src": ("child-src", "default-src"),
    **dict.fromkeys(("base-uri", "form-action"), ()),
}  # fmt: skip
_ATTRIBUTES: Final = {
    **dict.fromkeys(("img src", "img srcset", "input src", "source srcset", "video poster"), "img-src"),
    **dict.fromkeys(("audio src", "source src", "video src"), "media-src"),
    **dict.fromkeys(("embed src", "object data"), "object-src"),
    **dict.fromkeys(("frame src", "iframe src"), "frame-src"),
    **dict.fromkeys(("button formaction", "input formaction"), "form-action"),
}
_INERT: Final = frozenset({"iframe", "noscript", "template", "textarea", "title"})  # their content is no page
_SANDBOXED: Final = {
    "form-action": "allow-forms",
    **dict.fromkeys(("script-src-attr", "script-src-elem"), "allow-scripts"),
}
_NOT_IN_META: Final = frozenset({"frame-ancestors", "report-uri", "sandbox"})
_NONCE: Final = re.compile(r"'nonce-([^']+)'", re.IGNORECASE)
_HASH: Final = re.compile(r"'(sha(?:256|384|512))-([\w+/-]+={0,2})'", re.IGNORECASE | re.ASCII)
_SOURCE: Final = re.compile(
    r"(?:([a-z][a-z0-9+.-]*)://)?(\*|(?:\*\.)?[\w.-]+)(?::(\d+|\*))?(/[^?#]*)?", re.IGNORECASE | re.ASCII
)
_SCRIPT: Final = re.compile(
    r"|module|importmap|(?:text|application)/(?:x-)?(?:java|ecma)script(?:;.*)?", re.IGNORECASE
)


class BlockedElement(NamedTuple):
    """An element, or an attribute of it, that a policy blocks.

    Attributes:
        tag: name of the element.
        directive: directive that governs it, as browsers report it; a policy without it may have a more general one.
        source: address that was refused, or ``inline``.
    """

    tag: str
    directive: str
    source: str


def blocked_elements(policies: Iterable[str], url: str, html: str) -> list[BlockedElement]:
    """Return what the policies block: styles, scripts, event handlers, pictures, media, frames and forms.

    Args:
        policies: values of the header field ``Content-Security-Policy``; all apply, and those of ``<meta>`` too.
        url: address of the page.
        html: the page.
    """
    page = _Page([policy for value in policies for policy in _policies(value)], url)
    page.feed(html.replace("\r\n", "\n"))
    page.close()
    return list(dict.fromkeys(page.blocked))


def _policies(value: str) -> Iterator[dict[str, tuple[str, ...]]]:
    for text in value.split(","):
        directives = [part.split() for part in text.split(";") if part.strip()]
        yield {name.lower(): tuple(words) for name, *words in reversed(directives)}  # the first one counts


class _Page(HTMLParser):
    def __init__(self, policies: list[dict[str, tuple[str, ...]]], url: str) -> None:
        super().__init__()
        self.blocked: list[BlockedElement] = []
        self._policies, self._page, self._base = policies, urlsplit(url), url
        self._inert: list[str] = []
        self._open, self._nonce, self._text = "", "", ""  # the script or style whose content is being read

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._inert:
            self._inert += [tag] * (tag == self._inert[0])
            return
        self._inert = [tag] * (tag in _INERT)
        given = {name: value or "" for name, value in reversed(attrs)}  # the first one counts
        nonce = given.get("nonce", "")
        runs = "nomodule" not in given and _SCRIPT.fullmatch(given.get("type", "").strip())
        for name, value in given.items():
            if name == "style" or re.fullmatch("on[a-z]+", name):
                self._check(tag, "style-src-attr" if name == "style" else "script-src-attr", text=value)
            elif directive := _ATTRIBUTES.get(f"{tag} {name}"):
                for each in re.split(r",\s+", value.strip()) if name == "srcset" else [value]:
                    self._check(tag, directive, each.partition(" ")[0] if name == "srcset" else each)
        if tag == "meta" and given.get("http-equiv", "").lower() == "content-security-policy":
            for policy in _policies(given.get("content", "")):
                self._policies.append({name: policy[name] for name in policy.keys() - _NOT_IN_META})
        elif tag == "base" and self._check(tag, "base-uri", given.get("href", "")):
            self._base = _absolute(self._base, given.get("href", "")) or self._base
        elif tag == "form" and given.get("method", "").lower() != "dialog":
            self._check(tag, "form-action", given.get("action") or self._page.geturl())
        elif tag == "link" and "stylesheet" in given.get("rel", "").lower().split():
            self._check(tag, "style-src-elem", given.get("href", ""), nonce=nonce)
        elif tag == "script" and "src" in given and runs:
            self._check(tag, "script-src-elem", given["src"], nonce=nonce)
        elif tag == "style" or (tag == "script" and "src" not in given and runs):
            self._open, self._nonce, self._text = tag, nonce, ""

    def handle_data(self, data: str) -> None:
        self._text += data if self._open else ""

    def handle_endtag(self, tag: str) -> None:
        if self._inert and tag == self._inert[0]:
            self._inert.pop()
        elif tag == self._open:
            self._open = ""
            self._check(tag, f"{tag}-src-elem", text=self._text, nonce=self._nonce)

    def _check(
        self, tag: str, directive: str, reference: str = "", *, text: str = "", nonce: str = ""
    ) -> bool:
        """Report an address, or the text of something inline, that a policy refuses."""
        address = _absolute(self._base, reference)
        if any("upgrade-insecure-requests" in policy for policy in self._policies):
            address = re.sub("^http:", "https:", address)
        if not (address or text.strip()) or address.startswith(("about:", "javascript:")):
            return True
        for policy in self._policies:
            names = (directive, *_FALLBACKS[directive])
            sources = next((policy[name] for name in names if name in policy), None)
            right = _SANDBOXED.get(directive)
            if (right and right not in policy.get("sandbox", (right,))) or not (
                sources is None
                or _allows(sources, directive, text=text, nonce=nonce, url=urlsplit(address), page=self._page)
            ):
                self.blocked.append(BlockedElement(tag, directive, address or "inline"))
                return False
        return True


def _absolute(base: str, reference: str) -> str:
    """Return the address of a reference; empty if it leads nowhere."""
    try:
        address = urljoin(base, reference.strip()) if reference.strip() else ""
        return address if urlsplit(address).port != 0 else ""
    except ValueError:
        return ""


def _allows(
    sources: tuple[str, ...], directive: str, *, text: str, nonce: str, url: SplitResult, page: SplitResult
) -> bool:
    """Whether sources allow what has a text and a nonce, or else an address (CSP 3, 6.7.2 and 6.7.3)."""
    words, element = {word.lower() for word in sources}, directive.endswith("-elem")
    nonces = {found[1] for word in sources if (found := _NONCE.fullmatch(word))}
    hashes = [found for word in sources if (found := _HASH.fullmatch(word))]
    # Scripts in the page itself need a nonce or hash then.
    strict = "'strict-dynamic'" in words and directive.startswith("script")
    if element and nonce in nonces:
        return True
    if not text:
        return not strict and any(_matches(source, url, page) for source in sources)
    for algorithm, value in (found.groups() for found in hashes if element or "'unsafe-hashes'" in words):
        digest = hashlib.new(algorithm.lower(), text.encode("utf-8", "replace")).digest()
        if base64.urlsafe_b64encode(digest).decode() == value.replace("+", "-").replace("/", "_"):
            return True
    return "'unsafe-inline'" in words and not (hashes or nonces or strict)


def _matches(source: str, url: SplitResult, page: SplitResult) -> bool:
    """Whether a source allows an address (CSP 3, 6.7.2.8)."""
    if source == "*":
        return url.scheme in {*_PORTS, page.scheme}
    if source.endswith(":"):
        return url.scheme in _SCHEMES.get(source[:-1].lower(), (source[:-1].lower(),))
    if source.lower() == "'self'":
        source = f"{page.scheme}://{page.netloc}"
    found = _SOURCE.fullmatch(source)
    if found is None or not url.hostname:
        return False
    scheme, name, path = (found[1] or page.scheme).lower(), found[2].lower(), unquote(found[4] or "")
    port, wanted = (str(given or _PORTS.get(url.scheme)) for given in (url.port, found[3]))
    own = unquote(url.path or "/")
    return (
        url.scheme in _SCHEMES.get(scheme, (scheme,))
        and (name in {url.hostname, "*"} or (name[:2] == "*." and url.hostname.endswith(name[1:])))
        and (wanted in {port, "*"} or (wanted, port) == ("80", "443"))
        and (own.startswith(path) if path[-1:] in {"", "/"} else own == path)
    )

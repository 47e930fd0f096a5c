"""What a page loads, applies or submits, and what of it its Content-Security-Policy blocks in a browser.

Source: W3C CSP Level 3, 6.6 and 6.7.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from typing import Final, NamedTuple
from urllib.parse import SplitResult, unquote, urldefrag, urljoin, urlsplit

__all__ = [
    "SCRIPT_TYPE", "BlockedElement", "LoadedFile", "PageEvaluation", "absolute_url", "evaluate_page", "matches_any",
]  # fmt: skip

_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_SCHEMES: Final = {"http": ("http", "https"), "ws": ("ws", "wss", "http", "https"), "wss": ("wss", "https")}
_FALLBACKS: Final = {
    **{f"{kind}-src-{part}": (f"{kind}-src", "default-src") for kind in ("script", "style") for part in ("elem", "attr")},
    **dict.fromkeys(("font-src", "img-src", "manifest-src", "media-src", "object-src"), ("default-src",)),
    "script-src": ("default-src",),
    "frame-src": ("child-src", "default-src"),
    **dict.fromkeys(("base-uri", "form-action"), ()),
}  # fmt: skip
_ATTRIBUTES: Final = {
    **dict.fromkeys(("body background", "image href", "img src", "img srcset", "input src"), "img-src"),
    **dict.fromkeys(("source srcset", "use href", "video poster"), "img-src"),
    **dict.fromkeys(("audio src", "source src", "track src", "video src"), "media-src"),
    **dict.fromkeys(("embed src", "object data"), "object-src"),
    **dict.fromkeys(("frame src", "iframe src"), "frame-src"),
    **dict.fromkeys(("button formaction", "input formaction"), "form-action"),
}
_OF_HEAD: Final = {"base", "head", "html", "link", "meta", "noscript", "script", "style", "template", "title"}
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
SCRIPT_TYPE: Final = re.compile(
    r"|module|importmap|(?:text|application)/(?:x-)?(?:java|ecma)script(?:;.*)?", re.IGNORECASE
)
"""Values of ``type`` with which a script runs; those with a slash are types of files too."""
_NO_SCRIPT: Final = frozenset({"", "false", "void0"})  # without blanks and signs
_HANDLER: Final = re.compile(
    r"on(?:abort|animation\w+|auxclick|(?:after|before)\w+|blur|cancel|can\w+|change|click|close|contextmenu|copy|cut|"
    r"dblclick|drag\w*|drop|durationchange|ended|error|focus(?:in|out)?|formdata|hashchange|input|invalid|key\w+|load\w*|"
    r"message|mouse\w+|o(?:n|ff)line|page\w+|paste|pause|play\w*|pointer\w+|popstate|progress|ratechange|reset|resize|"
    r"scroll\w*|search|seek\w+|select\w*|stalled|storage|submit|suspend|timeupdate|to(?:ggle|uch\w+)|transition\w+|"
    r"unload|volumechange|waiting|wheel)"
)
_LOCAL: Final = re.compile(r"(?:.+\.)?localhost|127\.[\d.]+|::1")
_STYLE_COMMENT: Final = re.compile(r"/\*.*?(?:\*/|\Z)|@namespace[^;@]*;", re.DOTALL)
_STYLE_URL: Final = re.compile(
    r"""(?:(@import)\s+(?:url\(\s*)?|url\(\s*)(?:"([^"]*)"|'([^']*)'|([^"'()\s]+))""", re.IGNORECASE
)
_FONT_FACE: Final = re.compile(r"@font-face\s*\{[^{}]*\}", re.IGNORECASE)
_COMPILES: Final = re.compile(r"\bWebAssembly\.(?:compile|instantiate)")
_INSERTS_STYLE: Final = re.compile(r"""createElement\(["'`]style["'`]\)""")
_IMPORTED: Final = re.compile(r"""\b(?:from|import)\s*(?:\(\s*)?["'](\.{0,2}/[^"'\s]{1,300}\.m?js)["']""")


class BlockedElement(NamedTuple):
    """An element, an attribute of it, or what a style sheet or script uses, that a policy blocks.

    Attributes:
        tag: name of the element.
        directive: directive that governs it, as browsers report it; a policy without it may have a more general one.
        source: address that was refused, or ``inline``.
        remedy: sources that would allow it, as they are added to the directive; empty if none can.
        certain: ``False`` for what a style sheet or script uses at a moment that its text does not tell.
    """

    tag: str
    directive: str
    source: str
    remedy: str = ""
    certain: bool = True


class LoadedFile(NamedTuple):
    """A style sheet, script (``module``: as a module) or frame that a page loads."""

    tag: str
    address: str
    module: bool = False


def evaluate_page(policies: Iterable[str], url: str, html: str) -> PageEvaluation:
    """Return what the policies block of a page: styles, scripts, event handlers, pictures, media, frames and forms.

    Args:
        policies: values of the header field ``Content-Security-Policy``; all apply, and those of ``<meta>`` too.
        url: address of the page.
        html: the page.
    """
    page = PageEvaluation(policies, url)
    parser = _PageParser(page)
    parser.feed(html.replace("\r\n", "\n"))
    parser.close()
    return page


def _policies(value: str) -> Iterator[dict[str, tuple[str, ...]]]:
    for text in value.split(","):
        directives = [part.split() for part in text.split(";") if part.strip()]
        yield {name.lower(): tuple(words) for name, *words in reversed(directives)}  # the first one counts


class PageEvaluation:
    """A page as its policies leave it; ``evaluate_page`` makes one.

    Args:
        policies: values of the header field ``Content-Security-Policy``.
        url: address of the page.

    Attributes:
        blocked: what is blocked, each thing once.
        files: style sheets, scripts and frames that are loaded.
        links: addresses of links.
        takes_password: whether a field asks for a password.
        standards: whether it has a document type; without one, browsers are lenient about the types of styles.
        url: its address.
        base: address that others are relative to.
        policies: directives with their sources, of each policy.
    """

    def __init__(self, policies: Iterable[str], url: str) -> None:
        self.blocked: dict[BlockedElement, None] = {}
        self.files: dict[LoadedFile, None] = {}
        self.links: list[str] = []
        self.takes_password: bool = False
        self.standards: bool = False
        self.url: str = url
        self.base: str = url
        self.policies: list[dict[str, tuple[str, ...]]] = [
            policy for value in policies for policy in _policies(value)
        ]
        self._page = urlsplit(url)

    def read_style(self, text: str, url: str) -> None:
        """Report what a style sheet at an address loads, and a policy refuses."""
        text = _STYLE_COMMENT.sub("", text)
        fonts = "".join(_FONT_FACE.findall(text))
        for directive, part in (("img-src", _FONT_FACE.sub("", text)), ("font-src", fonts)):
            for found in _STYLE_URL.finditer(part):
                address = found[2] or found[3] or found[4] or "#"
                if not address.startswith("#"):
                    name = "style-src-elem" if found[1] else directive
                    self.check("style", name, address, base=url, certain=False)

    def read_script(self, text: str, url: str) -> list[str]:
        """Report what a script at an address does, and a policy refuses; return what it imports."""
        if _COMPILES.search(text):
            self.check("script", "script-src", keyword="'wasm-unsafe-eval'", text=text)
        if _INSERTS_STYLE.search(text):
            self.check("script", "style-src-elem", text="\0", certain=False)  # no hash is that of its text
        return [absolute_url(url, reference) for reference in _IMPORTED.findall(text)]

    def load(
        self, tag: str, directive: str, reference: str, *, nonce: str = "", integrity: str = "", module: bool = False,
    ) -> None:  # fmt: skip
        """Check the address of a file, and note it if it is loaded."""
        address = self._upgraded(absolute_url(self.base, reference), directive)
        allowed = self.check(tag, directive, reference, nonce=nonce, integrity=integrity)
        if allowed and address.startswith("http"):
            self.files[LoadedFile(tag, address, module)] = None

    def _upgraded(self, address: str, directive: str) -> str:
        """Return the address that is requested: over HTTPS if a policy says so, and by itself of pictures."""
        upgrades = any("upgrade-insecure-requests" in policy for policy in self.policies)
        if upgrades or (directive == "img-src" and _is_mixed("", urlsplit(address), self._page)):
            return re.sub("^http:", "https:", address)
        return address

    def check(
        self, tag: str, directive: str, reference: str = "", *, text: str = "", nonce: str = "",
        integrity: str = "", keyword: str = "", base: str = "", certain: bool = True,
    ) -> bool:  # fmt: skip
        """Report an address, or the text of something inline, that a policy refuses."""
        address = self._upgraded(absolute_url(base or self.base, reference), directive)
        if not (address or text.strip()) or address.startswith(("about:", "javascript:")):
            return True
        url, refused = urlsplit(address), None
        for policy in self.policies:
            names = (directive, *_FALLBACKS[directive])
            sources = next((policy[name] for name in names if name in policy), None)
            right = _SANDBOXED.get(directive)
            if right and right not in policy.get("sandbox", (right,)):
                refused = ""
            elif sources is None:
                continue
            elif keyword:
                if not {keyword, "'unsafe-eval'"} & {word.lower() for word in sources}:
                    refused = keyword
            elif not _allows(
                sources, directive, element=directive.endswith("-elem") and tag != "a", text=text, nonce=nonce,
                integrity=integrity, url=url, page=self._page,
            ):  # fmt: skip
                refused = self._remedy(tag, directive, text, url)
        if refused is None and address and _is_mixed(directive, url, self._page):
            directive, refused = "mixed content", ""
        if refused is not None:
            source = address or (keyword and "wasm-eval") or "inline"
            self.blocked[BlockedElement(tag, directive, source, refused, certain)] = None
        return refused is None

    def _remedy(self, tag: str, directive: str, text: str, url: SplitResult) -> str:
        """Return the sources that would allow what has a text, or else an address."""
        if not text:
            own = _matches("'self'", url, self._page)
            return "'self'" if own else f"{url.scheme}://{url.netloc}" if url.netloc else f"{url.scheme}:"
        if tag == "a" or text == "\0" or directive == "style-src-attr":
            return "'unsafe-inline'"
        digest = base64.b64encode(hashlib.sha256(text.encode("utf-8", "replace")).digest()).decode()
        return "'unsafe-hashes' " * directive.endswith("-attr") + f"'sha256-{digest}'"


class _PageParser(HTMLParser):
    def __init__(self, page: PageEvaluation) -> None:
        super().__init__()
        self._page, self._in_body = page, False
        self._inert: list[str] = []
        self._open, self._nonce, self._text = "", "", ""  # the script or style whose content is being read

    def handle_decl(self, decl: str) -> None:
        self._page.standards |= decl.lower().startswith("doctype")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._inert:
            self._inert += [tag] * (tag == self._inert[0])
            return
        self._inert = [tag] * (tag in _INERT)
        self._in_body |= tag not in _OF_HEAD
        given = {name: value or "" for name, value in reversed(attrs)}  # the first one counts
        self._read_attributes(tag, given)
        nonce, kind = given.get("nonce", ""), given.get("type", "").strip().lower()
        runs = "nomodule" not in given and SCRIPT_TYPE.fullmatch(kind)
        equivalent, css = given.get("http-equiv", "").lower(), kind in {"", "text/css"}
        if tag == "meta" and equivalent == "content-security-policy" and not self._in_body:
            for policy in _policies(given.get("content", "")):
                self._page.policies.append({name: policy[name] for name in policy.keys() - _NOT_IN_META})
        elif tag == "base" and self._page.check(tag, "base-uri", given.get("href", "")):
            self._page.base = absolute_url(self._page.base, given.get("href", "")) or self._page.base
        elif tag == "form" and given.get("method", "").lower() != "dialog":
            self._page.check(tag, "form-action", given.get("action") or self._page.url)
        elif tag == "a" and (link := given.get("href", "").strip()):
            if link[:11].lower() != "javascript:":
                self._page.links.append(absolute_url(self._page.base, link))
            elif re.sub(r"[\s;()]", "", link[11:]) not in _NO_SCRIPT:
                self._page.check(tag, "script-src-elem", text=f"javascript:{link[11:]}")
        elif tag == "link":
            self._read_link(given, nonce, css=css)
        elif tag == "script" and "src" in given and runs:
            module, known = kind == "module", given.get("integrity", "")
            self._page.load(tag, "script-src-elem", given["src"], nonce=nonce, integrity=known, module=module)
        elif (tag == "style" and css) or (tag == "script" and runs):
            self._open, self._nonce, self._text = tag, nonce, ""

    def _read_attributes(self, tag: str, given: dict[str, str]) -> None:
        self._page.takes_password |= (tag, given.get("type", "").lower()) == ("input", "password")
        for name, value in given.items():
            if name == "style" or _HANDLER.fullmatch(name):
                self._page.check(tag, "style-src-attr" if name == "style" else "script-src-attr", text=value)
            elif (directive := _ATTRIBUTES.get(f"{tag} {name}")) and not value.startswith("#"):
                check = self._page.load if directive == "frame-src" else self._page.check
                for each in re.split(r",\s+", value.strip()) if name == "srcset" else [value]:
                    check(tag, directive, each.partition(" ")[0] if name == "srcset" else each)

    def _read_link(self, given: dict[str, str], nonce: str, *, css: bool) -> None:
        words, address = given.get("rel", "").lower().split(), given.get("href", "")
        if "stylesheet" in words and css and "disabled" not in given:
            self._page.load("link", "style-src-elem", address, nonce=nonce)
        elif "manifest" in words or "icon" in words:
            self._page.check("link", "img-src" if "icon" in words else "manifest-src", address)
        elif "preload" in words and given.get("as", "").lower() == "font":
            self._page.check("link", "font-src", address)

    def handle_data(self, data: str) -> None:
        self._text += data if self._open else ""
        self._in_body |= bool(data.strip()) and not self._open and not self._inert

    def handle_endtag(self, tag: str) -> None:
        if self._inert and tag == self._inert[0]:
            self._inert.pop()
        elif tag == self._open:
            self._open = ""
            allowed = self._page.check(tag, f"{tag}-src-elem", text=self._text, nonce=self._nonce)
            if allowed:
                read = self._page.read_style if tag == "style" else self._page.read_script
                read(self._text, self._page.base)


def _is_mixed(directive: str, url: SplitResult, page: SplitResult) -> bool:
    """Whether a page over HTTPS would load this over plain HTTP, which browsers block (Mixed Content, 5)."""
    secured = page.scheme == "https" and url.scheme == "http"
    # Pictures and media are requested over HTTPS instead, and forms are sent after a warning.
    kept = directive in {"img-src", "media-src", "form-action", "base-uri"}
    return secured and not kept and not _LOCAL.fullmatch(url.hostname or "")


def absolute_url(base: str, reference: str) -> str:
    """Return the address of a reference; empty if it leads nowhere."""
    try:
        address = urldefrag(urljoin(base, reference.strip())).url if reference.strip() else ""
        return address if urlsplit(address).port != 0 else ""
    except ValueError:
        return ""


def _allows(
    sources: tuple[str, ...], directive: str, *, element: bool, text: str, nonce: str, integrity: str, url: SplitResult,
    page: SplitResult,
) -> bool:  # fmt: skip
    """Whether sources allow what has a text and a nonce, or else an address (CSP 3, 6.7.2 and 6.7.3)."""
    words = {word.lower() for word in sources}
    nonces = {found[1] for word in sources if (found := _NONCE.fullmatch(word))}
    hashes = [found for word in sources if (found := _HASH.fullmatch(word))]
    # Scripts in the page itself need a nonce or hash then.
    strict = "'strict-dynamic'" in words and directive.startswith("script")
    if element and nonce in nonces:
        return True
    if not text:
        given = [_HASH.fullmatch(f"'{word.partition('?')[0]}'") for word in integrity.split()]
        known = {_digest(found) for found in hashes}
        if given and all(found and _digest(found) in known for found in given):
            return True
        return not strict and any(_matches(source, url, page) for source in sources)
    for algorithm, value in (_digest(found) for found in hashes if element or "'unsafe-hashes'" in words):
        digest = hashlib.new(algorithm, text.encode("utf-8", "replace")).digest()
        if base64.urlsafe_b64encode(digest).decode() == value:
            return True
    return "'unsafe-inline'" in words and not (hashes or nonces or strict)


def _digest(found: re.Match[str]) -> tuple[str, str]:
    return found[1].lower(), found[2].replace("+", "-").replace("/", "_")


def matches_any(sources: Iterable[str], url: str, page: str) -> bool:
    """Whether one of the sources allows an address, as ``frame-ancestors`` does with each page around it."""
    return any(_matches(source, urlsplit(url), urlsplit(page)) for source in sources)


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

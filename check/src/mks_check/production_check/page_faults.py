"""What a browser would not show of a site's pages: blocked by a policy, not served, or of a type that it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple
from urllib.parse import urljoin, urlsplit

from mks_check.production_check.csp_evaluation import (
    SCRIPT_TYPE,
    LoadedFile,
    PageEvaluation,
    absolute_url,
    evaluate_page,
    matches_any,
)
from mks_check.production_check.http_response import HttpResponse
from mks_hardening.exceptions import ConfigurationError

__all__ = ["Get", "PageFault", "own_path", "page_faults"]

Get = Callable[[str, Mapping[str, str]], HttpResponse]
"""Sends a request to the site: a path with its query, and header fields."""

_HOPS: Final = 5
_MOST_FILES: Final = 40
_PATH: Final = re.compile("/[!-~]{0,2000}")  # a blank or a control character would change the request
_PORTS: Final = {"http": 80, "https": 443}
_SIGN_IN: Final = re.compile(r"(?:log|sign)[-_]?in(?![a-z])", re.IGNORECASE)
_NEVER_SCRIPTS: Final = re.compile("(?:audio|image|video)/|text/csv")
_HANDSHAKE: Final = {
    "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "bWtzLWRlcGxveS1jaGVjaw==",
}  # fmt: skip


class PageFault(NamedTuple):
    """Something that a browser would not show or do.

    Attributes:
        page: path of the page.
        text: what is wrong.
        setting: lines of ``MKS_HEADERS_FILE`` that allow it; empty if none can.
        certain: ``False`` if it depends on what the page's scripts and style sheets do.
    """

    page: str
    text: str
    setting: str = ""
    certain: bool = True


def page_faults(get: Get, url: str, *, pages: Iterable[str] = (), websocket: str = "") -> list[PageFault]:
    """Open the front page, the sign-in page and others as a browser does, and return what it would not show.

    The sign-in page is the first link of the front page that is named so, unless the front page leads to it anyway.

    Args:
        get: how requests are sent.
        url: address of the front page.
        pages: paths of further pages.
        websocket: path of a WebSocket; empty if there is none.

    Raises:
        ConfigurationError: a path leads to another site, or is none.
    """
    site = _Site(get, url)
    front = site.load(url)
    faults = [*site.faults(front)]
    links = evaluate_page((), front.url, front.body) if _is_page(front) else None
    found = (link for link in (links.links if links else ()) if _SIGN_IN.search(urlsplit(link).path))
    sign_in = "" if links is None or links.takes_password else next(found, "")
    if sign_in and own_path(sign_in, "", url):
        faults += site.faults(site.load(sign_in))
    for name, paths in (("pages", pages), ("websocket", [websocket] * bool(websocket))):
        for given in paths:
            if not (path := own_path(url, given, url)):
                raise ConfigurationError(
                    f"{name} must be a path of the site, not {given[:40]!r}", parameter=name
                )
            if name == "pages":
                faults += site.faults(site.load(absolute_url(url, path)))
            else:
                faults += _websocket_faults(get, url, path)
    return list(dict.fromkeys(faults))


def own_path(base: str, reference: str, site: str) -> str:
    """Return path and query of a reference; empty if it leads to another site or cannot be requested as it stands."""
    try:
        there, here = urlsplit(urljoin(base, reference)), urlsplit(site)
        same = [(each.scheme, each.hostname, each.port or _PORTS.get(each.scheme)) for each in (there, here)]
    except ValueError:
        return ""
    path = (there.path or "/") + (f"?{there.query}" if there.query else "")
    return path if same[0] == same[1] and _PATH.fullmatch(path) else ""


def _websocket_faults(get: Get, url: str, path: str) -> Iterator[PageFault]:
    parts = urlsplit(url)
    response = get(path, {**_HANDSHAKE, "Origin": f"{parts.scheme}://{parts.netloc}"})
    # A redirect, 401 and 403 are answers of the application to somebody who has not signed in.
    if response.status not in {101, 301, 302, 303, 307, 401, 403}:
        yield PageFault(path, f"the WebSocket is not opened: {response.status or response.error}")


def _is_page(response: HttpResponse) -> bool:
    return response.field("content-type").lower().startswith("text/html")


class _Site:
    """The pages and files of one site, each requested once."""

    def __init__(self, get: Get, url: str) -> None:
        self._get, self._url = get, url
        self._loaded: dict[str, HttpResponse] = {}

    def load(self, address: str) -> HttpResponse:
        """Return a response of the site, after its redirects; one without a status leads elsewhere."""
        for _ in range(_HOPS):
            path = own_path(address, "", self._url) if address else ""
            if not path or (path not in self._loaded and len(self._loaded) > _MOST_FILES):
                return HttpResponse(url=address)
            if path not in self._loaded:
                self._loaded[path] = self._get(path, {})
            response = self._loaded[path]
            place = response.field("location") if 300 <= response.status < 400 else ""
            if not place:
                return response
            address = absolute_url(response.url, place)
        return HttpResponse(url=address)

    def faults(self, response: HttpResponse) -> Iterator[PageFault]:
        """Yield what is wrong with a page."""
        path = urlsplit(response.url).path or "/"
        if response.status >= 500:
            yield PageFault(path, f"the page is answered with {response.status}")
        if not _is_page(response):
            return
        page = evaluate_page(response.all("content-security-policy"), response.url, response.body)
        for file in page.files:
            loaded = self.load(file.address)
            why, setting, certain = _refusal(file, loaded, response, page)
            if why:
                yield PageFault(path, f"{loaded.url} of <{file.tag}> {why}", setting, certain)
            elif file.tag == "link":
                page.read_style(loaded.body, loaded.url)
            elif file.tag == "script":
                self._read_scripts(page, loaded)
        inline = {each.directive for each in page.blocked if each.remedy == "'unsafe-inline'"}
        for tag, directive, source, remedy, certain in page.blocked:
            # Beside a hash, browsers ignore it.
            needed = ["'unsafe-inline'"] if source == "inline" and directive in inline else remedy.split()
            setting = f"csp.{directive} = {json.dumps(needed)}" if needed else ""
            yield PageFault(path, f"{directive} blocks {source[:200]} of <{tag}>", setting, certain)

    def _read_scripts(self, page: PageEvaluation, script: HttpResponse) -> None:
        """Read a script, and what it imports."""
        waiting, seen = [script], {script.url}
        while waiting:
            each = waiting.pop()
            for address in page.read_script(each.body, each.url):
                loaded = self.load(address)
                if loaded.url not in seen and "javascript" in loaded.field("content-type"):
                    waiting.append(loaded)
                    seen.add(loaded.url)


def _refusal(
    file: LoadedFile, loaded: HttpResponse, response: HttpResponse, page: PageEvaluation
) -> tuple[str, str, bool]:
    """Return why a browser does not use a file of a page, the setting that allows it, and whether that is certain."""
    served = loaded.field("content-type").partition(";")[0].strip().lower()
    nosniff = loaded.field("x-content-type-options").lower().startswith("nosniff")
    shown, why = served or "no type", ""
    if loaded.status >= 400:
        why = f"is answered with {loaded.status}"
    elif file.tag not in {"link", "script"}:
        return _frame_refusal(loaded, response)
    elif file.tag == "link" and served != "text/css" and (nosniff or (served and page.standards)):
        why = f"is served as {shown}, not as text/css"
    elif file.tag == "script" and loaded.status:
        strict = nosniff or file.module
        if not SCRIPT_TYPE.fullmatch(served or "-") if strict else _NEVER_SCRIPTS.match(served):
            why = f"is served as {shown}, not as text/javascript"
    return why, "", True


def _frame_refusal(framed: HttpResponse, page: HttpResponse) -> tuple[str, str, bool]:
    """Return the same of a page in a frame; only another site itself knows what it sends."""
    policies = [
        words[1:]
        for policy in re.split("[,;]", framed.field("content-security-policy"))
        if (words := policy.split()) and words[0].lower() == "frame-ancestors"
    ]
    table = f'["{urlsplit(framed.url).path}"]'
    if any(not matches_any(sources, page.url, framed.url) for sources in policies):
        return "may not be shown in a frame (frame-ancestors)", f'{table} frame = "same-origin"', True
    if "deny" in framed.field("x-frame-options").lower() and not policies:
        return "may not be shown in a frame (X-Frame-Options)", f'{table} frame = "same-origin"', True
    if (policy := _isolation(page)) and not _isolation(framed):
        setting = (
            f'{table} coep = "{policy}"'
            if framed.status
            else f'["{urlsplit(page.url).path}"] coep = "unsafe-none"'
        )
        return f"needs Cross-Origin-Embedder-Policy: {policy}", setting, bool(framed.status)
    return "", "", True


def _isolation(response: HttpResponse) -> str:
    """Return a policy that asks the pages in frames for one as well (HTML, 7.1.4)."""
    policy = response.field("cross-origin-embedder-policy").lower()
    return policy if policy in {"credentialless", "require-corp"} else ""

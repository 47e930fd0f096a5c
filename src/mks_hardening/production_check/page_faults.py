"""What a browser would not show of a site's pages: blocked by a policy, not served, or of a type that it refuses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple
from urllib.parse import urljoin, urlsplit

from mks_hardening.production_check.csp_evaluation import (
    SCRIPT_TYPE,
    BlockedElement,
    LoadedFile,
    PageEvaluation,
    absolute_url,
    evaluate_page,
    matches_any,
)
from mks_hardening.production_check.http_response import HttpResponse

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
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "bWtzLWRlcGxveS1jaGVjaw==",
}


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
    """
    site = _Site(get, url)
    front = site.load(url)
    faults = [*site.faults(front)]
    links = evaluate_page((), front.url, front.body) if _is_page(front) else None
    found = (link for link in (links.links if links else ()) if _SIGN_IN.search(urlsplit(link).path))
    sign_in = "" if links is None or links.takes_password else next(found, "")
    for address in dict.fromkeys(absolute_url(url, each) for each in (sign_in, *pages) if each):
        if own_path(address, "", url):
            faults += site.faults(site.load(address))
    if websocket:
        faults += _websocket_faults(get, url, websocket)
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
            if not loaded.status:
                if file.tag not in {"link", "script"} and (policy := _isolation(response)):
                    # Only the other site knows whether it sends it.
                    why = f"{file.address} of <{file.tag}> needs Cross-Origin-Embedder-Policy: {policy}"
                    yield PageFault(path, why, f'["{path}"] coep = "unsafe-none"', certain=False)
            elif refusal := _refusal(file, loaded, response, page):
                yield refusal._replace(page=path)
            elif file.tag == "link":
                page.read_style(loaded.body, loaded.url)
            elif file.tag == "script":
                self._read_scripts(page, loaded)
        inline = {each.directive for each in page.blocked if each.remedy == "'unsafe-inline'"}
        for each in page.blocked:
            # Beside a hash, browsers ignore it.
            looser = each.source == "inline" and each.directive in inline
            yield _fault(path, each._replace(remedy="'unsafe-inline'") if looser else each)

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


def _fault(path: str, blocked: BlockedElement) -> PageFault:
    tag, directive, source, remedy, certain = blocked
    text = f"{directive} blocks {source[:200]} of <{tag}>"
    sources = ", ".join(f'"{each}"' for each in remedy.split())
    return PageFault(path, text, f"csp.{directive} = [{sources}]" if remedy else "", certain)


def _refusal(
    file: LoadedFile, loaded: HttpResponse, response: HttpResponse, page: PageEvaluation
) -> PageFault | None:
    """Return why a browser does not use a file that it has loaded for a page."""
    served = loaded.field("content-type").partition(";")[0].strip().lower()
    nosniff = loaded.field("x-content-type-options").lower().startswith("nosniff")
    path, setting = urlsplit(loaded.url).path, ""
    if loaded.status >= 400:
        why = f"is answered with {loaded.status}"
    elif file.tag == "link":
        wrong = served != "text/css" and (nosniff or (bool(served) and page.standards))
        why = f"is served as {served or 'no type'}, not as text/css" * wrong
    elif file.tag == "script":
        strict = nosniff or file.module
        wrong = not SCRIPT_TYPE.fullmatch(served or "-") if strict else bool(_NEVER_SCRIPTS.match(served))
        why = f"is served as {served or 'no type'}, not as text/javascript" * wrong
    else:
        why, setting = _frame_refusal(loaded, response)
    return (
        PageFault("", f"{path} of <{file.tag}> {why}", setting and f'["{path}"] {setting}') if why else None
    )


def _frame_refusal(framed: HttpResponse, page: HttpResponse) -> tuple[str, str]:
    """Return why a page of the site is not shown in a frame, and the setting that allows it."""
    policies = [
        words[1:]
        for policy in re.split("[,;]", framed.field("content-security-policy"))
        if (words := policy.split()) and words[0].lower() == "frame-ancestors"
    ]
    options = framed.field("x-frame-options").lower()
    if any(not matches_any(sources, page.url, framed.url) for sources in policies):
        return "may not be shown in a frame (frame-ancestors)", 'frame = "same-origin"'
    if "deny" in options and not policies:
        return "may not be shown in a frame (X-Frame-Options)", 'frame = "same-origin"'
    policy = _isolation(page)
    if policy and not _isolation(framed):
        return f"needs Cross-Origin-Embedder-Policy: {policy}", f'coep = "{policy}"'
    return "", ""


def _isolation(response: HttpResponse) -> str:
    """Return a policy that asks the pages in frames for one as well (HTML, 7.1.4)."""
    policy = response.field("cross-origin-embedder-policy").lower()
    return policy if policy in {"credentialless", "require-corp"} else ""

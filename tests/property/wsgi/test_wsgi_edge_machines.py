"""The edge against models: a second reading of the headers, and browsers that keep tokens too long."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from asgi_bridge import ODD
from edge_shells import over
from mks_hardening.testing import FrozenClock, call_wsgi
from mks_hardening.wsgi import (
    CSRFMiddleware,
    HealthMiddleware,
    MemorySessionStore,
    ProxyTrust,
    SessionTimeoutMiddleware,
)

# --- trust: the text of the rules, once more and as plainly as can be ----------------------------------------

NETWORKS = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]
entries = st.sampled_from(
    [
        "10.0.0.1",
        "10.9.9.9:80",
        "fd00::1",
        "[fd00::2]:443",
        "203.0.113.9",
        "2001:db8::1",
        "junk",
        "",
        "unknown",
    ]
)
schemes = st.sampled_from(["http", "https", "HTTPS", "wss", "junk"])


def plainly(entry: str) -> str | None:
    """The address of an entry of these tests."""
    text = entry.partition("]")[0].removeprefix("[") if entry.startswith("[") else entry
    if text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ip_address(text))
    except ValueError:
        return None


def trusted(address: str) -> bool:
    return any(ip_address(address) in network for network in NETWORKS)


def model(peer: str, addresses: list[str], said: list[str], hops: int | None) -> tuple[str, str]:
    """Client address and scheme, by a walk that is written down step by step."""
    here, walked = peer, 0
    if hops is None:
        while walked < len(addresses) and trusted(here):
            address = plainly(addresses[-1 - walked])
            walked += 1
            if address is None:
                break
            here = address
    elif len(addresses) >= hops:
        for entry in list(reversed(addresses))[:hops]:
            address = plainly(entry)
            if address is None:
                break
            here = address
    if hops is not None:
        scheme = said[-hops] if len(said) >= hops else "http"
    else:
        scheme = said[-min(max(walked, 1), len(said))] if said else "http"
    return here, "https" if scheme.lower() in ("https", "wss") else "http"


@given(
    addresses=st.lists(entries, max_size=6),
    said=st.lists(schemes, max_size=6),
    hops=st.none() | st.integers(1, 4),
)
def test_the_walk_agrees_with_its_description(
    addresses: list[str], said: list[str], hops: int | None
) -> None:
    environ = {"REMOTE_ADDR": "10.0.0.1", "wsgi.url_scheme": "http", "HTTP_HOST": "www.example.com"}
    if addresses != [""]:  # a list of one empty entry cannot be told from an empty field
        environ["HTTP_X_FORWARDED_FOR"] = ", ".join(addresses)
    else:
        addresses = []
    if said:
        environ["HTTP_X_FORWARDED_PROTO"] = ",".join(said)
    origin = ProxyTrust(["10.0.0.0/8", "fd00::/8"], hops=hops).resolve(environ)
    assert (origin.client_ip, origin.scheme) == model("10.0.0.1", addresses, said, hops)


@given(
    elements=st.lists(st.tuples(entries, st.none() | schemes), max_size=6), hops=st.none() | st.integers(1, 4)
)
def test_both_families_tell_the_same_story(elements: list[tuple[str, str | None]], hops: int | None) -> None:
    """Where every proxy says its scheme, RFC 7239 and the older headers lead to the same client and scheme."""
    whole = [(entry, scheme or "http") for entry, scheme in elements]
    environ = {"REMOTE_ADDR": "10.0.0.1", "wsgi.url_scheme": "http", "HTTP_HOST": "www.example.com"}
    older, newer = dict(environ), dict(environ)
    if whole and whole[0][0]:
        older["HTTP_X_FORWARDED_FOR"] = ", ".join(entry for entry, _ in whole)
        older["HTTP_X_FORWARDED_PROTO"] = ", ".join(scheme for _, scheme in whole)
        newer["HTTP_FORWARDED"] = ", ".join(f'for="{entry}";proto={scheme}' for entry, scheme in whole)
    proxies = ["10.0.0.0/8", "fd00::/8"]
    assert ProxyTrust(proxies, hops=hops).resolve(older) == ProxyTrust(
        proxies, family="forwarded", hops=hops
    ).resolve(newer)


# --- CSRF: tokens outlive what they belong to ----------------------------------------------------------------


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    session = environ["mks_hardening.session"]
    change = {"/sign-in": lambda: session.start("taro"), "/rotate": session.rotate, "/sign-out": session.end}
    change.get(environ["PATH_INFO"], lambda: None)()
    token = str(environ["mks_hardening.csrf_token"]) if environ["PATH_INFO"] == "/form" else ""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [token.encode()]


class Browser:
    """A cookie jar, and the secret its forms belong to at the moment, as the model has it."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.cookies = {"other": "1"}
        self.signed_in = False
        self.epoch = 0
        self.anonymous: object | None = None

    def ask(self, path: str, *, method: str = "GET", token: str | None = None) -> Any:
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        if token is not None:
            headers["X-CSRF-Token"] = token
        answer = call_wsgi(self.app, path, method=method, headers=headers, scheme="https")
        for name, value in answer.headers:
            if name.lower() == "set-cookie":
                pair, *attributes = value.split(";")
                key, _, content = pair.partition("=")
                self.cookies.pop(key, None)
                if not any(attribute.strip().lower() == "max-age=0" for attribute in attributes):
                    self.cookies[key] = content
        return answer

    @property
    def secret(self) -> object:
        """What a token must have been made for to be valid now."""
        return (id(self), self.epoch) if self.signed_in else self.anonymous


class Tokens(RuleBasedStateMachine):
    """Three browsers fill in forms, sign in and out, and send tokens of any age to any of them."""

    shell = "wsgi"
    tokens: Bundle[tuple[str, object]] = Bundle("tokens")
    which = st.integers(0, 2)

    def __init__(self) -> None:
        super().__init__()
        # In a thread: the application calls the plain methods of its session.
        csrf, session = (
            over(self.shell, kind, in_thread=True) for kind in (CSRFMiddleware, SessionTimeoutMiddleware)
        )
        app = csrf(application, allowed_origins=["https://www.example.com"])
        stack = session(app, store=MemorySessionStore())
        self.browsers = [Browser(stack) for _ in range(3)]

    @rule(target=tokens, which=which)
    def open_form(self, which: int) -> tuple[str, object]:
        browser = self.browsers[which]
        token = browser.ask("/form").body.decode()
        if not browser.signed_in and browser.anonymous is None:
            browser.anonymous = object()
        return token, browser.secret

    @rule(which=which)
    def sign_in(self, which: int) -> None:
        browser = self.browsers[which]
        browser.ask("/sign-in")
        browser.signed_in = True
        browser.epoch += 1

    @rule(which=which)
    def rotate(self, which: int) -> None:
        browser = self.browsers[which]
        browser.ask("/rotate")
        browser.epoch += browser.signed_in

    @rule(which=which)
    def sign_out(self, which: int) -> None:
        browser = self.browsers[which]
        browser.ask("/sign-out")
        browser.signed_in = False

    @rule(which=which, kept=tokens)
    def send(self, which: int, kept: tuple[str, object]) -> None:
        browser = self.browsers[which]
        token, secret = kept
        status = browser.ask("/write", method="POST", token=token).status
        assert status == (200 if secret is not None and secret == browser.secret else 403)

    @rule(which=which, kept=consumes(tokens))
    def send_spoilt(self, which: int, kept: tuple[str, object]) -> None:
        token = kept[0]
        spoilt = token[:-1] + ("0" if token[-1] != "0" else "1")
        assert self.browsers[which].ask("/write", method="POST", token=spoilt).status == 403

    @invariant()
    def a_request_without_token_never_passes(self) -> None:
        assert {browser.ask("/write", method="POST").status for browser in self.browsers} == {403}


TestTokens = Tokens.TestCase
TestTokens.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)


class ASGITokens(Tokens):
    """The same browsers before the ASGI middleware."""

    shell = ODD


TestASGITokens = ASGITokens.TestCase
TestASGITokens.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)


# --- health: what is told follows what is, with one round a second at the most --------------------------------


class Health(RuleBasedStateMachine):
    """Two required checks and an optional one go and come back while probes arrive."""

    shell = "wsgi"
    names = st.sampled_from(["db", "redis", "mail"])

    def __init__(self) -> None:
        super().__init__()
        self.up = {"db": True, "redis": True, "mail": True}
        self.asked = 0
        self.rounds = 0
        self.clock = FrozenClock()
        self.last: tuple[float, tuple[int, str]] | None = None
        self.app = over(self.shell, HealthMiddleware)(
            application,
            required={"db": lambda: self.check("db"), "redis": lambda: self.check("redis")},
            optional={"mail": lambda: self.check("mail")},
            cache_for=1,
            timeout=5,
            clock=self.clock,
        )

    def check(self, name: str) -> bool:
        self.asked += 1
        if name == "redis" and not self.up[name]:
            raise ConnectionError
        return self.up[name]

    @rule(name=names)
    def fails(self, name: str) -> None:
        self.up[name] = False

    @rule(name=names)
    def recovers(self, name: str) -> None:
        self.up[name] = True

    @rule(seconds=st.sampled_from([0.4, 0.7, 1.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def readiness(self) -> None:
        now = self.clock.monotonic()
        if self.last is None or now - self.last[0] >= 1:
            ready = self.up["db"] and self.up["redis"]
            state = "unavailable" if not ready else "ok" if self.up["mail"] else "degraded"
            self.last = now, (200 if ready else 503, state)
            self.rounds += 1
        answer = call_wsgi(self.app, "/readyz")
        assert (answer.status, f'"{self.last[1][1]}"' in answer.body.decode()) == (
            self.last[1][0],
            True,
        )
        assert self.asked == 3 * self.rounds

    @rule()
    def liveness(self) -> None:
        before = self.asked
        assert call_wsgi(self.app, "/livez").status == 200
        assert self.asked == before


TestHealth = Health.TestCase
TestHealth.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


class ASGIHealth(Health):
    """The same checks behind the ASGI middleware."""

    shell = "asgi"


TestASGIHealth = ASGIHealth.TestCase
TestASGIHealth.settings = settings(max_examples=12, stateful_step_count=30, deadline=None)

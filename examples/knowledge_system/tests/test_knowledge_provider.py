"""Sign-in at an identity provider: linked accounts, second factors, sign-out, and every attack on the way."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import jwt
import pytest
from sqlalchemy import func, select, update

from identity_provider import CLIENT, SECRET, IdentityProvider, running_provider
from knowledge_system.configuration_check import findings
from knowledge_system.models import ProviderIdentity, User
from knowledge_system.services import audit
from knowledge_system.settings import DEMO_PASSWORD, AppSettings
from mks_hardening.exceptions import SettingsError
from mks_hardening.security import SecretBox, totp_code
from mks_hardening.testing import FrozenClock

URL = "https://localhost:8443"
MORI = {"sub": "mori-1", "email": "tanaka@knowledge.example", "email_verified": True, "name": "田中 健一"}
NEW = {"sub": "new-1", "email": "Hata.Takashi@knowledge.example", "email_verified": True, "name": "秦 髙志"}


@pytest.fixture
def provider(clock: FrozenClock) -> Iterator[IdentityProvider]:
    with running_provider(clock.time) as running:
        yield running


@pytest.fixture
def make(make_app: Callable[..., Any], provider: IdentityProvider) -> Callable[..., Any]:
    """Make an application with the provider, in which tanaka has the address of ``MORI``."""

    def made(*, database_url: str = "", MKS_REDIS_URL: str = "", **own: Any) -> Any:  # noqa: N803 - its name
        variables = {"MKS_REDIS_URL": MKS_REDIS_URL} if MKS_REDIS_URL else {}
        settings = {"issuer": provider.issuer, "client_id": CLIENT, "client_secret": SECRET, **own}
        given = {f"oidc_{name}": value for name, value in settings.items()}
        app = make_app(own=given, database_url=database_url, **variables)
        with app.extensions["knowledge"].sessions.begin() as session:
            session.execute(update(User).where(User.username == "tanaka").values(email=MORI["email"]))
        return app

    return made


@pytest.fixture
def app(make: Callable[..., Any]) -> Any:
    return make()


def begun(browser: Any, path: str = "/sign-in/provider?next=%2Freports") -> str:
    answer = browser.get(path)
    assert answer.status_code == 303, answer.text
    return answer.location


def signed_in(browser: Any, provider: IdentityProvider, **claims: Any) -> Any:
    return browser.get(provider.authenticate(begun(browser), **claims))


def me(browser: Any) -> str:
    answer = browser.api("GET", "/api/auth/me")
    return str(answer.json["username"]) if answer.status_code == 200 else ""


def reasons(app: Any) -> list[str]:
    """The reasons of refused sign-ins in the audit log, newest first."""
    with app.extensions["knowledge"].sessions() as session:
        noted = audit.entries(session, query="", before=None)
    return [entry["detail"].get("reason", "") for entry in noted if entry["action"] == "sign-in.refused"]


def actions(app: Any) -> list[str]:
    with app.extensions["knowledge"].sessions() as session:
        return [entry["action"] for entry in audit.entries(session, query="", before=None)]


def linked(app: Any) -> int:
    with app.extensions["knowledge"].sessions() as session:
        return int(session.scalar(select(func.count()).select_from(ProviderIdentity)))


def test_a_verified_address_links_an_account_once(
    app: Any, browser: Any, provider: IdentityProvider, stranger: Callable[..., Any]
) -> None:
    address = begun(browser)
    asked = dict(parse_qsl(urlsplit(address).query))
    assert asked["redirect_uri"] == f"{URL}/sign-in/provider/callback"
    assert asked["scope"] == "openid email profile"
    answer = browser.get(provider.authenticate(address, **MORI))
    assert (answer.status_code, answer.location) == (303, "/reports")
    assert answer.headers["Cache-Control"] == "no-store"
    assert me(browser) == "tanaka"
    assert {"account.link", "sign-in.done"} <= {*actions(app)}
    # From now on, issuer and subject alone: a new address of the person, or none, changes nothing.
    again = stranger(app)
    assert signed_in(again, provider, sub="mori-1").location == "/reports"
    assert me(again) == "tanaka"
    assert actions(app).count("account.link") == 1
    # Somebody else whom the provider gives the address now does not get the account.
    other = stranger(app)
    assert signed_in(other, provider, **{**MORI, "sub": "other"}).status_code == 403
    assert me(other) == ""
    assert (reasons(app), linked(app)) == (["linked"], 1)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({**MORI, "email_verified": False}, "unverified"),
        ({**MORI, "email_verified": "true"}, "unverified"),
        ({**MORI, "email_verified": ...}, "unverified"),
        ({**MORI, "email": ...}, "unverified"),
        (NEW, "no_account"),
        ({**MORI, "sub": ...}, "malformed"),
        ({**MORI, "iss": "https://evil.example"}, "issuer"),
        ({**MORI, "aud": "other"}, "audience"),
        ({**MORI, "aud": [CLIENT, "other"]}, "audience"),
        ({**MORI, "azp": "other"}, "audience"),
        ({**MORI, "nonce": "x" * 43}, "nonce"),
        ({**MORI, "nonce": ...}, "nonce"),
        ({**MORI, "exp": 1}, "expired"),
        ({**MORI, "iat": 1}, "expired"),
        ({**MORI, "exp": ...}, "malformed"),
    ],
)
def test_what_a_token_must_say(
    app: Any, browser: Any, provider: IdentityProvider, claims: dict[str, Any], reason: str
) -> None:
    answer = signed_in(browser, provider, **claims)
    assert answer.status_code == 403
    assert "このアカウントではサインインできません" in answer.text
    assert (me(browser), reasons(app), linked(app)) == ("", [reason], 0)


def _hs256_with_the_public_key(provider: IdentityProvider) -> Callable[[dict[str, Any]], str]:
    import base64
    import hashlib
    import hmac

    def token(claims: dict[str, Any]) -> str:  # PyJWT itself refuses to make it
        head = {"alg": "HS256", "typ": "JWT", "kid": provider.kid}
        parts = [base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in (head, claims)]
        signature = hmac.new(provider.public_pem, b".".join(parts), hashlib.sha256).digest()
        return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()

    return token


FORGED: dict[str, Callable[[IdentityProvider], Callable[[dict[str, Any]], str]]] = {
    "alg none": lambda _: lambda claims: jwt.encode(claims, None, algorithm="none"),
    "HS256 with the public key": _hs256_with_the_public_key,
    "HS256 with the secret": lambda at: (
        lambda claims: jwt.encode(claims, "x" * 32, algorithm="HS256", headers={"kid": at.kid})
    ),
    "another algorithm of the key": lambda at: (
        lambda claims: jwt.encode(claims, at.key, algorithm="PS256", headers={"kid": at.kid})
    ),
    "changed after it was signed": lambda at: (
        lambda claims: ".".join(
            jwt.encode({**claims, "n": n}, at.key, algorithm="RS256", headers={"kid": at.kid}).split(".")[n]
            for n in range(3)
        )
    ),
    "unknown key": lambda at: (
        lambda claims: jwt.encode(claims, at.key, algorithm="RS256", headers={"kid": "k9"})
    ),
    "key in its own header": lambda at: (
        lambda claims: jwt.encode(
            claims,
            jwt.algorithms.RSAAlgorithm.from_jwk(OWN_KEY),
            algorithm="RS256",
            headers={"kid": at.kid, "jwk": {"kty": "RSA"}, "jku": "https://evil.example/jwks"},
        )
    ),
    "no token at all": lambda _: lambda _claims: "none",
    "without signature": lambda at: lambda claims: at.signed(claims).rpartition(".")[0] + ".",
}


def _own_key() -> str:
    from cryptography.hazmat.primitives.asymmetric import rsa

    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return json.dumps(jwt.algorithms.RSAAlgorithm.to_jwk(made, as_dict=True))


OWN_KEY = _own_key()


@pytest.mark.parametrize("name", FORGED)
def test_only_the_provider_signs(app: Any, browser: Any, provider: IdentityProvider, name: str) -> None:
    provider.token = FORGED[name](provider)
    assert signed_in(browser, provider, **MORI).status_code == 403
    assert (me(browser), reasons(app), linked(app)) == ("", ["signature"], 0)


def changed(path: str, **fields: str | None) -> str:
    parts = urlsplit(path)
    given = {**dict(parse_qsl(parts.query)), **fields}
    return f"{parts.path}?{urlencode({name: value for name, value in given.items() if value is not None})}"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"state": "x" * 43}, (400, [])),
        ({"state": None}, (400, [])),
        ({"state": ""}, (400, [])),
        ({"iss": "https://evil.example"}, (403, ["issuer"])),  # mix-up of two providers
        ({"iss": None}, (403, ["issuer"])),  # the provider says that it always sends it
        ({"code": "guessed"}, (403, ["code"])),
        ({"code": None}, (403, [])),
        (
            {"code": None, "error": "access_denied", "error_description": "<script>alert(1)</script>"},
            (403, []),
        ),
    ],
)
def test_what_a_response_must_say(
    app: Any,
    browser: Any,
    provider: IdentityProvider,
    fields: dict[str, str | None],
    expected: tuple[int, list[str]],
) -> None:
    answer = browser.get(changed(provider.authenticate(begun(browser), **MORI), **fields))
    assert "alert(1)" not in answer.text
    assert (me(browser), answer.status_code, reasons(app)) == ("", *expected)


def test_a_response_is_used_once_and_by_the_browser_that_asked(
    app: Any, browser: Any, provider: IdentityProvider, stranger: Callable[..., Any]
) -> None:
    back = provider.authenticate(begun(browser), **MORI)
    victim = stranger(app)
    assert victim.get(back).status_code == 400  # a link with the attacker's own code
    begun(victim)
    assert victim.get(back).status_code == 400  # with a cookie of its own, too
    assert browser.get(back).status_code == 303  # neither used it up
    assert me(browser) == "tanaka"
    assert browser.get(back).location == "/"  # loaded again by the person who is signed in
    stranger = stranger(app)
    for cookie in browser.client._cookies.values():
        if "provider" in cookie.key:
            stranger.client.set_cookie(cookie.key, cookie.value, domain="localhost")
    assert stranger.get(back).status_code == 400
    assert provider.asked.count("/token") == 1


def test_a_response_comes_in_time(
    app: Any, browser: Any, provider: IdentityProvider, clock: FrozenClock
) -> None:
    back = provider.authenticate(begun(browser), **MORI)
    clock.advance(601)
    assert browser.get(back).status_code == 400


def test_two_tabs_sign_in(app: Any, browser: Any, provider: IdentityProvider) -> None:
    first = provider.authenticate(begun(browser, "/sign-in/provider?next=%2Freports"), **MORI)
    second = provider.authenticate(begun(browser, "/sign-in/provider?next=%2Ftree"), **MORI)
    assert browser.get(second).location == "/tree"
    assert browser.get(first).location == "/reports"
    assert me(browser) == "tanaka"


@pytest.mark.parametrize(
    "path",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/\t/evil.example"],
)
def test_a_sign_in_leads_to_pages_of_this_site(
    app: Any, browser: Any, provider: IdentityProvider, path: str
) -> None:
    back = provider.authenticate(begun(browser, f"/sign-in/provider?{urlencode({'next': path})}"), **MORI)
    assert browser.get(changed(back, next=path)).location == "/"


def test_a_session_gets_a_new_id(
    app: Any, browser: Any, provider: IdentityProvider, stranger: Callable[..., Any]
) -> None:
    def cookie() -> str:
        return next(each.value for each in browser.client._cookies.values() if each.key.endswith("session"))

    assert browser.sign_in("suzuki").status_code == 303
    planted = cookie()
    assert signed_in(browser, provider, **MORI).status_code == 303
    assert cookie() != planted
    attacker = stranger(app)
    attacker.client.set_cookie(
        next(key for each in browser.client._cookies.values() if (key := each.key).endswith("session")),
        planted,
        domain="localhost",
    )
    assert me(attacker) == ""


def enrolled(app: Any, username: str, clock: FrozenClock) -> str:
    services = app.extensions["knowledge"]
    with services.sessions() as session:
        user_id = str(session.scalar(select(User.id).where(User.username == username)))
    secret = services.two_factor.begin_enrolment(user_id, account_name=username).secret
    services.two_factor.confirm_enrolment(user_id, totp_code(secret, at=clock.time()))
    clock.advance(30)
    return str(secret)


def test_the_second_factor_of_either_side(
    app: Any, browser: Any, provider: IdentityProvider, clock: FrozenClock, stranger: Callable[..., Any]
) -> None:
    secret = enrolled(app, "tanaka", clock)
    answer = signed_in(browser, provider, **MORI, amr=["pwd"])
    assert answer.location == "/sign-in/code?next=%2Freports"
    assert me(browser) == ""
    browser.get(answer.location)
    code = totp_code(secret, at=clock.time())
    assert browser.post("/sign-in/code", {"code": code, "next": "/reports"}).location == "/reports"
    assert me(browser) == "tanaka"
    other = stranger(app)
    assert signed_in(other, provider, **MORI, amr=["pwd", "mfa"]).location == "/reports"
    assert me(other) == "tanaka"


def test_a_role_that_needs_a_second_factor(
    make: Callable[..., Any], provider: IdentityProvider, stranger: Callable[..., Any]
) -> None:
    app = make()
    settings = app.extensions["knowledge"].settings
    object.__setattr__(settings, "second_factor_roles", frozenset({"writer"}))
    browser = stranger(app)
    signed_in(browser, provider, **MORI, amr=["pwd"])
    assert browser.get("/articles").location == "/account/second-factor?required=1"
    proved = stranger(app)
    signed_in(proved, provider, **MORI, amr=["mfa"])  # without a time: still a second factor
    assert proved.get("/articles").status_code == 200


def test_people_without_an_account(
    make: Callable[..., Any], provider: IdentityProvider, stranger: Callable[..., Any]
) -> None:
    app = make(new_role="viewer")
    browser = stranger(app)
    assert signed_in(browser, provider, **NEW).status_code == 303
    assert me(browser) == "hata.takashi"
    assert "account.create" in actions(app)
    with app.extensions["knowledge"].sessions() as session:
        user = session.scalar(select(User).where(User.username == "hata.takashi"))
    assert (user.role, user.display_name, user.password_hash) == ("viewer", "秦 髙志", None)
    taken = stranger(app)
    assert signed_in(
        taken, provider, sub="new-2", email="hata.takashi@example.com", email_verified=True
    ).location
    assert re.fullmatch(r"hata\.takashi-[0-9a-f]{6}", me(taken))
    for name in ("日本", "1", "-", "root@x"):
        strange = stranger(app)
        claims = {"sub": name, "email": f"{name.encode().hex()}9@example.com", "email_verified": True}
        assert signed_in(strange, provider, **claims, name="\u202e\n").status_code == 303


def test_a_new_person_in_two_tabs_gets_one_account(
    make: Callable[..., Any], provider: IdentityProvider, stranger: Callable[..., Any], postgres_url: str
) -> None:
    app = make(new_role="viewer", database_url=postgres_url)
    tabs = [stranger(app) for _ in range(4)]
    backs = [provider.authenticate(begun(tab), **NEW) for tab in tabs]
    with ThreadPoolExecutor(len(tabs)) as pool:
        answers = list(pool.map(lambda tab, back: tab.get(back).status_code, tabs, backs))
    assert answers == [303] * len(tabs)
    assert {me(tab) for tab in tabs} == {"hata.takashi"}
    assert (linked(app), actions(app).count("account.create")) == (1, 1)


def test_two_processes_share_what_has_begun(
    make: Callable[..., Any],
    provider: IdentityProvider,
    stranger: Callable[..., Any],
    redis_server: Any,
    own_database: Any,
) -> None:
    shared = {"database_url": f"sqlite:///{own_database}", "MKS_REDIS_URL": redis_server.url}
    first, second = make(**shared), make(**shared)
    browser = stranger(first)
    back = provider.authenticate(begun(browser), **MORI)
    browser.client.application = second
    assert browser.get(back).location == "/reports"
    other = stranger(first)
    other.client._cookies = browser.client._cookies
    assert other.get(back).location == "/"  # used, and signed in
    assert provider.asked.count("/token") == 1


def test_people_who_left_stay_out(
    make: Callable[..., Any], provider: IdentityProvider, stranger: Callable[..., Any]
) -> None:
    app = make(new_role="viewer")

    def leave(*, active: bool, email: str | None) -> None:
        with app.extensions["knowledge"].sessions.begin() as session:
            change = update(User).where(User.username == "tanaka")
            session.execute(change.values(active=active, email=email))

    leave(active=False, email=MORI["email"])
    assert signed_in(stranger(app), provider, **MORI).status_code == 403  # never linked
    leave(active=True, email=MORI["email"])
    browser = stranger(app)
    assert signed_in(browser, provider, **MORI).status_code == 303
    leave(active=False, email=None)  # as after the erasure of the personal data: no second account either
    assert me(browser) == ""
    assert signed_in(stranger(app), provider, **MORI).status_code == 403
    assert reasons(app) == ["disabled", "disabled"]


def test_passwords_of_people_of_the_provider(
    make: Callable[..., Any], provider: IdentityProvider, stranger: Callable[..., Any]
) -> None:
    app = make(passwords=False, emergency_accounts=frozenset({"ito"}))
    person = stranger(app)
    assert person.sign_in("tanaka").status_code == 303  # not linked yet
    assert signed_in(stranger(app), provider, **MORI).status_code == 303
    assert stranger(app).sign_in("tanaka").status_code == 401
    assert person.post("/account/confirm", {"proof": DEMO_PASSWORD, "next": "/"}).status_code != 303
    answer = stranger(app).api("POST", "/api/auth/login", {"username": "tanaka", "password": DEMO_PASSWORD})
    assert answer.status_code == 401
    with app.extensions["knowledge"].sessions.begin() as session:
        owner = session.scalar(select(User.id).where(User.username == "ito"))
        session.add(
            ProviderIdentity(key="0" * 64, user_id=owner, linked_at=app.extensions["knowledge"].clock.now())
        )
    assert stranger(app).sign_in("ito").status_code == 303  # the emergency, though linked
    assert stranger(app).sign_in("sato").status_code == 303  # not linked


def test_identity_is_confirmed_at_the_provider(
    app: Any, browser: Any, provider: IdentityProvider, clock: FrozenClock, stranger: Callable[..., Any]
) -> None:
    now = clock.time()
    signed_in(browser, provider, **MORI, auth_time=now - 7200)
    browser.get("/account/second-factor")
    assert (
        "/account/confirm"
        in browser.post("/account/second-factor/begin", {"code": "", "answer": ""}).location
    )
    page = browser.get("/account/confirm?next=%2Faccount%2Fsecond-factor").text
    link = re.search(r'href="(/sign-in/provider\?confirm[^"]+)"', page)
    assert link is not None
    address = begun(browser, link[1].replace("&amp;", "&"))
    asked = dict(parse_qsl(urlsplit(address).query))
    assert (asked["prompt"], asked["max_age"]) == ("login", "0")
    for claims in ({**MORI, "auth_time": now - 301}, MORI, {**MORI, "sub": "other", "auth_time": now}):
        again = begun(browser, link[1].replace("&amp;", "&"))
        assert browser.get(provider.authenticate(again, **claims)).status_code == 403
    assert reasons(app) == ["other_person", "not_recent", "not_recent"]
    answer = browser.get(provider.authenticate(address, **MORI, auth_time=now - 2))
    assert answer.location == "/account/second-factor"
    browser.get(answer.location)
    begin = browser.post("/account/second-factor/begin", {"code": "", "answer": ""})
    assert begin.location == "/account/second-factor"
    assert stranger(app).get("/sign-in/provider?confirm=1").location.startswith("/sign-in?")


def test_sign_out_offers_that_of_the_provider(
    app: Any, browser: Any, provider: IdentityProvider, stranger: Callable[..., Any]
) -> None:
    signed_in(browser, provider, **MORI)
    browser.get("/account")
    place = browser.post("/sign-out", {}).location
    assert place == "/sign-in?done=signed-out-here"
    assert me(browser) == ""
    assert "/sign-in/provider/end-session" in browser.get(place).text
    away = browser.get("/sign-in/provider/end-session").location
    asked = dict(parse_qsl(urlsplit(away).query))
    assert away.startswith(f"{provider.issuer}/end?")
    assert asked == {"client_id": CLIENT, "post_logout_redirect_uri": f"{URL}/sign-in?done=signed-out"}
    by_password = stranger(app)
    by_password.sign_in("suzuki")
    by_password.get("/account")
    assert by_password.post("/sign-out", {}).location == "/sign-in?done=signed-out"


def test_administrators_see_and_remove_the_link(
    app: Any,
    browser: Any,
    provider: IdentityProvider,
    visit: Callable[..., Any],
    stranger: Callable[..., Any],
) -> None:
    signed_in(browser, provider, **MORI)
    ito = visit("ito")
    page = ito.get("/admin/accounts/tanaka").text
    assert "サインインの方法</dt><dd>会社のアカウント, パスワード</dd>" in page
    assert "サインインの方法</dt><dd>パスワード</dd>" in ito.get("/admin/accounts/suzuki").text
    ito.get("/admin/accounts/tanaka")
    done = ito.post("/admin/accounts/tanaka/unlink", {}).location
    assert "連携を解除し" in ito.get(done).text
    assert (me(browser), linked(app)) == ("", 0)
    assert "account.unlink" in actions(app)
    assert signed_in(stranger(app), provider, **{**MORI, "sub": "made again"}).status_code == 303
    assert ito.post("/admin/accounts/suzuki/unlink", {}).status_code == 404
    assert browser.post("/admin/accounts/tanaka/unlink", {}).status_code in {303, 401, 403}


@pytest.mark.parametrize(
    ("language", "name", "button"),
    [("ja", "", "会社のアカウントでサインイン"), ("en", "Entra ID", "Sign in with Entra ID")],
)
def test_the_button(
    make: Callable[..., Any], language: str, name: str, button: str, stranger: Callable[..., Any]
) -> None:
    page = (
        stranger(make(name=name))
        .send("GET", "/sign-in?next=/tree", headers={"Accept-Language": language})
        .text
    )
    assert f'href="/sign-in/provider?next=%2Ftree">{button}</a>' in page


def test_without_a_provider_there_is_none(make_app: Callable[..., Any], stranger: Callable[..., Any]) -> None:
    browser = stranger(make_app())
    assert "/sign-in/provider" not in browser.get("/sign-in").text
    assert browser.get("/sign-in/provider").status_code == 404
    assert browser.get("/sign-in/provider/callback?code=x&state=y").status_code == 404
    assert browser.get("/sign-in/provider/end-session").location == "/sign-in"


DISCOVERY = "/.well-known/openid-configuration"


@pytest.mark.parametrize(
    "document",
    [
        b"{",
        b"[]",
        b'{"issuer": "https://evil.example"}',
        b"x" * 300_000,
        b"[" * 100_000,
        "http endpoint",
        "no S256",
        "another algorithm",
        "redirect",
    ],
)
def test_a_discovery_that_cannot_be_used(
    app: Any, browser: Any, provider: IdentityProvider, document: bytes | str
) -> None:
    status, body = 200, document if isinstance(document, bytes) else b""
    if document == "http endpoint":
        body = json.dumps({**provider.metadata, "token_endpoint": "http://evil.example/token"}).encode()
    elif document == "no S256":
        body = json.dumps({**provider.metadata, "code_challenge_methods_supported": ["plain"]}).encode()
    elif document == "another algorithm":
        body = json.dumps({**provider.metadata, "id_token_signing_alg_values_supported": ["none"]}).encode()
    elif document == "redirect":
        status = 302
    provider.answers[DISCOVERY] = lambda: (status, body)
    answer = browser.get("/sign-in/provider")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "15")
    assert "会社のアカウントに接続できません" in answer.text
    assert answer.headers["X-Request-ID"] in answer.text
    assert browser.sign_in("ito").status_code == 303  # with a password, everybody still gets in
    assert provider.asked == [DISCOVERY]


def test_discovery_and_keys_are_kept(
    app: Any, browser: Any, provider: IdentityProvider, clock: FrozenClock, stranger: Callable[..., Any]
) -> None:
    def fails() -> tuple[int, bytes]:
        return 500, b""

    for _ in range(3):
        assert signed_in(browser, provider, **MORI).status_code == 303
    assert (provider.asked.count(DISCOVERY), provider.asked.count("/jwks")) == (1, 1)
    provider.rotate()
    assert signed_in(browser, provider, **MORI).status_code == 403  # within seconds: not asked again
    clock.advance(16)
    assert signed_in(browser, provider, **MORI).status_code == 303
    assert provider.asked.count("/jwks") == 2
    provider.answers[DISCOVERY] = fails
    clock.advance(3601)  # while the provider does not respond, the last discovery is used for a day
    begun(stranger(app))
    begun(stranger(app))
    assert provider.asked.count(DISCOVERY) == 3
    clock.advance(86_400)
    assert stranger(app).get("/sign-in/provider").status_code == 503
    assert stranger(app).get("/sign-in/provider").status_code == 503
    assert provider.asked.count(DISCOVERY) == 4
    del provider.answers[DISCOVERY]
    clock.advance(16)
    begun(stranger(app))


def test_a_provider_that_hangs_is_waited_for_once(
    app: Any, provider: IdentityProvider, clock: FrozenClock, stranger: Callable[..., Any]
) -> None:
    def hangs() -> tuple[int, bytes]:
        clock.advance(20)  # for as long as a resolver may take
        return 500, b""

    provider.answers[DISCOVERY] = hangs
    assert [stranger(app).get("/sign-in/provider").status_code for _ in range(3)] == [503] * 3
    assert provider.asked == [DISCOVERY]
    clock.advance(16)
    del provider.answers[DISCOVERY]
    begun(stranger(app))


@pytest.mark.parametrize(
    ("status", "body"), [(500, b""), (200, b"{}"), (200, b"<html>"), (200, b'{"id_token": 7}'), (302, b"")]
)
def test_a_token_endpoint_that_fails(
    app: Any, browser: Any, provider: IdentityProvider, status: int, body: bytes
) -> None:
    provider.answers["/token"] = lambda: (status, body)
    answer = signed_in(browser, provider, **MORI)
    assert answer.status_code == 503
    assert answer.headers["X-Request-ID"] in answer.text
    assert me(browser) == ""


def test_no_secret_and_no_token_is_shown_or_logged(
    app: Any, browser: Any, provider: IdentityProvider, caplog: pytest.LogCaptureFixture
) -> None:
    tokens: list[str] = []
    provider.token = lambda claims: tokens.append(provider.signed(claims)) or tokens[-1]
    caplog.set_level(logging.DEBUG)
    pages = []
    back = ""
    for claims in (MORI, {**MORI, "nonce": "x"}):
        back = provider.authenticate(begun(browser), **claims)
        answer = browser.get(back)
        pages.append(answer.text + str(answer.headers))
    seen = "".join(pages) + "".join(
        record.getMessage() + str(record.__dict__)
        for record in caplog.records
        if "werkzeug" not in record.name
    )
    code = dict(parse_qsl(urlsplit(back).query))["code"]
    assert len(tokens) == 2
    for secret in (*tokens, SECRET, "opaque-access-token", code):
        assert secret not in seen
    services = app.extensions["knowledge"]
    assert SECRET not in repr(services.settings) + repr(services.provider)


def test_the_limit_of_the_network(app: Any, provider: IdentityProvider, stranger: Callable[..., Any]) -> None:
    answers = [stranger(app).get("/sign-in/provider") for _ in range(301)]
    assert [answer.status_code for answer in answers[-2:]] == [303, 429]


def test_the_check_before_people_come(
    make: Callable[..., Any], provider: IdentityProvider, clock: FrozenClock
) -> None:
    def found(**own: Any) -> list[str]:
        settings = make(**own).extensions["knowledge"].settings
        return [finding.text for finding in findings(settings, clock=clock) if "OIDC" in finding.text]

    assert found() == []
    assert found(passwords=False, emergency_accounts=frozenset({"ito"})) == []
    for names in ({"tanaka"}, {"nobody"}):  # no administrator
        [text] = found(passwords=False, emergency_accounts=frozenset(names))
        assert "names no active administrator" in text
    provider.answers[DISCOVERY] = lambda: (404, b"")
    [text] = found()
    assert text == f"OpenIDProvider('{provider.issuer}') cannot be used: status 404 (MKS_OIDC_ISSUER)"


SETTINGS = {
    "MKS_OIDC_ISSUER": "https://id.example.com",
    "MKS_OIDC_CLIENT_ID": CLIENT,
    "MKS_OIDC_CLIENT_SECRET": SECRET,
}


@pytest.mark.parametrize(
    ("variables", "error"),
    [
        ({}, ""),
        ({"MKS_OIDC_ISSUER": "http://127.0.0.1:9000"}, ""),
        ({"MKS_OIDC_ISSUER": "http://id.example.com"}, "MKS_OIDC_ISSUER"),
        ({"MKS_OIDC_ISSUER": "http://127.0.0.1:9000", "MKS_ENV": "production"}, "MKS_OIDC_ISSUER"),
        ({"MKS_OIDC_ISSUER": "https://id.example.com?x"}, "MKS_OIDC_ISSUER"),
        ({"MKS_OIDC_ISSUER": "https://me@id.example.com"}, "MKS_OIDC_ISSUER"),
        ({"MKS_OIDC_ISSUER": "https://login.microsoftonline.com/common/v2.0"}, "a single tenant"),
        ({"MKS_OIDC_ISSUER": "https://login.microsoftonline.com/organizations/v2.0"}, "a single tenant"),
        ({"MKS_OIDC_ISSUER": "https://accounts.google.com"}, "MKS_OIDC_HOSTED_DOMAIN"),
        (
            {"MKS_OIDC_ISSUER": "https://accounts.google.com", "MKS_OIDC_HOSTED_DOMAIN": "example.co.jp"},
            "",
        ),
        ({"MKS_OIDC_CLIENT_ID": ""}, "MKS_OIDC_CLIENT_ID"),
        ({"MKS_OIDC_CLIENT_SECRET": ""}, "MKS_OIDC_CLIENT_SECRET"),
        ({"MKS_OIDC_ALGORITHM": "HS256"}, "MKS_OIDC_ALGORITHM"),
        ({"MKS_OIDC_ALGORITHM": "none"}, "MKS_OIDC_ALGORITHM"),
        ({"MKS_OIDC_TENANT_EMAILS": "1"}, "MKS_OIDC_TENANT"),
        ({"MKS_OIDC_NEW_ROLE": "admin"}, "MKS_OIDC_NEW_ROLE"),
        ({"MKS_OIDC_NEW_ROLE": "boss"}, "MKS_OIDC_NEW_ROLE"),
        ({"MKS_OIDC_PASSWORDS": "0"}, "MKS_OIDC_EMERGENCY_ACCOUNTS"),
        ({"MKS_OIDC_PASSWORDS": "0", "MKS_OIDC_EMERGENCY_ACCOUNTS": "ito"}, ""),
    ],
)
def test_settings_of_the_provider(variables: dict[str, str], error: str) -> None:
    basic = {
        "MKS_ENV": "test",
        "MKS_ALLOWED_HOSTS": "localhost",
        "MKS_SECRET_KEYS": SecretBox.generate_key(),
        "DATABASE_URL": "sqlite:///x.db",
    }
    environ = {**basic, **SETTINGS, **variables}
    if not error:
        assert AppSettings.from_env(environ).oidc_client_secret == SECRET
        return
    with pytest.raises(SettingsError) as refused:
        AppSettings.from_env(environ)
    assert error in str(refused.value)
    assert SECRET not in str(refused.value)

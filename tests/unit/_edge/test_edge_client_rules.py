"""Blocked clients through both shells: lists of networks, and bans after offences."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fakeredis
import pytest

from mks_hardening import asgi, wsgi
from mks_hardening.cli import main
from mks_hardening.events import RequestRefused, SignInEvent, add_observer, remove_observer
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import FrozenClock, call_wsgi
from mks_hardening.wsgi import Ban, BanList, BanRule, ClientRules, ProxyTrust
from testbed.polling import wait_until

Ask = Callable[..., int]
ATTACKER, OTHER = "198.51.100.7", "198.51.100.8"
SWEEP = BanRule("sweep", strikes=3, within=60, ban=900, when={404})


def through_wsgi(path: str, peer: str, answer: int, **options: Any) -> int:
    def application(_environ: Any, start_response: Any) -> list[bytes]:
        start_response(f"{answer} X", [("Content-Type", "text/plain")])
        return [b"x"]

    app = wsgi.ClientRulesMiddleware(application, **options)
    return call_wsgi(app, path=path, environ={"REMOTE_ADDR": peer}).status


def through_asgi(path: str, peer: str, answer: int, **options: Any) -> int:
    sent: list[Any] = []

    async def application(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": answer, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "client": (peer, 1)}
    asyncio.run(asgi.ClientRulesMiddleware(application, **options)(scope, send, send))  # type: ignore[arg-type]
    return int(sent[0]["status"])


@pytest.fixture(params=[through_wsgi, through_asgi], ids=["wsgi", "asgi"])
def ask(request: pytest.FixtureRequest) -> Ask:
    def send(peer: str = ATTACKER, path: str = "/", *, answer: int = 200, **options: Any) -> int:
        status: int = request.param(path, peer, answer, **options)
        return status

    return send


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


# --- lists of networks


@pytest.mark.parametrize(
    ("peer", "status"),
    [
        ("198.51.100.7", 403),
        ("::ffff:198.51.100.7", 403),
        ("198.51.101.7", 200),
        ("2001:db8:0:1::5", 403),
        ("2001:db8:1::5", 200),
        ("not an address", 200),
    ],
)
def test_denied_networks_are_refused(ask: Ask, peer: str, status: int) -> None:
    rules = ClientRules(deny=["198.51.100.0/24", "2001:db8::/48"])
    assert ask(peer, rules=rules) == status
    assert ask(peer, rules=rules, dry_run=True) == 200


def test_deny_wins_and_allow_skips_bans(ask: Ask, clock: FrozenClock) -> None:
    rules = ClientRules(allow=["198.51.100.0/24"], deny=[OTHER])
    bans = BanList([SWEEP], clock=clock)
    bans.ban(ATTACKER, 60)
    assert ask(ATTACKER, bans=bans) == 403
    assert ask(ATTACKER, bans=bans, rules=rules) == 200
    assert ask(OTHER, bans=bans, rules=rules) == 403


def test_offences_of_allowed_clients_do_not_count(ask: Ask, clock: FrozenClock) -> None:
    rules, bans = ClientRules(allow=[ATTACKER]), BanList([SWEEP], clock=clock)
    for _ in range(5):
        assert ask(rules=rules, bans=bans, answer=404) == 404
    assert bans.bans() == []


def write(file: Path, text: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(file)


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path, ask: Ask) -> None:
    file = tmp_path / "clients"
    write(file, "# nobody yet\n\n")
    rules = ClientRules(file=file, check_interval=0.05, deny=["192.0.2.1"])
    assert ask(rules=rules) == 200
    write(file, f"deny {ATTACKER}  # scraper\nallow 203.0.113.0/24\n")
    wait_until(lambda: ask(rules=rules) == 403, timeout=5, what="the new rule")
    assert ask("192.0.2.1", rules=rules) == 403


@pytest.mark.parametrize(
    "broken", ["deny everybody", "block 192.0.2.1", "deny 192.0.2.1/24", "deny", "\udc80"]
)
def test_a_broken_file_keeps_the_last_rules_and_logs_one_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    file = tmp_path / "clients"
    write(file, f"deny {ATTACKER}\n")
    rules = ClientRules(file=file)
    file.write_bytes(
        b"# longer than before, so that it differs\n" + broken.encode("utf-8", "surrogateescape")
    )
    for _ in range(3):
        rules.reload()
        assert rules.verdict(ATTACKER) == "deny"
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    write(file, "# empty\n")
    rules.reload()
    assert rules.verdict(ATTACKER) == ""
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_a_file_that_was_missing_for_a_while_counts_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, elsewhere = tmp_path / "clients", tmp_path / "elsewhere"
    write(file, f"deny {ATTACKER}\n")
    rules = ClientRules(file=file)
    file.rename(elsewhere)
    rules.reload()
    assert rules.verdict(ATTACKER) == "deny"
    elsewhere.rename(file)
    rules.reload()
    assert len(caplog.records) == 2
    assert "valid again" in caplog.text


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"deny": ["198.51.100.7/24"]}, "deny"),
        ({"allow": "192.0.2.1"}, "allow"),
        ({"file": "/no/such/file"}, "file"),
        ({"check_interval": 0}, "check_interval"),
    ],
)
def test_wrong_lists_are_refused_by_parameter(options: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        ClientRules(**options)
    assert refused.value.parameter == parameter


# --- bans


def test_a_sweep_leads_to_a_ban_that_ends(ask: Ask, clock: FrozenClock) -> None:
    bans = BanList([SWEEP], clock=clock)
    for _ in range(3):
        assert ask(path="/wp-login.php", bans=bans, answer=404) == 404
    assert ask(bans=bans) == 403
    assert ask(OTHER, bans=bans) == 200
    assert bans.bans() == [Ban(ATTACKER, "sweep", 900)]
    clock.advance(900)
    assert ask(bans=bans) == 200
    assert bans.bans() == []


def test_offences_count_within_the_window_only(ask: Ask, clock: FrozenClock) -> None:
    bans = BanList([SWEEP], clock=clock)
    for _ in range(6):
        ask(bans=bans, answer=404)
        clock.advance(30)
    assert bans.bans() == []


def test_health_checks_pass_and_do_not_count(ask: Ask, clock: FrozenClock) -> None:
    bans = BanList([SWEEP], clock=clock)
    for _ in range(5):
        ask(path="/livez", bans=bans, answer=404)
    assert bans.bans() == []
    bans.ban(ATTACKER, 60)
    assert ask(path="/readyz", bans=bans) == 200
    assert ask(path="/readyz/../x", bans=bans) == 403


def test_a_dry_run_bans_and_refuses_nothing(
    ask: Ask, clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    bans = BanList([SWEEP], clock=clock)
    for _ in range(5):
        assert ask(bans=bans, answer=404, dry_run=True) == 404
    assert [ban.client for ban in bans.bans()] == [ATTACKER]
    assert caplog.messages == [f"client {ATTACKER} is banned for 900 s: sweep"]


def test_exempt_requests_of_banned_clients_pass(ask: Ask, clock: FrozenClock) -> None:
    bans = BanList(clock=clock)
    bans.ban(ATTACKER, 60)
    assert ask(bans=bans, exempt=lambda request: "mks_hardening.origin" in request or True) == 200
    assert ask(bans=bans, exempt=lambda _: False) == 403


def test_refusals_are_named(clock: FrozenClock, ask: Ask) -> None:
    seen: list[Any] = []
    bans, rules = BanList(clock=clock), ClientRules(deny=[OTHER])
    bans.ban(ATTACKER, 60)
    add_observer(seen.append)
    try:
        ask(bans=bans, rules=rules)
        ask(OTHER, bans=bans, rules=rules)
    finally:
        remove_observer(seen.append)
    assert seen == [
        RequestRefused("client_rules", "banned", ATTACKER),
        RequestRefused("client_rules", "denied", OTHER),
    ]


def test_repeaters_get_longer_bans_until_they_are_forgotten(clock: FrozenClock) -> None:
    rule = BanRule("r", strikes=1, ban=900, growth=2, longest=3000, forget=604_800)
    bans = BanList([rule], clock=clock)
    assert lengths(bans, clock, times=4) == [900, 1800, 3000, 3000]
    clock.advance(604_799)
    assert lengths(bans, clock, times=1) == [3000]
    clock.advance(604_800)
    assert lengths(bans, clock, times=1) == [900]


def lengths(bans: BanList, clock: FrozenClock, *, times: int) -> list[float]:
    found = []
    for _ in range(times):
        assert bans.strike(ATTACKER, "r")
        found.append(bans.bans()[0].seconds_left)
        clock.advance(found[-1])
    return found


def test_rules_count_by_themselves(clock: FrozenClock) -> None:
    bans = BanList([BanRule("a", strikes=2), BanRule("b", strikes=2)], clock=clock)
    assert not bans.strike(ATTACKER, "a")
    assert not bans.strike(ATTACKER, "b")
    assert bans.strike(ATTACKER, "b")
    with pytest.raises(ConfigurationError, match="rule"):
        bans.strike(ATTACKER, "c")


def test_events_are_offences(clock: FrozenClock) -> None:
    rules = [
        BanRule("forgery", strikes=2, when={"RequestRefused.csrf"}),
        BanRule("guessing", strikes=2, when={"SignInEvent.refused", "SignInEvent.factor_refused"}),
    ]
    bans = BanList(rules, clock=clock)
    for _ in range(2):
        bans.observe(RequestRefused("csrf", "origin", ATTACKER))
        bans.observe(RequestRefused("rate_limit", "pages", OTHER))
        bans.observe(SignInEvent("refused", client="2001:db8:0:1::/64"))
        bans.observe(SignInEvent("signed_in", client=OTHER))
        bans.observe(SignInEvent("refused", client=""))
        bans.observe("anything")
    assert {(ban.client, ban.reason) for ban in bans.bans()} == {
        (ATTACKER, "forgery"),
        ("2001:db8:0:1::/64", "guessing"),
    }


def test_a_function_judges_responses(ask: Ask, clock: FrozenClock) -> None:
    rule = BanRule("php", strikes=1, when=lambda path, status: status == 404 and path.endswith(".php"))
    broken = BanRule("broken", strikes=1, when=lambda path, status: bool(path[999]))
    bans = BanList([broken, rule], clock=clock)
    assert ask(path="/x", bans=bans, answer=404) == 404
    assert ask(path="/x.php", bans=bans) == 200
    assert bans.bans() == []
    ask(path="/x.php", bans=bans, answer=404)
    assert ask(bans=bans) == 403


def test_an_ipv6_network_is_one_client(ask: Ask, clock: FrozenClock) -> None:
    bans = BanList([SWEEP], clock=clock)
    for number in range(3):
        ask(f"2001:db8:0:1::{number}", bans=bans, answer=404)
    assert ask("2001:db8:0:1:ffff::", bans=bans) == 403
    assert ask("2001:db8:0:2::", bans=bans) == 200
    wide = BanList([SWEEP], clock=clock, ipv6_prefix=48)
    wide.ban("2001:db8:5:1::1", 60)
    assert ask("2001:db8:5:ffff::1", bans=wide) == 403


@pytest.mark.parametrize(
    "peer", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.1.2.3", "203.0.113.9", "", "unknown", "fe80::1%eth0"]
)
def test_proxies_loopback_and_unknown_peers_are_never_banned(
    ask: Ask, clock: FrozenClock, caplog: pytest.LogCaptureFixture, peer: str
) -> None:
    bans = BanList([SWEEP], clock=clock, trust=ProxyTrust(["203.0.113.0/24"]))
    for _ in range(9):
        assert ask(peer, bans=bans, answer=404) == 404
    assert bans.bans() == []
    assert len(caplog.records) == 1
    assert not bans.strike(peer, "sweep")
    if peer not in ("", "unknown"):
        with pytest.raises(ConfigurationError, match="never banned"):
            bans.ban(peer, 60)


def test_private_clients_can_be_banned_if_asked_for(ask: Ask, clock: FrozenClock) -> None:
    bans = BanList([SWEEP], clock=clock, never=())
    bans.ban("10.1.2.3", 60)
    assert ask("10.1.2.3", bans=bans) == 403


def test_lifting_ends_a_ban_and_forgets_offences(clock: FrozenClock) -> None:
    bans = BanList([BanRule("r", strikes=2)], clock=clock)
    bans.strike(ATTACKER, "r")
    assert bans.strike(ATTACKER, "r")
    assert bans.lift(ATTACKER)
    assert not bans.lift(ATTACKER)
    assert not bans.strike(ATTACKER, "r")
    assert bans.strike(ATTACKER, "r")
    assert bans.bans()[0].seconds_left == 900


def test_a_ban_never_becomes_shorter(clock: FrozenClock) -> None:
    bans = BanList(clock=clock)
    bans.ban(ATTACKER, 600, reason="long")
    bans.ban(ATTACKER, 60)
    assert bans.bans() == [Ban(ATTACKER, "long", 600)]


def test_memory_is_bounded(clock: FrozenClock) -> None:
    bans = BanList([BanRule("r", strikes=1), BanRule("s", strikes=9)], clock=clock, max_bans=100)
    bans.ban(ATTACKER, 7200)
    for number in range(2000):
        address = f"203.0.{number // 200}.{number % 200}"
        bans.strike(address, "s")
        bans.strike(address, "r")
    assert len(bans.bans()) <= 100
    assert bans.is_banned(ATTACKER)
    assert len(bans._strikes._records) == 100


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"name": ""}, "name"),
        ({"name": "a:b"}, "name"),
        ({"strikes": 0}, "strikes"),
        ({"within": 0}, "within"),
        ({"ban": 0}, "ban"),
        ({"ban": 90_000}, "longest"),
        ({"longest": 31 * 86_400}, "longest"),
        ({"growth": 0.5}, "growth"),
        ({"forget": -1}, "forget"),
        ({"when": {200}}, "when"),
        ({"when": "404"}, "when"),
        ({"when": 404}, "when"),
        ({"when": {"csrf"}}, "when"),
        ({"when": {404, "RequestRefused.csrf"}}, "when"),
    ],
)
def test_wrong_rules_are_refused_by_parameter(options: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        BanRule(**{"name": "r", **options})
    assert refused.value.parameter == parameter


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"rules": [SWEEP, SWEEP]}, "rules"),
        ({"rules": ["sweep"]}, "rules"),
        ({"store": 5}, "store"),
        ({"never": ["proxy"]}, "never"),
        ({"trust": ["10.0.0.1"]}, "trust"),
        ({"ipv6_prefix": 128}, "ipv6_prefix"),
        ({"max_bans": 0}, "max_bans"),
    ],
)
def test_wrong_ban_lists_are_refused_by_parameter(options: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        BanList(**options)
    assert refused.value.parameter == parameter


@pytest.mark.parametrize(
    ("client", "duration", "parameter"),
    [
        ("198.51.100.0/24", 60, "client"),
        ("2001:db8::/48", 60, "client"),
        ("office", 60, "client"),
        (ATTACKER, 0, "duration"),
        (ATTACKER, 31 * 86_400, "duration"),
    ],
)
def test_wrong_bans_are_refused_by_parameter(client: str, duration: float, parameter: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        BanList().ban(client, duration)
    assert refused.value.parameter == parameter


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({}, "rules"),
        ({"rules": "deny"}, "rules"),
        ({"bans": []}, "bans"),
        ({"bans": BanList(), "exempt": 5}, "exempt"),
        ({"bans": BanList(), "dry_run": 1}, "dry_run"),
        ({"bans": BanList(), "pass_paths": ["/"]}, "pass_paths"),
    ],
)
def test_wrong_options_are_refused_by_parameter(ask: Ask, options: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        ask(**options)
    assert refused.value.parameter == parameter


def test_a_banned_socket_is_refused_before_it_is_opened() -> None:
    sent: list[Any] = []

    async def application(_scope: Any, _receive: Any, _send: Any) -> None:
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    bans = BanList()
    bans.ban(ATTACKER, 60)
    scope = {"type": "websocket", "path": "/", "headers": [], "client": (ATTACKER, 1)}
    asyncio.run(asgi.ClientRulesMiddleware(application, bans=bans)(scope, send, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]


# --- shared through Redis


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def shared(server: fakeredis.FakeServer) -> Iterator[Callable[..., BanList]]:
    made: list[BanList] = []

    def make(*rules: BanRule, **options: Any) -> BanList:
        made.append(BanList(rules, store=fakeredis.FakeRedis(server=server), **options))
        return made[-1]

    yield make
    server.connected = True
    for bans in made:
        bans.close()


def soon(condition: Callable[[], object]) -> None:
    wait_until(condition, timeout=5, what="the exchange with Redis")


def test_processes_share_offences_and_bans(shared: Callable[..., BanList], ask: Ask) -> None:
    first, second = shared(SWEEP), shared(SWEEP)
    ask(bans=first, answer=404)
    ask(bans=second, answer=404)
    soon(lambda: first.strike(ATTACKER, "sweep"))
    soon(lambda: ask(bans=second) == 403)
    assert second.lift(ATTACKER)
    soon(lambda: ask(bans=first) == 200)


def test_repeaters_get_longer_bans_in_redis(shared: Callable[..., BanList]) -> None:
    bans = shared(BanRule("r", strikes=1, ban=1, growth=3, longest=4))
    assert bans.strike(ATTACKER, "r")
    soon(lambda: not bans.bans())
    assert bans.strike(ATTACKER, "r")
    assert bans.strike(ATTACKER, "r")  # it is banned, so this does not count
    assert 2 < bans.bans()[0].seconds_left <= 3


def test_bans_in_redis_are_bounded(shared: Callable[..., BanList]) -> None:
    bans = shared(BanRule("r", strikes=1), max_bans=10)
    bans.ban(ATTACKER, 7200)
    for number in range(30):
        bans.strike(f"203.0.113.{number}", "r")
    assert len(bans.bans()) == 10
    assert bans.bans()[0].client == ATTACKER


def test_bans_continue_while_redis_is_unavailable(
    shared: Callable[..., BanList], server: fakeredis.FakeServer, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    bans, other = shared(SWEEP), shared(SWEEP)
    bans.ban(OTHER, 60)
    server.connected = False
    for _ in range(3):
        ask(bans=bans, answer=404)
    soon(lambda: ask(bans=bans) == 403)
    assert ask(OTHER, bans=bans) == 403
    assert {ban.client for ban in bans.bans()} == {ATTACKER, OTHER}
    bans.ban("203.0.113.5", 60)
    assert bans.lift(OTHER)
    assert sum("Redis of the bans is unavailable" in message for message in caplog.messages) == 1
    server.connected = True
    soon(lambda: ask(bans=other) == 403)
    soon(lambda: {ban.client for ban in other.bans()} == {ATTACKER, "203.0.113.5"})


def test_bans_survive_the_loss_of_the_data(
    shared: Callable[..., BanList], server: fakeredis.FakeServer
) -> None:
    bans = shared(SWEEP)
    bans.ban(ATTACKER, 60)
    soon(lambda: bans.is_banned(ATTACKER) and bans._known[0])
    fakeredis.FakeRedis(server=server).flushall()
    soon(lambda: bans._known[0] and fakeredis.FakeRedis(server=server).zcard("{mks:bans}:active"))
    assert bans.is_banned(ATTACKER)


def test_asyncio_methods(shared: Callable[..., BanList], clock: FrozenClock) -> None:
    async def use(bans: BanList) -> None:
        assert await bans.astrike(ATTACKER, "r")
        await bans.aban(OTHER, 60)
        assert {ban.client for ban in await bans.abans()} == {ATTACKER, OTHER}
        assert await bans.alift(OTHER)
        assert not await bans.alift(OTHER)
        await bans.aclose()

    rule = BanRule("r", strikes=1)
    asyncio.run(use(shared(rule)))
    asyncio.run(use(BanList([rule], clock=clock)))


# --- command line


def test_the_command_needs_a_store(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MKS_ENV", "development")
    monkeypatch.delenv("REDIS_URL", raising=False)
    assert main(["bans", "list"]) == 2
    assert "REDIS_URL" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--for", "soon"], ["--for", "31d"], ["--for", "0s"], ["--for", ""]])
def test_the_command_refuses_wrong_times(capsys: pytest.CaptureFixture[str], wrong: list[str]) -> None:
    assert main(["bans", "add", ATTACKER, "--redis", "redis://127.0.0.1:1", *wrong]) == 2
    assert "--for" in capsys.readouterr().err


def test_the_command_reports_an_outage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bans", "add", ATTACKER, "--for", "1h", "--redis", "redis://127.0.0.1:1"]) == 3
    assert " is unavailable" in capsys.readouterr().err

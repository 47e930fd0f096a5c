"""Passkeys with an authenticator in software: whole ceremonies, and every lie a response can tell."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from mks_hardening.events import TwoFactorEvent, add_observer, remove_observer
from mks_hardening.exceptions import ConfigurationError, InvalidCodeError
from mks_hardening.security import (
    MemoryPasskeyStore,
    MemoryTwoFactorStore,
    PasskeyAssertion,
    RelyingParty,
    SecretBox,
    TwoFactorManager,
    totp_code,
)
from mks_hardening.testing import FrozenClock
from soft_authenticator import Lies, SoftAuthenticator, b64, unb64

START = 1_700_000_010.0
ORIGIN = "https://example.com"


class Site:
    """A manager with passkeys; sessions are names."""

    def __init__(self, **options: Any) -> None:
        self.clock = FrozenClock(START)
        self.records = MemoryTwoFactorStore()
        self.store = MemoryPasskeyStore(clock=self.clock)
        party = RelyingParty("example.com", name="Knowledge", origins=[ORIGIN], **options)
        self.manager = TwoFactorManager(
            self.records,
            issuer="Knowledge",
            secret_box=SecretBox(bytes(range(32))),
            relying_party=party,
            passkey_store=self.store,
            clock=self.clock,
        )
        self.keys = self.manager.passkeys

    def register(
        self, user: str = "u", device: SoftAuthenticator | None = None, *, lies: Any = None, **options: Any
    ) -> Any:
        device = device or SoftAuthenticator(ORIGIN)
        asked = self.keys.begin_registration(user, session="s", account_name=user, **options)
        made = device.create(asked.json, lies or Lies())
        return device, self.keys.finish_registration(user, made, session="s", name="key")

    def asserted(self, device: Any, user: str = "u", lies: Any = None, session: str = "s") -> Any:
        asked = self.keys.begin_verification(user, session=session)
        return PasskeyAssertion(device.get(asked.json, lies or Lies()), session=session)

    def verify(self, device: Any, user: str = "u", lies: Any = None, **options: Any) -> Any:
        return self.manager.verify(user, self.asserted(device, user, lies), **options)

    def sign_in(self, device: Any, lies: Any = None, session: str = "s") -> Any:
        asked = self.keys.begin_sign_in(session=session)
        return self.keys.finish_sign_in(device.get(asked.json, lies or Lies()), session=session)


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def alone() -> Site:
    return Site(passwordless=True)


@pytest.fixture
def seen() -> Iterator[Any]:
    events: list[Any] = []
    add_observer(events.append)
    yield events
    remove_observer(events.append)


# --- the whole way -------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [-7, -8, -257])
def test_a_passkey_is_a_second_factor(site: Site, seen: list[Any], algorithm: int) -> None:
    device, registration = site.register(device=SoftAuthenticator(ORIGIN, algorithm))
    assert len(registration.recovery_codes) == 10
    status = site.manager.status("u")
    assert (status.enabled, status.totp, status.passkeys) == (True, False, 1)
    result = site.verify(device)
    assert (result.ok, result.method, result.reason, result.user_verified) == (True, "passkey", "", True)
    assert site.manager.verified_within("u", 0)
    assert site.manager.verify("u", registration.recovery_codes[0])
    assert [event.change for event in seen] == [
        "enrolment_begun",
        "passkey_registered",
        "verified",
        "verified",
    ]
    assert seen[2].method == "passkey"


@pytest.mark.parametrize("as_text", [True, False])
def test_a_passkey_alone_signs_in(alone: Site, as_text: bool) -> None:
    device, _ = alone.register()
    options = alone.keys.begin_sign_in(session="s")
    assert options.public_key["allowCredentials"] == []
    assert options.public_key["userVerification"] == "required"
    answer: Any = device.get(options.json)
    signed_in = alone.keys.finish_sign_in(json.dumps(answer) if as_text else answer, session="s")
    assert signed_in
    assert (signed_in.user_id, signed_in.result.user_verified) == ("u", True)


def test_what_the_browser_is_asked(site: Site, alone: Site) -> None:
    asked = site.keys.begin_registration("u", session="s", account_name="taro", display_name="太郎")
    assert asked.expires_at == START + 300
    shown = json.loads(asked.json)
    assert shown["rp"] == {"id": "example.com", "name": "Knowledge"}
    assert shown["user"]["name"] == "taro"
    assert shown["user"]["displayName"] == "太郎"
    assert len(unb64(shown["user"]["id"])) == 32
    assert len(unb64(shown["challenge"])) == 32
    assert [one["alg"] for one in shown["pubKeyCredParams"]] == [-8, -7, -257]
    assert (shown["attestation"], shown["timeout"], shown["excludeCredentials"]) == ("none", 300_000, [])
    assert shown["authenticatorSelection"] == {
        "residentKey": "preferred",
        "requireResidentKey": False,
        "userVerification": "preferred",
    }
    asked = alone.keys.begin_registration("u", session="s", account_name="taro")
    assert json.loads(asked.json)["authenticatorSelection"]["residentKey"] == "required"
    assert shown["challenge"] not in repr(asked)


def test_several_keys_are_listed_named_and_revoked(site: Site) -> None:
    first, registration = site.register()
    site.clock.advance(60)
    second, again = site.register(proof=registration.recovery_codes[0])
    assert again.recovery_codes is None  # those of the first are still good
    asked = json.loads(site.keys.begin_verification("u", session="s").json)
    assert [one["id"] for one in asked["allowCredentials"]] == [
        b64(d.credentials[0].id) for d in (first, second)
    ]
    assert asked["allowCredentials"][0]["transports"] == ["hybrid", "internal"]
    assert first.credentials[0].handle == second.credentials[0].handle
    one, two = site.keys.list("u")
    assert (one.name, one.created_at, one.used_at, one.synced) == ("key", START, None, False)
    assert one.aaguid == "00000000-0000-0000-0000-000000000000"
    assert site.verify(first)
    assert site.keys.list("u")[0].used_at == START + 60
    assert site.keys.rename("u", two.id, name="鍵")
    assert not site.keys.rename("u", "nothing", name="x")
    assert [key.name for key in site.keys.list("u")] == ["key", "鍵"]
    assert site.keys.revoke("u", two.id, proof=site.asserted(first))
    assert not site.keys.revoke("u", two.id, proof=site.asserted(first))
    assert site.verify(second).reason == "wrong"
    assert site.keys.revoke("u", one.id, proof=site.asserted(first))  # by itself, and it was the last
    assert not site.manager.status("u").enabled
    assert site.records.load("u") is None
    with pytest.raises(InvalidCodeError, match="not_enrolled"):
        site.keys.begin_verification("u", session="s")


def test_a_key_more_needs_a_proof(site: Site) -> None:
    device, registration = site.register()
    for proof in (None, "", "000000", registration.recovery_codes[0] + "A"):
        with pytest.raises(InvalidCodeError):
            site.register(proof=proof)
    assert site.register(proof=site.asserted(device))
    with pytest.raises(InvalidCodeError, match="malformed"):
        site.keys.revoke("u", registration.passkey.id, proof="")
    assert len(site.keys.list("u")) == 2


def test_there_are_not_too_many(site: Site) -> None:
    device, _ = site.register()
    for _ in range(19):
        site.register(proof=site.asserted(device))
    with pytest.raises(InvalidCodeError, match="too_many"):
        site.register(proof=site.asserted(device))
    assert len(site.keys.list("u")) == 20
    assert len(site.records.load("u").data) < 20_000


def test_a_passkey_and_an_app_stand_beside_each_other(site: Site) -> None:
    device, _ = site.register()
    enrolment = site.manager.begin_enrolment("u", account_name="taro", proof=site.asserted(device))
    site.manager.confirm_enrolment("u", totp_code(enrolment.secret, at=site.clock.time()))
    site.clock.advance(30)
    assert site.verify(device)
    assert site.manager.verify("u", totp_code(enrolment.secret, at=site.clock.time()))
    assert (site.manager.status("u").totp, site.manager.status("u").passkeys) == (True, 1)
    assert not site.manager.verify("u", site.asserted(device), methods=["totp", "recovery"])
    (key,) = site.keys.list("u")
    assert site.keys.revoke("u", key.id, proof=site.asserted(device))
    assert site.manager.status("u").enabled
    site.manager.admin_reset("u", actor="admin", reason="lost")
    assert site.store._owners == {}


def test_what_was_begun_before_a_factor_was_on_is_void_once_one_is(site: Site) -> None:
    """Then it was asked for without a proof, perhaps by whoever has stolen a session."""
    asked = site.keys.begin_registration("u", session="thief", account_name="taro")
    enrolment = site.manager.begin_enrolment("u", account_name="taro")
    site.manager.confirm_enrolment("u", totp_code(enrolment.secret, at=site.clock.time()))
    with pytest.raises(InvalidCodeError, match="expired"):
        site.keys.finish_registration("u", SoftAuthenticator(ORIGIN).create(asked.json), session="thief")
    assert site.keys.list("u") == ()

    pending = site.manager.begin_enrolment("v", account_name="jiro")
    site.register("v")
    with pytest.raises(InvalidCodeError, match="no_enrolment"):
        site.manager.confirm_enrolment("v", totp_code(pending.secret, at=site.clock.time()))
    assert not site.manager.status("v").totp


def turned_on(site: Site) -> tuple[str, list[str]]:
    """An authenticator app of ``u``, with its recovery codes."""
    enrolment = site.manager.begin_enrolment("u", account_name="taro")
    codes = site.manager.confirm_enrolment("u", totp_code(enrolment.secret, at=site.clock.time()))
    site.clock.advance(30)
    return enrolment.secret, list(codes)


@pytest.mark.parametrize(
    "change", ["admin_reset", "disable", "reset and on again", "new secret", "new recovery codes", "revoke"]
)
@pytest.mark.parametrize("proof", ["totp", "recovery", "passkey"])
def test_what_was_begun_with_a_factor_is_void_once_that_is_gone(site: Site, change: str, proof: str) -> None:
    """A thief of the telephone, the codes or the key begins; then its owner acts; then the thief goes on."""
    secret, codes = turned_on(site)
    stolen, _ = site.register(proof=codes.pop())
    given = {
        "totp": lambda: totp_code(secret, at=site.clock.time()),
        "recovery": codes.pop,
        "passkey": lambda: site.asserted(stolen),
    }[proof]()
    asked = site.keys.begin_registration("u", session="thief", account_name="taro", proof=given)
    site.clock.advance(30)
    if change in {"admin_reset", "reset and on again"}:
        site.manager.admin_reset("u", actor="admin", reason="lost")
        if change == "reset and on again":
            turned_on(site)
    elif change == "disable":
        site.manager.disable("u", proof=codes.pop())
    elif change == "new secret":
        fresh = site.manager.begin_enrolment("u", account_name="taro", proof=codes.pop())
        site.manager.confirm_enrolment("u", totp_code(fresh.secret, at=site.clock.time()))
    elif change == "new recovery codes":
        site.manager.regenerate_recovery_codes("u", proof=codes.pop())
    else:
        (key,) = site.keys.list("u")
        assert site.keys.revoke("u", key.id, proof=codes.pop())
    before = (site.keys.list("u"), site.manager.status("u"))
    with pytest.raises(InvalidCodeError, match="expired"):
        site.keys.finish_registration("u", SoftAuthenticator(ORIGIN).create(asked.json), session="thief")
    assert (site.keys.list("u"), site.manager.status("u")) == before


def test_what_was_begun_with_a_factor_outlives_what_takes_nothing_away(site: Site) -> None:
    secret, codes = turned_on(site)
    first = site.keys.begin_registration("u", session="one", account_name="taro", proof=codes.pop())
    second = site.keys.begin_registration("u", session="two", account_name="taro", proof=codes.pop())
    site.keys.finish_registration("u", SoftAuthenticator(ORIGIN).create(second.json), session="two")
    assert site.manager.verify("u", totp_code(secret, at=site.clock.time()))
    other = TwoFactorManager(
        site.records, issuer="Knowledge", secret_box=SecretBox([bytes(range(32, 64)), bytes(range(32))])
    )
    assert other.reencrypt().changed == 1
    site.manager._rules = other._rules
    site.keys._rules = other._rules
    site.keys.finish_registration("u", SoftAuthenticator(ORIGIN).create(first.json), session="one")
    assert site.manager.status("u").passkeys == 2


def test_a_secret_that_waits_is_void_once_the_passkey_that_asked_for_it_is_revoked(site: Site) -> None:
    secret, codes = turned_on(site)
    stolen, registration = site.register(proof=codes.pop())
    pending = site.manager.begin_enrolment("u", account_name="taro", proof=site.asserted(stolen))
    assert not site.keys.revoke("u", "another", proof=codes.pop())  # which asks for nothing
    assert site.manager.status("u").pending
    assert site.keys.revoke("u", registration.passkey.id, proof=codes.pop())
    with pytest.raises(InvalidCodeError, match="no_enrolment"):
        site.manager.confirm_enrolment("u", totp_code(pending.secret, at=site.clock.time()))
    assert site.manager.verify("u", totp_code(secret, at=site.clock.time()))


@pytest.mark.parametrize("way", ["disable", "reset", "revoke"])
def test_a_key_that_was_given_up_is_free_again(site: Site, way: str) -> None:
    device, registration = site.register()
    if way == "disable":
        site.manager.disable("u", proof=site.asserted(device))
    elif way == "revoke":
        site.keys.revoke("u", registration.passkey.id, proof=site.asserted(device))
    else:
        site.manager.admin_reset("u", actor="admin", reason="lost")
    assert site.store._owners == {}
    assert site.register("v", lies=Lies(credential=device.credentials[0].id))


# --- lies at registration ------------------------------------------------------------------------

WRONG = {
    "origin of another site": Lies(origin="https://evil.example"),
    "origin that begins alike": Lies(origin="https://example.com.evil.example"),
    "origin below": Lies(origin="https://a.example.com"),
    "origin without tls": Lies(origin="http://example.com"),
    "origin with a port": Lies(origin="https://example.com:8443"),
    "another rp id": Lies(rp_id="evil.example"),
    "the other ceremony": Lies(type="webauthn.other"),
    "nobody present": Lies(present=False),
    "in a frame of another site": Lies(cross_origin=True),
    "in a frame, said otherwise": Lies(cross_origin="true"),
    "with an origin on top": Lies(top_origin="https://evil.example"),
    "backed up but not eligible": Lies(eligible=False, backed_up=True),
}


@pytest.mark.parametrize("lies", WRONG.values(), ids=WRONG)
def test_lies_at_registration(site: Site, lies: Lies) -> None:
    with pytest.raises(InvalidCodeError) as caught:
        site.register(lies=lies)
    assert caught.value.reason == "wrong"
    assert site.keys.list("u") == ()
    assert site.store._owners == {}


def test_registration_is_bound_to_user_and_session_and_happens_once(site: Site) -> None:
    device = SoftAuthenticator(ORIGIN)

    def answer() -> Any:
        asked = site.keys.begin_registration("u", session="s", account_name="taro")
        return device.create(asked.json)

    for user, session in (("v", "s"), ("u", "t")):
        stolen = answer()
        for there, then in ((user, session), ("u", "s")):  # and it is used up by the try
            with pytest.raises(InvalidCodeError, match="expired"):
                site.keys.finish_registration(there, stolen, session=then)
    late = answer()
    site.clock.advance(300)
    with pytest.raises(InvalidCodeError, match="expired"):
        site.keys.finish_registration("u", late, session="s")
    good = answer()
    assert site.keys.finish_registration("u", good, session="s")
    with pytest.raises(InvalidCodeError, match="expired"):
        site.keys.finish_registration("u", good, session="s")
    assert len(site.keys.list("u")) == 1


def test_an_answer_to_one_question_is_none_to_another(alone: Site) -> None:
    device, registration = alone.register()
    verify, sign_in = alone.keys.begin_verification("u", session="s"), alone.keys.begin_sign_in(session="s")
    register = alone.keys.begin_registration(
        "u", session="s", account_name="u", proof=registration.recovery_codes[0]
    )
    assert not alone.keys.finish_sign_in(device.get(verify.json), session="s")
    assert not alone.keys.finish_sign_in(device.get(register.json), session="s")
    crossed = PasskeyAssertion(device.get(sign_in.json), session="s")
    assert alone.manager.verify("u", crossed).reason == "expired"


def test_a_credential_of_somebody_else_is_refused(site: Site) -> None:
    device, _ = site.register()
    with pytest.raises(InvalidCodeError, match="known"):
        site.register("v", lies=Lies(credential=device.credentials[0].id))
    with pytest.raises(InvalidCodeError, match="known"):
        site.register(proof=site.asserted(device), lies=Lies(credential=device.credentials[0].id))
    assert site.verify(device)


def test_keys_that_are_copied_can_be_refused() -> None:
    site = Site(allow_synced=False)
    with pytest.raises(InvalidCodeError, match="synced"):
        site.register(device=SoftAuthenticator(ORIGIN, eligible=True))
    assert site.register()


def test_a_passwordless_site_wants_the_person_verified(alone: Site) -> None:
    with pytest.raises(InvalidCodeError, match="wrong"):
        alone.register(device=SoftAuthenticator(ORIGIN, verifies=False))
    device, _ = alone.register()
    assert alone.verify(device, lies=Lies(verified=False)).reason == "wrong"
    assert alone.verify(device)


def test_every_refusal_of_a_registration_is_told_with_its_reason(site: Site, seen: list[Any]) -> None:
    device, registration = site.register()
    proof = registration.recovery_codes[0]
    asked = site.keys.begin_registration("u", session="s", account_name="u", proof=proof)
    answer = device.create(asked.json)
    for given, session, reason in (({}, "s", "malformed"), (answer, "other", "expired")):
        with pytest.raises(InvalidCodeError) as refused:
            site.keys.finish_registration("u", given, session=session)
        assert refused.value.reason == reason
    assert seen == [
        TwoFactorEvent("enrolment_begun", "u", "passkey", ""),
        TwoFactorEvent("passkey_registered", "u", "passkey", ""),
        TwoFactorEvent("enrolment_begun", "u", "passkey", ""),
        TwoFactorEvent("enrolment_refused", "u", "passkey", "malformed"),
        TwoFactorEvent("enrolment_refused", "u", "passkey", "expired"),
    ]


# --- lies at verification ------------------------------------------------------------------------


@pytest.mark.parametrize("lies", WRONG.values(), ids=WRONG)
def test_lies_at_verification_cost_as_a_wrong_code_does(site: Site, lies: Lies) -> None:
    device, _ = site.register()
    reasons = [site.verify(device, lies=lies).reason for _ in range(6)]
    assert reasons == ["wrong"] * 5 + ["locked"]
    assert site.verify(device)  # a signature cannot be guessed: no lock holds it back
    assert site.verify(device, lies=lies).reason == "wrong"  # and success cleared the budget


SIGNED_WRONGLY = {
    "by another key": Lies(signed_with=SoftAuthenticator()._new_key()),
    "by a key of another kind": Lies(signed_with=SoftAuthenticator(algorithm=-8)._new_key()),
    "not at all": Lies(signature=b""),
    "by rubbish": Lies(signature=b"\x30\x06\x02\x01\x00\x02\x01\x00"),
    "for a copied key that never was": Lies(eligible=True),
    "for somebody else": Lies(handle=b64(b"x" * 32)),
}


@pytest.mark.parametrize("lies", SIGNED_WRONGLY.values(), ids=SIGNED_WRONGLY)
def test_signatures_that_prove_nothing(site: Site, lies: Lies) -> None:
    device, _ = site.register()
    result = site.verify(device, lies=lies)
    assert (result.ok, result.reason, result.method) == (False, "wrong", "passkey")


def test_an_assertion_works_once_for_its_user_and_session(site: Site) -> None:
    device, _ = site.register()
    other, _ = site.register("v")
    asked = site.keys.begin_verification("u", session="s")
    answer = device.get(asked.json)
    assert site.manager.verify("u", PasskeyAssertion(answer, session="t")).reason == "expired"
    assert site.manager.verify("u", PasskeyAssertion(answer, session="s")).reason == "expired"  # used up
    good = site.asserted(device)
    assert site.manager.verify("v", good).reason == "expired"
    assert site.manager.verify("v", PasskeyAssertion(other.get(asked.json), session="s")).reason == "expired"
    good = site.asserted(device)
    assert site.manager.verify("u", good)
    for _ in range(30):  # a replay costs nobody anything
        assert site.manager.verify("u", good).reason == "expired"
    late = site.asserted(device)
    site.clock.advance(300)
    assert site.manager.verify("u", late).reason == "expired"
    made_up = site.asserted(device, lies=Lies(challenge=b"c" * 32))
    assert site.manager.verify("u", made_up).reason == "expired"
    assert not site.manager.status("u").locked


def test_a_challenge_ends_in_time_though_its_store_keeps_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = site.store.save_challenge
    monkeypatch.setattr(site.store, "save_challenge", lambda key, data, *, ttl: keep(key, data, ttl=9 * ttl))
    device, _ = site.register()
    answer = site.asserted(device)
    site.clock.advance(300)
    assert site.manager.verify("u", answer).reason == "expired"


def test_the_key_of_another_user_is_of_no_use(site: Site) -> None:
    site.register()
    other, _ = site.register("v")
    assert site.verify(other).reason == "wrong"
    assert not site.manager.status("v").locked


def test_a_clone_is_found_by_its_counter(site: Site, seen: list[Any]) -> None:
    device, _ = site.register()
    assert site.verify(device)
    clone = device.clone()
    assert site.verify(device)
    refused = site.verify(clone)
    assert (refused.reason, refused.locked) == ("cloned", False)
    assert "passkey_cloned" in [event.change for event in seen]
    assert site.verify(device, lies=Lies(count=0)).reason == "cloned"
    assert site.verify(device)


@pytest.mark.parametrize("counts", [(0, 0, 0), (5, 6, 9), (0, 3, 4)])
def test_counters_that_stand_still_at_zero_or_grow(site: Site, counts: tuple[int, ...]) -> None:
    device, _ = site.register(lies=Lies(count=counts[0]))
    for count in counts[1:]:
        assert site.verify(device, lies=Lies(count=count))


@pytest.mark.parametrize(("before", "now"), [(5, 5), (5, 4), (5, 0), (2**32 - 1, 0)])
def test_counters_that_do_not_grow(site: Site, before: int, now: int) -> None:
    device, _ = site.register(lies=Lies(count=before))
    assert site.verify(device, lies=Lies(count=now)).reason == "cloned"


def test_the_state_of_a_copy_is_kept_up_to_date(site: Site) -> None:
    device, registration = site.register(device=SoftAuthenticator(ORIGIN, eligible=True))
    assert (registration.passkey.synced, registration.passkey.backed_up) == (True, False)
    device.backed_up = True
    assert site.verify(device)
    assert site.keys.list("u")[0].backed_up
    device.backed_up = False
    assert site.verify(device)
    assert not site.keys.list("u")[0].backed_up
    assert site.verify(device, lies=Lies(eligible=False)).reason == "wrong"  # eligibility never changes


# --- alone ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("lies", [*WRONG.values(), *SIGNED_WRONGLY.values(), Lies(verified=False)])
def test_lies_at_sign_in_count_against_nobody(alone: Site, lies: Lies) -> None:
    device, _ = alone.register()
    for _ in range(10):
        refused = alone.sign_in(device, lies)
        assert (bool(refused), refused.user_id, refused.result.reason) == (False, "", "wrong")
    assert not alone.manager.status("u").locked
    assert alone.sign_in(device).user_id == "u"


def test_a_sign_in_needs_to_say_who(alone: Site) -> None:
    device, _ = alone.register()
    assert alone.sign_in(device, Lies(handle=None)).result.reason == "malformed"


def test_an_unknown_key_is_refused_like_a_wrong_one(alone: Site, seen: list[Any]) -> None:
    stranger = SoftAuthenticator(ORIGIN)
    asked = alone.keys.begin_registration("v", session="s", account_name="v")
    stranger.create(asked.json)  # never sent
    assert alone.sign_in(stranger).result.reason == "wrong"
    assert seen[-1].user_id == ""


def test_a_sign_in_is_bound_to_its_session_and_happens_once(alone: Site) -> None:
    device, _ = alone.register()
    asked = alone.keys.begin_sign_in(session="s")
    assert alone.keys.finish_sign_in(device.get(asked.json), session="t").result.reason == "expired"
    asked = alone.keys.begin_sign_in(session="s")
    answer = device.get(asked.json)
    assert alone.keys.finish_sign_in(answer, session="s")
    assert alone.keys.finish_sign_in(answer, session="s").result.reason == "expired"
    asked = alone.keys.begin_sign_in(session="s")
    alone.clock.advance(300)
    assert alone.keys.finish_sign_in(device.get(asked.json), session="s").result.reason == "expired"


def test_a_key_that_never_verified_its_user_is_a_second_factor_only() -> None:
    """Added beside a password on a site that later went passwordless (level 3: uvInitialized)."""
    site = Site()
    device, _ = site.register(device=SoftAuthenticator(ORIGIN, verifies=False))
    site.manager._passkeys._webauthn.party.passwordless = True
    assert site.sign_in(device, Lies(verified=True)).result.reason == "wrong"
    assert site.verify(device, lies=Lies(verified=True)).user_verified
    assert site.sign_in(device, Lies(verified=True)).user_id == "u"


def test_sign_in_alone_is_off_unless_asked_for(site: Site) -> None:
    for call in (
        lambda: site.keys.begin_sign_in(session="s"),
        lambda: site.keys.finish_sign_in({}, session="s"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            call()
        assert caught.value.parameter == "passwordless"


# --- rubbish -------------------------------------------------------------------------------------


def rubbish() -> dict[str, Any]:
    site = Site()
    device, _ = site.register()
    good: Any = device.get(site.keys.begin_verification("u", session="s").json)

    def changed(**parts: Any) -> Any:
        return {**good, "response": {**good["response"], **parts}}

    client_data = json.loads(unb64(good["response"]["clientDataJSON"]))
    return {
        "nothing": None,
        "a number": 7,
        "bytes": b"{}",
        "a list": [good],
        "an empty text": "",
        "no json": "{",
        "json that is no object": "[]",
        "deep": "[" * 60_000,
        "long": json.dumps(good) + " " * 70_000,
        "empty": {},
        "no response": {**good, "response": None},
        "a list as response": {**good, "response": [1]},
        "no id": {**good, "id": None},
        "an empty id": {**good, "id": "", "rawId": ""},
        "a long id": {**good, "id": b64(b"x" * 1024), "rawId": b64(b"x" * 1024)},
        "two ids": {**good, "rawId": b64(b"other")},
        "an id with padding": {**good, "id": good["id"] + "=", "rawId": good["id"] + "="},
        "an id with stray bits": {**good, "id": good["id"][:-1] + "_", "rawId": good["id"][:-1] + "_"},
        "an id in another alphabet": {**good, "id": "+/+/", "rawId": "+/+/"},
        "an id in full width": {**good, "id": "ＡＢＣＤ", "rawId": "ＡＢＣＤ"},
        "a missing signature": changed(signature=None),
        "a number as signature": changed(signature=5),
        "no client data": changed(clientDataJSON=""),
        "client data that is a list": changed(clientDataJSON=b64(b"[]")),
        "client data that is deep": changed(clientDataJSON=b64(b"[" * 30_000)),
        "client data that is no text": changed(clientDataJSON=b64(b"\xff\xfe")),
        "no challenge": changed(clientDataJSON=b64(json.dumps({**client_data, "challenge": None}).encode())),
        "a number as user handle": changed(userHandle=5),
        "a user handle with padding": changed(userHandle="QQ=="),
        "a lone surrogate": changed(signature="\udc80"),
    }


RUBBISH = rubbish()


@pytest.mark.parametrize("answer", RUBBISH.values(), ids=RUBBISH)
def test_rubbish_is_malformed_and_costs_nothing(alone: Site, answer: Any) -> None:
    device, _ = alone.register()
    for _ in range(6):
        assert alone.manager.verify("u", PasskeyAssertion(answer, session="s")).reason == "malformed"
        assert alone.keys.finish_sign_in(answer, session="s").result.reason == "malformed"
        with pytest.raises(InvalidCodeError, match="malformed"):
            alone.keys.finish_registration("u", answer, session="s")
    assert alone.verify(device)


@pytest.mark.parametrize("auth_data", [b"x" * 36, bytes(37), b"\xff" * 5000, bytes(32) + b"\x41" + bytes(20)])
def test_authenticator_data_that_is_damaged(alone: Site, auth_data: bytes) -> None:
    device, registration = alone.register()
    assert alone.verify(device, lies=Lies(auth_data=auth_data)).reason == "wrong"
    assert alone.sign_in(device, Lies(auth_data=auth_data)).result.reason == "wrong"
    with pytest.raises(InvalidCodeError, match="wrong"):
        alone.register(proof=registration.recovery_codes[0], lies=Lies(auth_data=auth_data))


@pytest.mark.parametrize("session", ["", " ", None, 7, "x" * 1025])
def test_a_session_that_binds_nothing(alone: Site, session: Any) -> None:
    for call in (
        lambda: alone.keys.begin_registration("u", session=session, account_name="u"),
        lambda: alone.keys.begin_sign_in(session=session),
    ):
        with pytest.raises(ConfigurationError) as caught:
            call()
        assert caught.value.parameter == "session"


@pytest.mark.parametrize("session", ["", " ", "x" * 5000, "\ud800", "other"])
def test_a_session_that_a_client_made_up_answers_nothing(alone: Site, session: str) -> None:
    """It may come from a cookie, and is no error of the application."""
    device, _ = alone.register()
    asked = alone.keys.begin_sign_in(session="s")
    assert alone.keys.finish_sign_in(device.get(asked.json), session=session).result.reason == "expired"
    question = alone.keys.begin_verification("u", session="s")
    answer = PasskeyAssertion(device.get(question.json), session=session)
    assert alone.manager.verify("u", answer).reason == "expired"
    new = alone.keys.begin_registration("v", session="s", account_name="v")
    with pytest.raises(InvalidCodeError, match="expired"):
        alone.keys.finish_registration("v", SoftAuthenticator(ORIGIN).create(new.json), session=session)


# --- parameters ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("rp_id", "https://example.com"),
        ("rp_id", "example.com:443"),
        ("rp_id", "Example.com"),
        ("rp_id", "example.com."),
        ("rp_id", "127.0.0.1"),
        ("rp_id", "[::1]"),
        ("rp_id", ""),
        ("rp_id", None),
        ("name", ""),
        ("name", "a\nb"),
        ("name", "x" * 65),
        ("origins", []),
        ("origins", "https://example.com"),
        ("origins", ["https://example.com/"]),
        ("origins", ["https://example.com/path"]),
        ("origins", ["https://Example.com"]),
        ("origins", ["https://example.com:443"]),
        ("origins", ["http://example.com"]),
        ("origins", ["https://evil-example.com"]),
        ("origins", ["https://example.com.evil.example"]),
        ("origins", ["https://example.com", "https://com"]),
        ("origins", ["null"]),
        ("origins", ["*"]),
        ("challenge_ttl", 29),
        ("challenge_ttl", 901),
    ],
)
def test_impossible_sites(parameter: str, value: Any) -> None:
    given: Any = {"rp_id": "example.com", "name": "n", "origins": ["https://example.com"]}
    RelyingParty(**given)
    with pytest.raises(ConfigurationError) as caught:
        RelyingParty(**{**given, parameter: value})
    assert caught.value.parameter == parameter


def test_possible_sites() -> None:
    RelyingParty("example.com", name="n", origins=["https://a.b.example.com:8443", "https://example.com"])
    RelyingParty("localhost", name="n", origins=["http://localhost:8000", "https://localhost"])


def test_both_parts_or_none() -> None:
    party = RelyingParty("example.com", name="n", origins=[ORIGIN])
    given: Any = {"issuer": "n", "secret_box": SecretBox(bytes(range(32)))}
    for extra, missing in (
        ({"relying_party": party}, "passkey_store"),
        ({"passkey_store": 1}, "relying_party"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            TwoFactorManager(MemoryTwoFactorStore(), **given, **extra)
        assert caught.value.parameter == missing
    with pytest.raises(ConfigurationError, match="relying_party"):
        _ = TwoFactorManager(MemoryTwoFactorStore(), **given).passkeys


def test_an_assertion_where_there_are_no_passkeys_is_malformed() -> None:
    manager = TwoFactorManager(MemoryTwoFactorStore(), issuer="n", secret_box=SecretBox(bytes(range(32))))
    secret = manager.begin_enrolment("u", account_name="u").secret
    manager.confirm_enrolment("u", totp_code(secret))
    assert manager.verify("u", PasskeyAssertion({}, session="s")).reason == "malformed"


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 65, None])
def test_names_that_cannot_be_shown(site: Site, name: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        site.keys.begin_registration("u", session="s", account_name=name)
    assert caught.value.parameter == "account_name"


# --- asyncio -------------------------------------------------------------------------------------


def test_every_method_has_a_twin_that_decides_alike(alone: Site) -> None:
    device, keys = SoftAuthenticator(ORIGIN), alone.keys

    async def play() -> None:
        asked = await keys.abegin_registration("u", session="s", account_name="u")
        made = await keys.afinish_registration("u", device.create(asked.json), session="s")
        asked = await keys.abegin_verification("u", session="s")
        assert await alone.manager.averify("u", PasskeyAssertion(device.get(asked.json), session="s"))
        asked = await keys.abegin_sign_in(session="s")
        assert (await keys.afinish_sign_in(device.get(asked.json), session="s")).user_id == "u"
        assert await keys.arename("u", made.passkey.id, name="x")
        assert [key.name for key in await keys.alist("u")] == ["x"]
        asked = await keys.abegin_verification("u", session="s")
        proof = PasskeyAssertion(device.get(asked.json), session="s")
        assert await keys.arevoke("u", made.passkey.id, proof=proof)

    asyncio.run(play())
    assert not alone.manager.status("u").enabled

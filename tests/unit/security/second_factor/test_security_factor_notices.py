"""The owner of an account hears of every change of its second factors (ASVS 5.0, 6.3.7)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from mks_hardening.events import add_observer, remove_observer
from mks_hardening.exceptions import ConfigurationError, InvalidCodeError
from mks_hardening.security import (
    MemoryPasskeyStore,
    MemoryTwoFactorStore,
    RelyingParty,
    SecretBox,
    TwoFactorManager,
    TwoFactorNotice,
    totp_code,
)
from mks_hardening.testing import FrozenClock
from soft_authenticator import SoftAuthenticator

ORIGIN = "https://example.com"


class Person:
    """Somebody who changes second factors, and a mailer that may be in trouble."""

    def __init__(self, on_notice: Any = None) -> None:
        self.notices: list[TwoFactorNotice] = []
        self.clock = FrozenClock(1_700_000_010.0)
        self.manager = TwoFactorManager(
            MemoryTwoFactorStore(),
            issuer="MKS",
            secret_box=SecretBox(bytes(range(32))),
            relying_party=RelyingParty("example.com", origins=[ORIGIN], name="MKS"),
            passkey_store=MemoryPasskeyStore(clock=self.clock),
            on_notice=on_notice or self.notices.append,
            clock=self.clock,
        )

    def enrol(self, **options: Any) -> list[str]:
        begun = self.manager.begin_enrolment("u", account_name="taro", **options)
        self.clock.advance(30)
        return list(self.manager.confirm_enrolment("u", totp_code(begun.secret, at=self.clock.time())))

    def add_passkey(self, proof: str | None = None) -> str:
        asked = self.manager.passkeys.begin_registration("u", session="s", account_name="taro", proof=proof)
        made = SoftAuthenticator(ORIGIN).create(asked.json)
        return self.manager.passkeys.finish_registration("u", made, session="s", name="blue key").passkey.id

    def kinds(self) -> list[str]:
        found = [notice.kind for notice in self.notices]
        assert {notice.user_id for notice in self.notices} <= {"u"}
        self.notices.clear()
        return found


def test_every_change_is_told_and_nothing_else_is() -> None:
    person = Person()
    manager = person.manager
    codes = person.enrol()
    assert person.kinds() == ["enrolled"]
    assert manager.verify("u", codes.pop())
    assert not manager.verify("u", "000000")
    manager.remember_device("u")
    with pytest.raises(InvalidCodeError):
        manager.regenerate_recovery_codes("u", proof="000000")
    assert person.kinds() == []
    codes = list(manager.regenerate_recovery_codes("u", proof=codes.pop()))
    assert person.kinds() == ["recovery_codes_regenerated"]
    key = person.add_passkey(codes.pop())
    assert person.notices == [TwoFactorNotice(kind="passkey_registered", user_id="u", passkey="blue key")]
    assert person.kinds() == ["passkey_registered"]
    assert manager.passkeys.revoke("u", key, proof=codes.pop())
    assert not manager.passkeys.revoke("u", key, proof=codes.pop())
    assert person.kinds() == ["passkey_revoked"]
    codes = person.enrol(proof=codes.pop())
    assert person.kinds() == ["enrolled"]
    manager.disable("u", proof=codes.pop())
    assert person.kinds() == ["disabled"]
    assert manager.adopt_secret("u", "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP")  # an import is no news for its owner
    assert person.kinds() == []


def test_the_last_passkey_turns_the_factor_off() -> None:
    person = Person()
    asked = person.manager.passkeys.begin_registration("u", session="s", account_name="taro")
    made = SoftAuthenticator(ORIGIN).create(asked.json)
    done = person.manager.passkeys.finish_registration("u", made, session="s")
    person.notices.clear()
    assert done.recovery_codes is not None
    proof = next(iter(done.recovery_codes))
    assert person.manager.passkeys.revoke("u", done.passkey.id, proof=proof)
    assert person.kinds() == ["passkey_revoked", "disabled"]


def test_a_mailer_in_trouble_undoes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def broken(notice: TwoFactorNotice) -> None:
        raise RuntimeError("secret of the mailer")

    seen: list[Any] = []
    add_observer(seen.append)
    try:
        person = Person(broken)
        with caplog.at_level(logging.WARNING, "mks_hardening.security"):
            codes = person.enrol()
    finally:
        remove_observer(seen.append)
    assert len(codes) == 10
    assert person.manager.status("u").enabled
    assert [(event.change, event.reason) for event in seen][-2:] == [
        ("enrolled", ""),
        ("notice_failed", "enrolled"),
    ]
    assert "RuntimeError" in caplog.text
    assert "secret of the mailer" not in caplog.text


def test_a_hook_for_asyncio() -> None:
    notices: list[str] = []

    async def tell(notice: TwoFactorNotice) -> None:
        await asyncio.sleep(0)
        notices.append(notice.kind)

    async def enrol(person: Person) -> None:
        begun = await person.manager.abegin_enrolment("u", account_name="taro")
        await person.manager.aconfirm_enrolment("u", totp_code(begun.secret, at=person.clock.time()))

    asyncio.run(enrol(Person(tell)))
    assert notices == ["enrolled"]


def test_a_hook_that_cannot_be_called() -> None:
    with pytest.raises(ConfigurationError, match="on_notice"):
        Person("mail@example.com")

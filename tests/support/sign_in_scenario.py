"""Accounts, a ``SignIn`` built from real parts, and a trace of all its outgoing calls."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from mks_hardening import events
from mks_hardening.security import (
    SIGN_IN_LIMITS,
    CredentialChanges,
    FailureBudget,
    MemoryPasskeyStore,
    MemorySignInStore,
    MemoryTwoFactorStore,
    PasskeyAssertion,
    RateLimiter,
    RelyingParty,
    SecretBox,
    SignIn,
    SignInAccount,
    SignInClient,
    SignInNotice,
    TwoFactorManager,
    totp_code,
)
from mks_hardening.testing import FrozenClock
from soft_authenticator import Lies, SoftAuthenticator

START = 1_700_000_010.0
ORIGIN = "https://example.com"
KEY = hashlib.sha256(b"device").digest()
RIGHT = "足場の点検は毎朝"
HERE = SignInClient(address="192.0.2.1")
ELSEWHERE = SignInClient(address="198.51.100.7")


class Passwords:
    """``PasswordCheck`` that is fast and counts its calls."""

    def __init__(self) -> None:
        self.checked: list[str | None] = []
        self.hashed = 0

    def verify(self, password: str, stored: str | None, /) -> bool:
        self.checked.append(stored)
        return stored is not None and stored.partition(":")[2] == password

    def hash(self, password: str, /) -> str:
        self.hashed += 1
        return f"new{self.hashed}:{password}"

    def needs_rehash(self, stored: str, /) -> bool:
        return stored.startswith("old")


class People:
    """The accounts of an application, in a dictionary."""

    def __init__(self, *accounts: SignInAccount) -> None:
        self.by_id = {account.user_id: account for account in accounts}
        self.fault: BaseException | None = None

    def find(self, name: str, /) -> SignInAccount | None:
        if self.fault is not None:
            raise self.fault
        return next((account for account in self.by_id.values() if account.name == name.casefold()), None)

    def get(self, user_id: str, /) -> SignInAccount | None:
        if self.fault is not None:
            raise self.fault
        return self.by_id.get(user_id)

    def set_password(self, user_id: str, stored: str, /, *, expected: str | None) -> bool:
        if self.by_id[user_id].password_hash != expected:
            return False
        self.change(user_id, password_hash=stored, stamp="")
        return True

    def set_email(self, user_id: str, email: str) -> None:
        self.change(user_id, email=email)

    def change(self, user_id: str, **changes: Any) -> None:
        self.by_id[user_id] = replace(self.by_id[user_id], **changes)


class Session:
    """A session with the interface of ``SignInSession``, of one browser."""

    def __init__(self, everybody: list[Session]) -> None:
        self.everybody = everybody
        self.user_id: str | None = None
        self.data: Mapping[str, Any] = {}
        self.ids = 0
        self.fault: BaseException | None = None

    @property
    def reference(self) -> str | None:
        return None if self.user_id is None else f"ref{id(self)}-{self.ids}"

    def start(self, user_id: str, *, data: Mapping[str, Any]) -> None:
        if self.fault is not None:
            raise self.fault
        self.user_id, self.data = user_id, dict(data)
        self.ids += 1

    def rotate(self) -> bool:
        if self.fault is not None:
            raise self.fault
        self.ids += 1
        return self.user_id is not None

    def update_data(self, **changes: Any) -> bool:
        self.data = {**self.data, **changes}
        return self.user_id is not None

    def end(self) -> bool:
        if self.fault is not None:
            raise self.fault
        lived = self.user_id is not None
        self.user_id, self.data = None, {}
        return lived

    def end_others(self) -> int:
        ended = [one for one in self.everybody if one is not self and one.user_id == self.user_id]
        for one in ended:
            one.user_id, one.data = None, {}
        return len(ended)


@contextmanager
def audited() -> Generator[list[events.SignInEvent]]:
    """Return the sign-in events, in order."""
    seen: list[events.SignInEvent] = []

    def observe(event: object) -> None:
        if isinstance(event, events.SignInEvent):
            seen.append(event)

    events.add_observer(observe)
    try:
        yield seen
    finally:
        events.remove_observer(observe)


class Traced:
    """Records the name of every method called on the wrapped object."""

    def __init__(self, inside: Any, trace: list[str], name: str) -> None:
        self.inside, self.trace, self.name = inside, trace, name

    def __getattr__(self, method: str) -> Any:
        found = getattr(self.inside, method)
        if not callable(found):
            return found

        def called(*args: Any, **options: Any) -> Any:
            self.trace.append(f"{self.name}.{method}")
            return found(*args, **options)

        return called


class Scenario:
    """A sign-in, its parts, and three users: with a factor, without one, and disabled."""

    def __init__(self, *, limits: Mapping[str, Any] | None = None, **options: Any) -> None:
        self.clock = FrozenClock(START)
        self.people = People(
            SignInAccount(user_id="1", name="tanaka", password_hash=f"h:{RIGHT}", email="tanaka@example.com"),
            SignInAccount(user_id="2", name="sato", password_hash=f"h:{RIGHT}", email="sato@example.com"),
            SignInAccount(user_id="3", name="gone", password_hash=f"h:{RIGHT}", disabled=True),
        )
        self.passwords = Passwords()
        self.limiter = RateLimiter(limits or SIGN_IN_LIMITS, clock=self.clock)
        self.factors = TwoFactorManager(
            MemoryTwoFactorStore(),
            issuer="現場",
            secret_box=SecretBox(bytes(range(32))),
            failure_budget=FailureBudget(3, lock=300, lifetime=12),
            clock=self.clock,
        )
        self.sessions: list[Session] = []
        self.notices: list[SignInNotice] = []
        self.new_devices: list[SignInNotice] = []
        self.store = options.pop("store", None) or MemorySignInStore(clock=self.clock)
        self.parts: dict[str, Any] = {
            "store": self.store,
            "limiter": self.limiter,
            "factors": self.factors,
            "end_sessions": self.end_user,
            "passwords": self.passwords,
            "device_keys": KEY,
            "on_notice": self.post,
            "clock": self.clock,
            **options,
        }
        self.sign_in = SignIn(self.people, **self.parts)
        self.changes = CredentialChanges(self.sign_in, set_email=self.people.set_email)
        enrolment = self.factors.begin_enrolment("1", account_name="tanaka")
        self.secret = enrolment.secret
        self.codes = list(self.factors.confirm_enrolment("1", self.code()))
        self.clock.advance(30)

    def browser(self) -> Session:
        session = Session(self.sessions)
        self.sessions.append(session)
        return session

    def post(self, notice: SignInNotice) -> None:
        (self.new_devices if notice.kind == "new_device" else self.notices).append(notice)

    def end_user(self, user_id: str) -> int:
        ended = [session for session in self.sessions if session.user_id == user_id]
        for session in ended:
            session.user_id, session.data = None, {}
        return len(ended)

    def code(self) -> str:
        return totp_code(self.secret, at=self.clock.time())

    def wrong_code(self) -> str:
        near = {totp_code(self.secret, at=self.clock.time() + 30 * step) for step in range(-2, 3)}
        return next(code for code in (f"{number:06}" for number in range(10)) if code not in near)

    def challenge(self, client: SignInClient = HERE, session: Session | None = None) -> str:
        step = self.sign_in.password("tanaka", RIGHT, client=client, session=session)
        assert step.state == "challenged"
        assert step.challenge is not None
        return step.challenge

    def signed_in(self, name: str = "tanaka", client: SignInClient = HERE, **options: Any) -> Session:
        """Return a browser whose user is completely signed in."""
        session = self.browser()
        step = self.sign_in.password(name, RIGHT, client=client, session=session, **options)
        if step.state == "challenged":
            self.clock.advance(30)
            step = self.sign_in.second_factor(
                step.challenge, self.code(), client=client, session=session, **options
            )
        assert step
        self.device = step.device
        return session

    def stranger(self, number: int) -> SignInClient:
        """Return one of many clients in different networks."""
        return SignInClient(address=f"203.{number // 250}.{number % 250}.9")

    def locked(self, name: str = "tanaka", times: int = 50) -> None:
        """Guess from many networks until the account is locked."""
        for number in range(times):
            self.sign_in.password(name, "guess", client=self.stranger(number))


class PasskeyScenario(Scenario):
    """As ``Scenario``; ``sato`` has a passkey."""

    def __init__(self) -> None:
        super().__init__()
        self.keyed = TwoFactorManager(
            MemoryTwoFactorStore(),
            issuer="現場",
            secret_box=SecretBox(bytes(range(32))),
            relying_party=RelyingParty("example.com", origins=[ORIGIN], name="現場", passwordless=True),
            passkey_store=MemoryPasskeyStore(),
            clock=self.clock,
        )
        self.authenticator = SoftAuthenticator(ORIGIN)
        asked = self.keyed.passkeys.begin_registration("2", session="s", account_name="sato")
        self.keyed.passkeys.finish_registration(
            "2", self.authenticator.create(asked.json), session="s", name="key"
        )
        self.sign_in = type(self.sign_in)(self.people, **{**self.parts, "factors": self.keyed})

    def answered(self, challenge: str, lies: Lies | None = None) -> PasskeyAssertion:
        user_id = self.sign_in.challenged_user(challenge, client=HERE)
        assert user_id == "2"
        asked = self.keyed.passkeys.begin_verification(user_id, session=challenge)
        return PasskeyAssertion(self.authenticator.get(asked.json, lies or Lies()), session=challenge)

    def alone(self, lies: Lies | None = None) -> Any:
        asked = self.keyed.passkeys.begin_sign_in(session="s")
        return self.keyed.passkeys.finish_sign_in(
            self.authenticator.get(asked.json, lies or Lies()), session="s"
        )

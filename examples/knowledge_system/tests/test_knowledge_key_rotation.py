"""Keys are replaced while an application with the former and one with the new configuration run side by side."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from knowledge_system.settings import DEMO_PASSWORD
from mks_hardening.security import SecretBox, totp_code
from mks_hardening.testing import FrozenClock

OLD, NEW = SecretBox.generate_key(), SecretBox.generate_key()
STEPS = [OLD, f"{OLD},{NEW}", f"{NEW},{OLD}"]


@pytest.mark.parametrize("keys", list(itertools.pairwise(STEPS)), ids=["step 1", "step 2"])
def test_each_of_two_applications_takes_what_the_other_has_stored(
    make_app: Callable[..., Any],
    own_database: Path,
    stranger: Callable[[Any], Any],
    clock: FrozenClock,
    keys: tuple[str, str],
) -> None:
    url = f"sqlite:///{own_database}"
    one, other = (make_app(database_url=url, is_filled=True, MKS_SECRET_KEYS=some) for some in keys)
    for name, writer, reader in (("tanaka", one, other), ("sato", other, one)):
        person = stranger(writer)
        credentials = {"username": name, "password": DEMO_PASSWORD}
        assert person.api("POST", "/api/auth/login", credentials).status_code == 200
        secret = person.api("POST", "/api/auth/2fa/setup").json["secret"]
        enabled = person.api("POST", "/api/auth/2fa/enable", {"code": totp_code(secret, at=clock.time())})
        assert enabled.status_code == 200
        for app in (reader, writer):
            clock.advance(30)
            program = stranger(app)
            asked = program.api("POST", "/api/auth/login", {**credentials, "tokens": True}).json
            code = {"code": totp_code(secret, at=clock.time()), "challenge": asked["challenge"]}
            verified = program.api("POST", "/api/auth/2fa/verify", code)
            assert verified.status_code == 200
            token = verified.json["access_token"]
            for second in (one, other):
                answer = stranger(second).api("GET", "/api/auth/me", Authorization=f"Bearer {token}")
                assert answer.status_code == 200

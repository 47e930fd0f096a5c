"""A limiter that would count nothing is refused when the sign-in is put together."""

from __future__ import annotations

from typing import Any

import pytest

from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security import SIGN_IN_LIMITS, RateLimiter
from sign_in_scenario import Scenario


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dry_run": ["auth_login"]}, "dry_run contains auth_login"),
        ({"dry_run": sorted(SIGN_IN_LIMITS)}, "dry_run contains auth_2fa_verify, auth_login"),
        ({"on_unavailable": "open"}, "on_unavailable is 'open' for auth_2fa_verify, auth_login"),
        ({"on_unavailable": {"auth_login_account": "open"}}, "is 'open' for auth_login_account: use 'local'"),
        ({"exempt": lambda group, key: True}, "exempts every key of auth_2fa_verify, auth_login"),
        (
            {"exempt": lambda group, key: group == "auth_login_account"},
            "exempts every key of auth_login_account$",
        ),
    ],
)
def test_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        Scenario(limiter=RateLimiter(SIGN_IN_LIMITS, **options))
    assert caught.value.parameter == "limiter"


@pytest.mark.parametrize("policy", ["local", "closed", {"of the application": "open"}])
def test_a_limiter_that_counts_during_an_outage(policy: Any) -> None:
    groups = SIGN_IN_LIMITS | {"of the application": "1 per minute"}
    assert Scenario(limiter=RateLimiter(groups, on_unavailable=policy)).sign_in is not None


def test_an_office_may_be_exempt() -> None:
    limiter = RateLimiter(SIGN_IN_LIMITS, exempt=lambda group, key: key.startswith("192.0.2."))
    assert Scenario(limiter=limiter).sign_in is not None

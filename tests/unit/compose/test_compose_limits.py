"""Limits that operators set, tighten and try without a change of code."""

from __future__ import annotations

from typing import Any

import pytest

from mks_hardening.compose import rate_limiter
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security import DEFAULT_RATE_LIMITS
from mks_hardening.settings import HardeningSettings


def settings(**variables: str) -> HardeningSettings:
    return HardeningSettings.from_env(environ={"MKS_ALLOWED_HOSTS": "localhost", **variables})


def test_the_settings_replace_limits_by_group() -> None:
    given = settings(MKS_RATE_LIMITS="search=2 per minute; 9 per hour | admin = 1 per day")
    with rate_limiter(given, clock=None) as limiter:
        quotas = {name: [limit.quota for limit in limits] for name, limits in limiter.groups.items()}
        assert (quotas["search"], quotas["admin"]) == ([2, 9], [1])
        assert limiter.groups["api_read"] == DEFAULT_RATE_LIMITS["api_read"]
        assert [bool(limiter.hit("search", "k")) for _ in range(3)] == [True, True, False]


def test_limits_can_be_tried_before_they_refuse() -> None:
    given = settings(MKS_RATE_LIMITS="search=1 per minute", MKS_RATE_LIMITS_DRY_RUN="search, admin")
    with rate_limiter(given, dry_run=["api_read"]) as limiter:
        decisions = [limiter.hit("search", "k") for _ in range(2)]
        assert all(decisions)
        assert decisions[1].breached == ("minute",)
        assert {group for group in limiter.groups if limiter._groups[group].dry_run} == {
            "search",
            "admin",
            "api_read",
        }


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"MKS_RATE_LIMITS": "searhc=1 per minute"}, "MKS_RATE_LIMITS names the group 'searhc'.*search"),
        ({"MKS_RATE_LIMITS_DRY_RUN": "searhc"}, "MKS_RATE_LIMITS_DRY_RUN names the group 'searhc'.*search"),
        ({"MKS_RATE_LIMITS": "search=often"}, "MKS_RATE_LIMITS, group 'search': 'often' is not a limit"),
        ({"MKS_RATE_LIMITS": "search=0 per minute"}, "MKS_RATE_LIMITS, group 'search': "),
        ({"MKS_RATE_LIMITS": "search"}, "MKS_RATE_LIMITS must be.*'search' is not"),
        ({"MKS_RATE_LIMITS": "search=1/minute|search=2/minute"}, "each group once"),
    ],
)
def test_a_slip_of_the_pen_is_refused(variables: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        rate_limiter(settings(**variables))

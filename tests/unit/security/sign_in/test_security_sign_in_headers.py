"""A sign-in that has to wait: which limit it may name, and the header fields through every web layer."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security import SIGN_IN_LIMITS, RateLimiter, SignInStep, sign_in_headers
from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import RateLimitMiddleware, RateLimitRule
from sign_in_scenario import HERE, RIGHT, Scenario

PAGE = {"page": "300 per minute"}
"""The limit of the page itself, which has room: its state must not be shown for that of the limit that refused."""
OF_ADDRESS = {
    "Retry-After": "60",
    "X-RateLimit-Limit": "1",
    "X-RateLimit-Remaining": "0",
    "X-RateLimit-Reset": "60",
    "RateLimit-Policy": '"minute";q=1;w=60',
    "RateLimit": '"minute";r=0;t=60',
}
OF_ACCOUNT = {"Retry-After": "60"}
GROUPS = {"auth_login_address": OF_ADDRESS, "auth_login_network": OF_ADDRESS, "auth_login": OF_ACCOUNT}


def refused(group: str) -> SignInStep:
    """A step that one limit has refused."""
    scenario = Scenario(limits={**SIGN_IN_LIMITS, group: "1 per minute"})
    scenario.sign_in.password("sato", "wrong", client=HERE)
    step: SignInStep = scenario.sign_in.password("sato", RIGHT, client=HERE)
    assert step.state == "limited"
    return step


@pytest.mark.parametrize("name", ["sato", "nobody"])
@pytest.mark.parametrize("group", GROUPS)
def test_only_a_limit_of_the_client_is_named(group: str, name: str) -> None:
    scenario = Scenario(limits={**SIGN_IN_LIMITS, group: "1 per minute"})
    scenario.sign_in.password(name, "wrong", client=HERE)
    step = scenario.sign_in.password(name, "wrong", client=HERE)
    assert (step.state, step.retry_after) == ("limited", 60)
    assert dict(sign_in_headers(step)) == GROUPS[group]
    assert (step.decision is None) == (GROUPS[group] is OF_ACCOUNT)


@pytest.mark.parametrize("name", ["sato", "nobody"])
def test_the_lock_of_an_account_is_not_named(name: str) -> None:
    scenario = Scenario(limits={**SIGN_IN_LIMITS, "auth_login_account": "1 per hour"})
    scenario.sign_in.password(name, "wrong", client=HERE)
    assert scenario.sign_in.password(name, RIGHT, client=HERE) == SignInStep(state="refused")


def test_the_limit_of_codes_is_not_named() -> None:
    scenario = Scenario(limits={**SIGN_IN_LIMITS, "auth_2fa_verify": "1 per minute"})
    step = scenario.sign_in.password("tanaka", RIGHT, client=HERE)
    scenario.sign_in.second_factor(step.challenge, "000000", client=HERE)
    limited = scenario.sign_in.second_factor(step.challenge, scenario.code(), client=HERE)
    assert (limited.state, limited.decision) == ("limited", None)
    assert sign_in_headers(limited) == [("Retry-After", "60")]


@pytest.mark.parametrize("state", ["done", "challenged", "refused", "expired", "limited"])
def test_a_step_that_need_not_wait_has_no_fields(state: Any) -> None:
    assert sign_in_headers(SignInStep(state=state)) == []


def test_something_else_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="step must be a SignInStep"):
        sign_in_headers("limited")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="style"):
        sign_in_headers(refused("auth_login"), style="z")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("group", "fields"), [("auth_password_reset_address", OF_ADDRESS), ("auth_password_reset", OF_ACCOUNT)]
)
@pytest.mark.parametrize("name", ["sato", "nobody"])
def test_a_reset_that_has_to_wait_names_the_limit_of_the_address_only(
    group: str, fields: dict[str, str], name: str
) -> None:
    scenario = Scenario(limits={**SIGN_IN_LIMITS, group: "1 per minute"})
    scenario.changes.request_reset(name, client=HERE)
    result = scenario.changes.request_reset(name, client=HERE)
    assert (result.state, dict(sign_in_headers(result))) == ("limited", fields)


# --- through the web layers


def through_wsgi(step: SignInStep) -> Any:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("429 Too Many Requests", [("Content-Type", "text/plain"), *sign_in_headers(step)])
        return [b"wait"]

    return call_wsgi(RateLimitMiddleware(app, limiter=RateLimiter(PAGE), rules=[RateLimitRule("page")]))


def through_flask(step: SignInStep) -> Any:
    from flask import Flask

    from contrib_flask_site import settings_of
    from mks_hardening.contrib.flask_app import Hardening, limit

    app = Flask(__name__)
    Hardening(app, settings_of(), groups=PAGE)

    @app.get("/")
    @limit("page")
    def sign_in() -> Any:
        return "wait", 429, sign_in_headers(step)

    return call_wsgi(app)


def through_django(step: SignInStep) -> Any:
    from django.http import HttpResponse

    from contrib_django_site import project
    from mks_hardening.contrib.django_app import limit

    with project(MKS_HARDENING={"groups": PAGE}) as site:
        return site.visit(
            limit("page")(
                lambda request: HttpResponse("wait", status=429, headers=dict(sign_in_headers(step)))
            )
        )


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("through", [through_wsgi, through_flask, through_django])
def test_the_fields_are_of_the_limit_that_refused(through: Callable[[SignInStep], Any], group: str) -> None:
    for framework in ("flask", "django"):
        if framework in through.__name__ and importlib.util.find_spec(framework) is None:
            pytest.skip(f"{framework} is not installed")
    answer = through(refused(group))
    assert answer.status == 429
    assert {name: answer.header(name) for name in OF_ADDRESS} == {
        name: GROUPS[group].get(name) for name in OF_ADDRESS
    }

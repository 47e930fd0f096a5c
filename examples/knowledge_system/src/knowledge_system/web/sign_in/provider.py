"""Sign-in at the company's identity provider (OpenID Connect), confirmation there, and sign-out there."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from knowledge_system.domain import provider_claims
from knowledge_system.domain.problems import Problem
from knowledge_system.domain.provider_claims import FEDERATED, ClaimsError, ProviderRules
from knowledge_system.services.identity import provider_accounts, provider_flows
from knowledge_system.services.identity.provider_http import ProviderError
from knowledge_system.web import cookies, current_request
from knowledge_system.web.sign_in.sign_in_helpers import client, session_data

if TYPE_CHECKING:
    from knowledge_system.domain.provider_claims import Identity
    from knowledge_system.services.identity.provider_accounts import Found
    from knowledge_system.services.identity.provider_flows import Flow

_LIMIT: Final = "auth_login_network"
"""Group of the limits; the whole company may come from one address at half past eight."""
_RECENT: Final = 300
"""Maximum age in seconds of the authentication with which a person confirms their identity."""
_RETRY = {"Retry-After": "15"}


def provider_name() -> str:
    """Return the name of the provider for buttons; empty without a provider."""
    if current_request.services().provider is None:
        return ""
    return current_request.services().settings.oidc_name or current_request.say("会社のアカウント")


def began_session() -> bool:
    """Whether the user of this session signed in at the provider."""
    facts = current_request.handle().data.get("sign_in", {})
    return FEDERATED in facts.get("amr", ())


def begin(next_path: str, *, confirm: bool) -> str:
    """Return the provider's address for a sign-in, or for the signed-in user to authenticate again.

    Raises:
        Problem: ``not-found`` without a provider, ``provider-unavailable``, ``rate-limited``, ``sign-in-required``.
    """
    provider = current_request.enabled(current_request.services().provider, code="not-found")
    current_request.check_limit(_LIMIT)
    # Shared by all tabs of a browser; otherwise the last request would invalidate the others.
    browser = cookies.kept(cookies.PROVIDER) or ""
    if len(browser) != cookies.BROWSER_LENGTH:
        browser = secrets.token_urlsafe(32)
    cookies.keep(cookies.PROVIDER, browser)
    confirms = str(current_request.actor().id) if confirm else ""
    state, flow = provider_flows.begin(
        current_request.services().provider_flows, browser, next_path=next_path, confirms=confirms
    )
    try:
        return provider.authorization_url(state, flow)
    except ProviderError as error:
        raise Problem("provider-unavailable", headers=_RETRY) from error


def finish(given: Mapping[str, str]) -> tuple[bool, str]:
    """Check the provider's response; return whether the sign-in is complete or a code must follow, and the path.

    Args:
        given: the fields of ``PROVIDER_RESPONSE``.

    Raises:
        Problem: ``provider-expired`` for a response that this browser did not ask for, ``provider-cancelled``,
            ``provider-refused``, ``provider-unavailable``, ``rate-limited``.
    """
    provider = current_request.enabled(current_request.services().provider, code="not-found")
    current_request.check_limit(_LIMIT)
    flow = provider_flows.consume(
        current_request.services().provider_flows, given["state"], cookies.kept(cookies.PROVIDER) or ""
    )
    if flow is None:
        raise Problem("provider-expired")
    try:
        provider.check_response_issuer(given["iss"] or None)
        if given["error"] or not given["code"]:
            raise Problem("provider-cancelled")
        identity = provider_claims.identify(provider.claims(given["code"], flow), _rules())
        return _signed_in(identity, _account(identity, flow)), flow.next_path
    except ProviderError as error:
        raise Problem("provider-unavailable", headers=_RETRY) from error
    except ClaimsError as error:
        current_request.services().trail.note("sign-in.refused", "", method=FEDERATED, reason=error.reason)
        raise Problem("provider-refused") from error


def sign_out_url() -> str | None:
    """Return the address of the provider's own sign-out; ``None`` without one."""
    services = current_request.services()
    if services.provider is None:
        return None
    return services.provider.sign_out_url(f"{services.settings.site_url}/sign-in?done=signed-out")


def _account(identity: Identity, flow: Flow) -> Found:
    """Return the account of a person, which is linked or created first if there is none."""
    services = current_request.services()
    with services.sessions.begin() as session:
        if not flow.confirms:
            found = provider_accounts.find_or_link(
                session, identity, new_role=services.settings.oidc_new_role, now=current_request.now()
            )
        elif (known := provider_accounts.find(session, identity)) is None:
            raise ClaimsError("other_person")
        else:
            found = known
    if found.done:
        action = "account.link" if found.done == "linked" else "account.create"
        services.trail.note(action, found.user_id, actor=found.user_id, method=FEDERATED)
    if flow.confirms:
        actor = current_request.actor_or_none()
        if actor is None or not str(actor.id) == flow.confirms == found.user_id:
            raise ClaimsError("other_person")
        if identity.auth_time is None or services.clock.time() - identity.auth_time > _RECENT:
            raise ClaimsError("not_recent")
    return found


def _signed_in(identity: Identity, found: Found) -> bool:
    step = current_request.services().sign_in.external_sign_in(
        found.user_id,
        client=client(),
        session=current_request.handle(),
        amr=identity.amr,
        auth_time=identity.auth_time,
        second_factor=identity.second_factor,
        data=session_data(),
    )
    if step.state not in {"done", "challenged"}:  # the sign-in has recorded why
        raise Problem("provider-refused")
    cookies.keep(cookies.CHALLENGE, step.challenge)
    return bool(step)


def _rules() -> ProviderRules:
    settings = current_request.services().settings
    return ProviderRules(
        tenant=settings.oidc_tenant,
        hosted_domain=settings.oidc_hosted_domain,
        tenant_emails=settings.oidc_tenant_emails,
        factor_amr=settings.oidc_factor_amr,
        factor_acr=settings.oidc_factor_acr,
    )

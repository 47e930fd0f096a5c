"""A real browser with a virtual authenticator: what it sends is what is read, from the first byte to the last."""

import threading
from collections.abc import Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import pytest

from mks_hardening.security import (
    MemoryPasskeyStore,
    MemoryTwoFactorStore,
    RelyingParty,
    SecretBox,
    TwoFactorManager,
)
from passkey_page import PasskeyPage

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-proxy-server"]


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[Any]:
    """The address of the page, and the manager behind it."""
    with WSGIServer(("127.0.0.1", 0), Quiet) as server:
        origin = f"http://localhost:{server.server_port}"
        manager = TwoFactorManager(
            MemoryTwoFactorStore(),
            issuer="MKS",
            secret_box=SecretBox(bytes(range(32))),
            relying_party=RelyingParty("localhost", name="MKS", origins=[origin], passwordless=True),
            passkey_store=MemoryPasskeyStore(),
        )
        server.set_app(PasskeyPage(manager))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield origin, manager
        server.shutdown()
        thread.join()


@pytest.mark.chromium
def test_a_browser_registers_verifies_and_signs_in(site: Any, chromium_path: str) -> None:
    from playwright.sync_api import sync_playwright

    origin, manager = site
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium_path, args=FLAGS) as browser,
    ):
        tab = browser.new_page()
        tab.goto(origin)
        devtools = tab.context.new_cdp_session(tab)
        devtools.send("WebAuthn.enable")
        added = devtools.send(
            "WebAuthn.addVirtualAuthenticator",
            {
                "options": {
                    "protocol": "ctap2",
                    "transport": "internal",
                    "hasResidentKey": True,
                    "hasUserVerification": True,
                    "isUserVerified": True,
                }
            },
        )
        authenticator = {"authenticatorId": added["authenticatorId"]}
        assert tab.evaluate("register()") == {"synced": False, "verified": True}
        for _ in range(2):  # the counter grows
            assert tab.evaluate("verify()") == {"ok": True, "reason": "", "verified": True}
        assert tab.evaluate("signIn()") == {"user": "u", "reason": ""}
        # The same authenticator is asked not to make a second one.
        assert "InvalidStateError" in tab.evaluate("register().catch(String)")
        (credential,) = devtools.send("WebAuthn.getCredentials", authenticator)["credentials"]
        devtools.send(
            "WebAuthn.removeCredential", {**authenticator, "credentialId": credential["credentialId"]}
        )
        devtools.send(
            "WebAuthn.addCredential", {**authenticator, "credential": {**credential, "signCount": 0}}
        )
        assert tab.evaluate("verify()")["reason"] == "cloned"
        devtools.send("WebAuthn.setUserVerified", {**authenticator, "isUserVerified": False})
        assert "NotAllowedError" in tab.evaluate("signIn().catch(String)")
        devtools.detach()
    (key,) = manager.passkeys.list("u")
    assert (key.name, key.user_verified, key.backed_up) == ("browser", True, False)

"""A plain WSGI page that registers passkeys, verifies with them and signs in with them; one session."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mks_hardening.exceptions import InvalidCodeError
from mks_hardening.security import PasskeyAssertion

if TYPE_CHECKING:
    from mks_hardening.security import TwoFactorManager

__all__ = ["PasskeyPage"]

PAGE = b"""<!doctype html><title>passkeys</title><script>
const send = async (path, data) => (await fetch(path, {method: "POST", body: JSON.stringify(data ?? null)})).json();
const create = async () => {
  const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(await send("/begin/register"));
  return (await navigator.credentials.create({publicKey})).toJSON();
};
const get = async (what) => {
  const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(await send("/begin/" + what));
  return (await navigator.credentials.get({publicKey})).toJSON();
};
window.register = async () => send("/finish/register", await create());
window.verify = async () => send("/finish/verify", await get("verify"));
window.signIn = async () => send("/finish/sign-in", await get("sign-in"));
</script>"""


class PasskeyPage:
    """The page, and the endpoints that its scripts call."""

    def __init__(self, manager: TwoFactorManager) -> None:
        self._manager = manager
        self._proof = ""

    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        if environ["REQUEST_METHOD"] == "GET":
            start_response("200 OK", [("Content-Type", "text/html")])
            return [PAGE]
        answer = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        start_response("200 OK", [("Content-Type", "application/json"), ("Cache-Control", "no-store")])
        try:
            return [json.dumps(self._done(environ["PATH_INFO"], answer)).encode()]
        except InvalidCodeError as error:
            return [json.dumps({"refused": error.reason}).encode()]

    def _done(self, path: str, answer: Any) -> Any:
        keys = self._manager.passkeys
        if path == "/begin/register":
            return keys.begin_registration(
                "u", session="s", account_name="tanaka", display_name="田中", proof=self._proof
            ).public_key
        if path == "/finish/register":
            made = keys.finish_registration("u", answer, session="s", name="browser")
            self._proof = (made.recovery_codes or [self._proof])[-1]
            return {"synced": made.passkey.synced, "verified": made.passkey.user_verified}
        if path == "/begin/verify":
            return keys.begin_verification("u", session="s").public_key
        if path == "/finish/verify":
            result = self._manager.verify("u", PasskeyAssertion(answer, session="s"))
            return {"ok": result.ok, "reason": result.reason, "verified": result.user_verified}
        if path == "/begin/sign-in":
            return keys.begin_sign_in(session="s").public_key
        signed_in = keys.finish_sign_in(answer, session="s")
        return {"user": signed_in.user_id, "reason": signed_in.result.reason}

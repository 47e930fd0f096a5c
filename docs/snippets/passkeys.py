from mks_hardening.security import (
    MemoryPasskeyStore,
    MemoryTwoFactorStore,
    PasskeyAssertion,
    RelyingParty,
    SecretBox,
    TwoFactorManager,
)

site = RelyingParty("example.com", name="Knowledge", origins=["https://www.example.com"], passwordless=True)
manager = TwoFactorManager(
    MemoryTwoFactorStore(),  # in production SQLAlchemyTwoFactorStore and SQLAlchemyPasskeyStore
    issuer="Knowledge",
    secret_box=SecretBox(SecretBox.generate_key()),
    relying_party=site,
    passkey_store=MemoryPasskeyStore(),
)

SCRIPT = """
async function register() {
  const options = await (await fetch("/passkeys/register/begin", {method: "POST"})).json();
  const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(options);
  const credential = await navigator.credentials.create({publicKey});
  await fetch("/passkeys/register/finish", {method: "POST", body: JSON.stringify(credential.toJSON())});
}
async function signIn() {
  const options = await (await fetch("/passkeys/sign-in/begin", {method: "POST"})).json();
  const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options);
  const credential = await navigator.credentials.get({publicKey});
  await fetch("/passkeys/sign-in/finish", {method: "POST", body: JSON.stringify(credential.toJSON())});
}
"""


def begin_registration(user_id: str, session: str, name: str) -> str:
    return manager.passkeys.begin_registration(user_id, session=session, account_name=name).json


def finish_registration(user_id: str, session: str, answer: str) -> list[str]:
    made = manager.passkeys.finish_registration(user_id, answer, session=session, name="Laptop")
    return list(made.recovery_codes or [])  # shown once, for the first factor of an account


def begin_second_factor(user_id: str, session: str) -> str:
    return manager.passkeys.begin_verification(user_id, session=session).json


def finish_second_factor(user_id: str, session: str, answer: str, client: str) -> bool:
    return bool(manager.verify(user_id, PasskeyAssertion(answer, session=session), client=client))


def begin_sign_in(session: str) -> str:
    return manager.passkeys.begin_sign_in(session=session).json


def finish_sign_in(session: str, answer: str) -> str | None:
    signed_in = manager.passkeys.finish_sign_in(answer, session=session)
    return signed_in.user_id if signed_in else None  # say nothing of why

import secrets
from dataclasses import replace

from mks_hardening.security import (
    SIGN_IN_LIMITS,
    CredentialChanges,
    MemorySignInStore,
    MemoryTwoFactorStore,
    RateLimiter,
    SecretBox,
    SignIn,
    SignInAccount,
    SignInClient,
    TwoFactorManager,
    hash_password,
    totp_code,
)


class Accounts:  # over the table of users
    def __init__(self, *accounts: SignInAccount) -> None:
        self.rows = {account.user_id: account for account in accounts}

    def find(self, name: str, /) -> SignInAccount | None:
        return next((account for account in self.rows.values() if account.name == name), None)

    def get(self, user_id: str, /) -> SignInAccount | None:
        return self.rows.get(user_id)

    def set_password(self, user_id: str, stored: str, /, *, expected: str | None) -> bool:
        if self.rows[user_id].password_hash != expected:
            return False
        self.rows[user_id] = replace(self.rows[user_id], password_hash=stored, stamp="")
        return True


tanaka = SignInAccount(
    user_id="7", name="tanaka", email="tanaka@example.com", password_hash=hash_password("坂の上の 足場")
)
factors = TwoFactorManager(
    MemoryTwoFactorStore(), issuer="Knowledge", secret_box=SecretBox(SecretBox.generate_key())
)
mails, ended = [], []
sign_in = SignIn(
    Accounts(tanaka),
    store=MemorySignInStore(),  # RedisSignInStore for more than one process
    limiter=RateLimiter(SIGN_IN_LIMITS),
    factors=factors,
    end_sessions=ended.append,  # SessionManager(store).end_user
    device_keys=secrets.token_bytes(32),
    on_notice=mails.append,  # puts the mail into a queue
)
client = SignInClient(address="192.0.2.1")

# An unknown name and a wrong password are one answer.
assert sign_in.password("nobody", "x", client=client) == sign_in.password("tanaka", "x", client=client)

# In a request: session=environ["mks_hardening.session"], which starts when the sign-in is done.
assert sign_in.password("tanaka", "坂の上の 足場", client=client).amr == ("pwd",)

enrolment = factors.begin_enrolment("7", account_name="tanaka")
codes = factors.confirm_enrolment("7", totp_code(enrolment.secret))
step = sign_in.password("tanaka", "坂の上の 足場", client=client)
assert step.state == "challenged"  # keep step.challenge in a cookie
done = sign_in.second_factor(step.challenge, codes[0], client=client)
assert (done.user_id, done.amr) == ("7", ("pwd", "otp", "mfa"))

changes = CredentialChanges(sign_in)
changes.request_reset("tanaka", client=client)
assert changes.reset_password(mails[-1].token, "谷の下の 型枠 三本", client=client)
assert set(ended) == {"7"}

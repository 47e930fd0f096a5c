import base64
import secrets

from mks_hardening.security import MemoryTwoFactorStore, SecretBox, TwoFactorManager, totp_code

key = base64.b64encode(secrets.token_bytes(32)).decode()
manager = TwoFactorManager(MemoryTwoFactorStore(), issuer="Knowledge", secret_box=SecretBox([key]))
enrolment = manager.begin_enrolment("tanaka", account_name="tanaka@example.com")
codes = manager.confirm_enrolment("tanaka", totp_code(enrolment.secret))  # shown once

assert not manager.verify("tanaka", totp_code(enrolment.secret))  # a code works once
assert manager.verify("tanaka", next(iter(codes)))  # a recovery code, once too

from mks_hardening.security import MemoryTwoFactorStore, SecretBox, TwoFactorManager, totp_code

box = SecretBox(SecretBox.generate_key())  # in production from MKS_SECRET_KEYS
manager = TwoFactorManager(MemoryTwoFactorStore(), issuer="Knowledge", secret_box=box)
enrolment = manager.begin_enrolment("tanaka", account_name="tanaka@example.com")
codes = manager.confirm_enrolment("tanaka", totp_code(enrolment.secret))  # shown once

assert manager.verify("tanaka", totp_code(enrolment.secret)).reason == "replayed"  # a code works once
assert manager.verify("tanaka", codes[0])  # a recovery code, once too
assert manager.verify("tanaka", codes[0]).reason == "replayed"  # and using it again is no failure

token = manager.remember_device("tanaka", name="Firefox at home")  # for a cookie
assert manager.check_device("tanaka", token)
[device] = manager.devices("tanaka", token=token)  # for the page on which people look after their devices
assert device.current
manager.revoke_device("tanaka", device.id)
assert not manager.check_device("tanaka", token)

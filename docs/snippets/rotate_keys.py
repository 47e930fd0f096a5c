from mks_hardening.exceptions import DecodeError
from mks_hardening.security import SecretBox

old, new = SecretBox.generate_key(), SecretBox.generate_key()
owner = {"user_id": "7", "purpose": "bank-account"}

stored = SecretBox(old).encrypt("DE89 3704", **owner)
both = SecretBox([new, old])  # MKS_SECRET_KEYS="NEW,OLD": the first encrypts, all decrypt
print("readable with both keys:", both.decrypt(stored, **owner))
print("to be encrypted again:", both.needs_rotation(stored))

stored = both.encrypt(both.decrypt(stored, **owner), **owner)
print("readable with the new key alone:", SecretBox(new).decrypt(stored, **owner))
try:
    SecretBox(old).decrypt(stored, **owner)
except DecodeError:
    print("readable with the old key alone: no")

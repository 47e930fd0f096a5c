import tempfile
from pathlib import Path

from mks_hardening.security import BreachedPasswords, PasswordHasher, PasswordPolicy, build_breach_filter

hasher = PasswordHasher(memory_budget=256 * 2**20, workers=4)  # 256 MiB, whatever number of people sign in
stored = hasher.hash("correct horse battery")
assert hasher.verify("correct horse battery", stored)
assert not hasher.verify("correct horse battery", None)  # nobody, in the same time
if hasher.needs_rehash(stored):  # after a good sign-in: the parameters have changed since
    stored = hasher.hash("correct horse battery")

with tempfile.TemporaryDirectory() as folder:
    leaked, compact = Path(folder) / "leaked.txt", Path(folder) / "leaked.mks"
    leaked.write_text("足場の点検は毎朝\n")
    # Or, for the list of "Have I Been Pwned": mks-hardening passwords build-filter pwned.txt leaked.mks
    build_breach_filter(leaked, compact, kind="passwords")
    policy = PasswordPolicy(context=["MKS"], breached=BreachedPasswords(compact))
    assert policy.check("足場の点検は毎朝").errors == ("breached",)
    assert policy.check("T4n4k4-2026!", email="tanaka@example.com").errors == ("personal",)

"""What every area promises: a lazy facade, exact messages about missing packages, no secret in a repr."""

import subprocess
import sys
import types
from typing import Any

import pytest

from mks_hardening import security
from mks_hardening.exceptions import MissingDependencyError

HEAVY = [
    "redis",
    "limits",
    "pyotp",
    "qrcode",
    "PIL",
    "sqlalchemy",
    "requests",
    "werkzeug",
    "flask",
    "asyncio",
    "ssl",
    "cryptography",
    "webauthn",
    "argon2",
    "bcrypt",
]


def run(code: Any) -> Any:
    return subprocess.run(
        [sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True, timeout=60
    ).stdout.split()


def test_the_facade_costs_little_and_loads_nothing_third_party() -> None:
    code = (
        "import sys; before = set(sys.modules); import mks_hardening.security\n"
        f"new = set(sys.modules) - before; print(len(new), *sorted(new & set({HEAVY!r})))"
    )
    number, *heavy = run(code)
    assert int(number) <= 75
    assert heavy == []


def test_all_names_together_load_nothing_third_party() -> None:
    """The doors open on construction, not when a class is looked at."""
    code = (
        "import sys; import mks_hardening.security as s\n"
        "before = set(sys.modules)\n"
        "for name in s.__all__: getattr(s, name)\n"
        f"print(*sorted((set(sys.modules) - before) & set({HEAVY!r})))"
    )
    assert run(code) == []


def sql_store() -> Any:
    return security.SQLAlchemyTwoFactorStore(object())


def passkeys() -> Any:
    party = security.RelyingParty("example.com", name="n", origins=["https://example.com"])
    return security.TwoFactorManager(
        security.MemoryTwoFactorStore(),
        issuer="n",
        secret_box=security.SecretBox(bytes(range(32))),
        relying_party=party,
        passkey_store=security.MemoryPasskeyStore(),
    )


CASES = {
    "pyotp": (lambda: security.provisioning_uri("A" * 32, account_name="a", issuer="b"), "security"),
    "limits": (lambda: security.RateLimiter({"g": "1 per minute"}), "security"),
    "cryptography": (lambda: security.SecretBox(bytes(range(32))), "security"),
    "werkzeug": (lambda: security.PasswordHasher(scheme="scrypt").hash("x"), "security"),
    "argon2": (lambda: security.PasswordHasher(scheme="argon2id"), "argon2"),
    "bcrypt": (lambda: security.PasswordHasher().verify("x", "$2b$04$" + "a" * 53), "bcrypt"),
    "qrcode": (lambda: security.qr_code("x"), "qr"),
    "sqlalchemy": (sql_store, "db"),
    "webauthn": (passkeys, "passkeys"),
    "redis": (lambda: security.RedisTwoFactorStore("redis://127.0.0.1:1"), "cache"),
}


@pytest.mark.parametrize("package", CASES)
def test_a_missing_package_is_named_with_its_extra_on_construction(
    monkeypatch: pytest.MonkeyPatch, package: Any
) -> None:
    build, extra = CASES[package]
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError) as caught:
        build()
    assert (caught.value.package, caught.value.extra) == (package, extra)
    assert f"mks-hardening[{extra}]" in str(caught.value)


def test_a_broken_package_shows_its_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = types.ModuleType("pyotp")
    monkeypatch.setitem(sys.modules, "pyotp", broken)
    monkeypatch.delitem(sys.modules, "pyotp.utils", raising=False)
    with pytest.raises(ImportError) as caught:
        security.provisioning_uri("A" * 32, account_name="a", issuer="b")
    assert not isinstance(caught.value, MissingDependencyError)


def test_verification_works_without_pyotp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyotp", None)
    secret = security.generate_secret()
    assert security.verify_totp(secret, security.totp_code(secret, at=0), at=0)

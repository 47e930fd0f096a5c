import base64
import hmac
import re
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pyotp
import pytest

from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security import (
    TOTPMatch,
    generate_secret,
    provisioning_uri,
    qr_code,
    totp_code,
    verify_totp,
)

SHA1 = base64.b32encode(b"12345678901234567890").decode()
SHA256 = base64.b32encode(b"12345678901234567890123456789012").decode()
SHA512 = base64.b32encode(b"1234567890123456789012345678901234567890123456789012345678901234").decode()

# RFC 6238, appendix B
RFC_VECTORS = [
    (59, "94287082", "46119246", "90693936"),
    (1111111109, "07081804", "68084774", "25091201"),
    (1111111111, "14050471", "67062674", "99943326"),
    (1234567890, "89005924", "91819424", "93441116"),
    (2000000000, "69279037", "90698825", "38618901"),
    (20000000000, "65353130", "77737706", "47863826"),
]


@pytest.mark.parametrize(("at", "sha1", "sha256", "sha512"), RFC_VECTORS)
def test_rfc_6238_vectors(at: int, sha1: str, sha256: str, sha512: str) -> None:
    assert totp_code(SHA1, at=at, digits=8) == sha1
    assert totp_code(SHA256, at=at, digits=8, algorithm="sha256") == sha256
    assert totp_code(SHA512, at=at, digits=8, algorithm="sha512") == sha512


def test_generated_secrets_have_160_bits_and_differ() -> None:
    secrets = {generate_secret() for _ in range(50)}
    assert len(secrets) == 50
    assert {len(base64.b32decode(secret)) for secret in secrets} == {20}


def test_codes_of_a_generated_secret_agree_with_pyotp() -> None:
    secret = generate_secret()
    assert totp_code(secret, at=1_700_000_000) == pyotp.TOTP(secret).at(1_700_000_000)


@pytest.mark.parametrize("spelling", [SHA1.lower(), SHA1[:4] + " " + SHA1[4:], SHA1 + "=" * 8])
def test_a_secret_may_be_typed_in_any_case_with_blanks_and_padding(spelling: Any) -> None:
    assert totp_code(spelling, at=59, digits=8) == "94287082"


@pytest.mark.parametrize("secret", ["", "TESTSECRET123456", "ABC", "JBSWY3DPEHPK3PXP", "é" * 32, "秘密"])
def test_what_is_no_secret_is_refused_without_being_told(secret: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        totp_code(secret, at=0)
    assert caught.value.parameter == "secret"
    assert not secret or secret not in str(caught.value)


@pytest.mark.parametrize(
    ("drift", "window", "accepted"),
    [(0, 0, True), (-1, 0, False), (1, 0, False), (-1, 1, True), (1, 1, True), (-2, 1, False), (2, 1, False)],
)
def test_window(drift: int, window: int, accepted: bool) -> None:
    at = 1_700_000_000
    code = totp_code(SHA1, at=at + 30 * drift)
    match = verify_totp(SHA1, code, window=window, at=at)
    assert match == (TOTPMatch(step=at // 30 + drift, drift=drift) if accepted else None)


def test_edges_of_a_step() -> None:
    code = totp_code(SHA1, at=0)
    assert verify_totp(SHA1, code, window=0, at=29.999)
    assert not verify_totp(SHA1, code, window=0, at=30.0)


def test_step_zero_is_a_match_and_true() -> None:
    match = verify_totp(SHA1, totp_code(SHA1, at=0), window=0, at=0)
    assert match is not None
    assert match.step == 0
    assert match


def test_a_used_step_and_all_before_it_are_refused() -> None:
    at = 1_700_000_000
    step = at // 30
    codes = {drift: totp_code(SHA1, at=at + 30 * drift) for drift in (-1, 0, 1)}
    assert not verify_totp(SHA1, codes[0], at=at, last_step=step)
    assert not verify_totp(SHA1, codes[-1], at=at, last_step=step)
    assert verify_totp(SHA1, codes[1], at=at, last_step=step) == TOTPMatch(step=step + 1, drift=1)
    # after the wall clock was set back the code stays burnt
    assert not verify_totp(SHA1, codes[0], at=at - 20, last_step=step)


def spellings(code: Any) -> Any:
    full_width = "".join(chr(ord(c) + 0xFEE0) for c in code)
    arabic = code.translate({ord("0") + i: ord("٠") + i for i in range(10)})
    return [
        full_width,
        arabic,
        "".join("⓪①②③④⑤⑥⑦⑧⑨"[int(c)] for c in code),
        "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(c)] for c in code),
        " " + code,
        code + "\n",
        code[:3] + " " + code[3:],
        code[:3] + "_" + code[3:],
        "+" + code,
        "0" + code,
        code[:-1],
        "",
        code + "\0",
        int(code),
        code.encode(),
        None,
        [code],
        list(code),
        True,
    ]


@pytest.mark.parametrize("index", range(19))
def test_a_code_has_one_spelling(index: int) -> None:
    secret, at = SHA1, 1_700_000_010
    code = totp_code(secret, at=at)
    assert verify_totp(secret, code, at=at)
    assert verify_totp(secret, spellings(code)[index], at=at) is None


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("digits", 5),
        ("digits", 9),
        ("digits", "6"),
        ("digits", True),
        ("period", 0),
        ("period", 121),
        ("period", 30.0),
        ("algorithm", "md5"),
        ("algorithm", "SHA1"),
        ("window", -1),
        ("window", 11),
        ("at", -1),
        ("at", float("nan")),
        ("at", float("inf")),
    ],
)
def test_impossible_parameters(parameter: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        verify_totp(SHA1, "123456", **{"at": 0, parameter: value})
    assert caught.value.parameter == parameter


@pytest.mark.parametrize(
    ("issuer", "account"),
    [
        ("建設土木ナレッジシステム", "現場 太郎"),
        ("A & B", "a+b@example.jp"),
        ("100%", "x/y?z#w"),
        ("MKS", "user"),
    ],
)
def test_provisioning_uri_is_read_back_unchanged(issuer: str, account: str) -> None:
    uri = provisioning_uri(SHA1, account_name=account, issuer=issuer)
    assert re.fullmatch(r"[!-~]+", uri)
    assert "+" not in uri
    parts = urlsplit(uri)
    assert (parts.scheme, parts.netloc) == ("otpauth", "totp")
    assert unquote(parts.path) == f"/{issuer}:{account}"
    assert parse_qs(parts.query) == {"secret": [SHA1], "issuer": [issuer]}
    parsed = pyotp.parse_uri(uri)
    assert isinstance(parsed, pyotp.TOTP)
    assert (parsed.secret, parsed.issuer, parsed.name) == (SHA1, issuer, account)


def test_provisioning_uri_names_what_differs_from_the_defaults() -> None:
    uri = provisioning_uri(SHA256, account_name="a", issuer="b", digits=8, period=60, algorithm="sha256")
    query = parse_qs(urlsplit(uri).query)
    assert (query["digits"], query["period"], query["algorithm"]) == (["8"], ["60"], ["SHA256"])


@pytest.mark.parametrize("text", ["", "a:b", "a\nb", " a", "a ", "x" * 257, "現" * 29, "a\u202eb", None, 7])
@pytest.mark.parametrize("parameter", ["issuer", "account_name"])
def test_labels_that_would_be_misread_are_refused(parameter: str, text: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        provisioning_uri(SHA1, **{"issuer": "i", "account_name": "a", parameter: text})
    assert caught.value.parameter == parameter


def test_every_label_that_is_accepted_can_be_drawn() -> None:
    for text in ("x" * 256, "現" * 28, "山田太郎@example.jp", "%" * 85):
        uri = provisioning_uri(
            SHA512, account_name=text, issuer=text, digits=8, period=60, algorithm="sha512"
        )
        assert qr_code(uri).startswith("data:image/png")


def test_all_steps_are_computed_and_compared_whatever_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    """No early exit: the time would tell which step matched."""
    compared: list[bool] = []
    original = hmac.compare_digest

    def counting(one: bytes, other: bytes) -> bool:
        compared.append(original(one, other))
        return compared[-1]

    monkeypatch.setattr(hmac, "compare_digest", counting)
    at = 1_700_000_000
    for drift, match in ((-1, 0), (0, 1), (1, 2), (5, None)):
        compared.clear()
        verify_totp(SHA1, totp_code(SHA1, at=at + 30 * drift), at=at)
        assert compared == [number == match for number in range(3)]


def test_the_window_is_one_step_to_each_side_unless_told_otherwise() -> None:
    at = 1_700_000_000
    accepted = [bool(verify_totp(SHA1, totp_code(SHA1, at=at + 30 * drift), at=at)) for drift in range(-3, 4)]
    assert accepted == [False, False, True, True, True, False, False]

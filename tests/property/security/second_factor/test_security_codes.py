import base64
import string
import unicodedata
from typing import Any

import pyotp
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from mks_hardening.exceptions import DecodeError, MksHardeningError
from mks_hardening.security import (
    FailureBudget,
    PasswordPolicy,
    SecretBox,
    generate_recovery_codes,
    normalize_recovery_code,
    provisioning_uri,
    totp_code,
    verify_totp,
)
from mks_hardening.security.second_factor._factor_record import (
    DeviceRecord,
    FactorRecord,
    PendingSecret,
    StoredPasskey,
    decode_record,
    encode_record,
)
from mks_hardening.security.second_factor.failure_budget import NO_FAILURES, ClientFailures, Failures

secrets = st.binary(min_size=16, max_size=64).map(lambda key: base64.b32encode(key).decode())
moments = st.integers(0, 253_402_300_799)  # up to the year 9999
algorithms = st.sampled_from(["sha1", "sha256", "sha512"])
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
BOX = SecretBox(bytes(range(32)))


@given(secrets, moments, st.integers(6, 8), st.integers(1, 120), algorithms)
def test_codes_equal_those_of_pyotp(secret: Any, at: int, digits: Any, period: Any, algorithm: Any) -> None:
    other = pyotp.TOTP(secret, digits=digits, interval=period, digest=algorithm)
    assert totp_code(secret, at=at, digits=digits, period=period, algorithm=algorithm) == other.at(at)


@given(secrets, moments, st.integers(0, 3), st.integers(-5, 5), st.one_of(st.none(), st.integers(-3, 3)))
def test_a_code_is_accepted_inside_its_window_and_after_the_last_step_only(
    secret: Any, at: int, window: int, drift: int, last: Any
) -> None:
    step = at // 30 + drift
    assume(step >= 0)
    last_step = None if last is None else at // 30 + last
    code = totp_code(secret, at=step * 30)
    match = verify_totp(secret, code, at=at, window=window, last_step=last_step)
    inside = abs(drift) <= window and (last_step is None or step > last_step)
    others = {
        totp_code(secret, at=other * 30)
        for other in range(max(0, at // 30 - window), at // 30 + window + 1)
        if other != step
    }
    if code not in others:  # two steps of one window may share a code once in a million
        assert bool(match) == inside
        assert match is None or (match.step, match.drift) == (step, drift)


@given(secrets, st.one_of(st.text(max_size=12), st.binary(max_size=8), st.integers(), st.none()))
@example("A" * 32, "１２３４５６")
@example("A" * 32, "²³⁴⁵⁶⁷")
@example("A" * 32, "")
def test_verify_never_raises_on_what_people_type(secret: Any, code: Any) -> None:
    match = verify_totp(secret, code, at=1_700_000_000)
    if match is not None:
        assert isinstance(code, str)
        assert len(code) == 6
        assert set(code) <= set(string.digits)


@given(secrets, words, words)
def test_a_provisioning_uri_is_refused_or_read_back(secret: Any, issuer: str, account: str) -> None:
    try:
        uri = provisioning_uri(secret, account_name=account, issuer=issuer)
    except MksHardeningError:
        return
    assert uri.isascii()
    parsed = pyotp.parse_uri(uri)
    assert (parsed.secret, parsed.issuer, parsed.name) == (secret.rstrip("="), issuer, account)


@given(words, words, words)
def test_what_is_encrypted_is_read_back_by_its_owner_only(text: Any, user_id: Any, purpose: Any) -> None:
    sealed = BOX.encrypt(text, user_id=user_id, purpose=purpose)
    assert BOX.decrypt(sealed, user_id=user_id, purpose=purpose) == text
    for other in ((user_id + "x", purpose), (user_id, purpose + "x"), (purpose + "\0", user_id)):
        if other != (user_id, purpose):
            with pytest.raises(DecodeError):
                BOX.decrypt(sealed, user_id=other[0], purpose=other[1])


@given(st.text(max_size=100))
@example("1.")
@example("1.a.b")
@example("9" * 5000)
def test_rubbish_is_never_decrypted(text: Any) -> None:
    with pytest.raises(DecodeError):
        BOX.decrypt(text, user_id="u", purpose="p")
    with pytest.raises(DecodeError):
        BOX.needs_rotation(text)


mangled = st.sampled_from(
    [str.lower, str.upper, str.title, lambda t: t.replace("-", ""), lambda t: t.replace("-", " ー ")]
)


@given(st.lists(mangled, max_size=4), st.booleans())
def test_a_recovery_code_survives_what_people_do_to_it(changes: Any, wide: Any) -> None:
    code = generate_recovery_codes(1)[0]
    typed = code
    for change in changes:
        typed = change(typed)
    if wide:
        typed = "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in typed)
    assert normalize_recovery_code(typed) == code.replace("-", "")


@given(st.one_of(st.text(max_size=140), st.none(), st.integers(), st.binary()))
def test_normalisation_is_total_and_settled(text: Any) -> None:
    normal = normalize_recovery_code(text)
    assert normal is None or normalize_recovery_code(normal) == normal


# --- the stored record -----------------------------------------------------------------------------

seconds = st.floats(0, 4e9)
failures = st.builds(
    Failures,
    st.integers(0, 100),
    st.lists(
        st.builds(ClientFailures, words, st.integers(0, 20), st.integers(0, 50), seconds, seconds), max_size=4
    ).map(tuple),
)
records = st.builds(
    FactorRecord,
    secret=st.one_of(st.none(), words),
    last_step=st.integers(-1, 2**40),
    salt=words,
    recovery=st.frozensets(words, max_size=10),
    key=words,
    used=st.frozensets(words, max_size=10),
    verified_at=st.one_of(st.none(), seconds),
    pending=st.one_of(st.none(), st.builds(PendingSecret, words, seconds)),
    failures=failures,
    devices=st.lists(
        st.builds(DeviceRecord, words, seconds, words, words, st.none() | seconds, st.none() | seconds),
        max_size=3,
    ).map(tuple),
    touched=seconds,
    passkeys=st.lists(
        st.builds(StoredPasskey, created_at=seconds, used_at=st.none() | seconds), max_size=3
    ).map(tuple),
)


@given(records)
def test_records_survive_storage(record: Any) -> None:
    again = decode_record(encode_record(record))
    assert again == record
    assert type(again.failures) is Failures
    assert all(type(client) is ClientFailures for client in again.failures.clients)
    assert encode_record(record).isascii()


@given(st.binary(max_size=200))
def test_rubbish_is_not_a_record(data: Any) -> None:
    with pytest.raises(DecodeError):
        decode_record(data)


@example(FactorRecord(), "last_step", True)
@example(FactorRecord(), "touched", True)
@example(FactorRecord(), "last_step", 1.5)
@given(
    records,
    st.sampled_from(FactorRecord._fields),
    st.sampled_from([None, 1, "x", [1], {"a": 1}, [["x"]], True]),
)
def test_a_record_with_a_wrong_field_is_refused_or_of_the_right_types(
    record: Any, name: Any, value: Any
) -> None:
    import json

    fields = json.loads(encode_record(record)) | {name: value}
    try:
        again = decode_record(json.dumps(fields).encode())
    except DecodeError:
        return
    assert value is not True  # no field is a boolean
    assert again == decode_record(encode_record(again))
    assert again.secret is None or isinstance(again.secret, str)
    assert type(again.last_step) is int
    assert type(again.touched) is float
    assert isinstance(again.salt, str)
    assert all(isinstance(known, str) for known in again.recovery)


# --- failures --------------------------------------------------------------------------------------


@given(
    st.integers(1, 6),
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 500), st.booleans()), max_size=80),
)
def test_no_client_has_more_than_its_attempts_within_the_length_of_a_lock(attempts: Any, events: Any) -> None:
    budget = FailureBudget(attempts, lock=60, max_lock=240, lifetime=40)
    state, now = NO_FAILURES, 1_000_000.0
    wrong: dict[str, list[float]] = {client: [] for client in "abc"}
    total = 0
    for client, gap, right in events:
        now += gap
        lock = budget.lock_of(state, client, now)
        if lock is not None:
            assert lock.retry_after is None or 0 < lock.retry_after <= 240
        elif right:
            state, total, wrong[client] = budget.forgiven(state, client, now), 0, []
        else:
            state, total = budget.charged(state, client, now), total + 1
            wrong[client].append(now)
        assert sum(moment > now - 60 for moment in wrong[client]) <= attempts
        assert state.total == total <= 40
        assert len(state.clients) <= 3


# --- passwords -------------------------------------------------------------------------------------


@given(st.one_of(words, st.text(max_size=140)))
def test_the_policy_is_total_and_indifferent_to_composition(password: Any) -> None:
    policy = PasswordPolicy(context=["現場"])
    verdict = policy.check(password, username="taro")
    assert verdict == policy.check(unicodedata.normalize("NFC", password), username="taro")
    assert bool(verdict) == (verdict.errors == ())


@given(
    st.sampled_from(["password", "sakura", "パスワード", "qwertyuiop"]),
    st.text("0123456789!?#", max_size=9),
    st.booleans(),
)
def test_decorations_do_not_help(word: Any, tail: Any, upper: Any) -> None:
    password = (word.upper() if upper else word) + tail
    assert "common" in PasswordPolicy().check(password).errors

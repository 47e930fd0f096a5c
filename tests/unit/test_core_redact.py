"""Redaction by name, inside text, in query strings and in URLs."""

from __future__ import annotations

import pytest

from mks_hardening._core.redact import REDACTED, SecretRedactor, default_redactor

SECRET_NAMES = """password passwd pwd PASSWORD userPassword db_password password2 password_confirm passphrase
    token access_token refreshToken csrf_token id-token secret client_secret SECRET_KEY apiKey X-Api-Key api.key
    Authorization proxy-authorization cookie Set-Cookie session_id sessionid JSESSIONID sid otp totp otp_code
    recovery_code recovery_codes private_key privateKey dsn DATABASE_URL webhook_url SLACK_WEBHOOK_URL
    aws_secret_access_key AWS_ACCESS_KEY_ID card_number cvv
    パスワード 新しいパスワード パスワード確認 ｐａｓｓｗｏｒｄ"""
HARMLESS_NAMES = """token_count password_policy tokenizer secretary max_tokens prompt_tokens cookie_name
    cookie_secure password_changed_at authorization_url token_type cache_key primary_key public_key keyboard monkey
    compass spinning author authority status_code session_timeout code url key passenger
    パスワードポリシー surpassed"""


@pytest.mark.parametrize("name", SECRET_NAMES.split())
def test_secret_names(name: str) -> None:
    assert default_redactor().is_secret_key(name)


@pytest.mark.parametrize("name", HARMLESS_NAMES.split())
def test_harmless_names(name: str) -> None:
    assert not default_redactor().is_secret_key(name)


def test_secrets_at_any_depth_go_and_the_rest_stays() -> None:
    given = {
        "a": [{"db_password": "x", "n": (("Authorization", "B x"),)}],
        "token_count": 3,
        "password": None,
    }
    assert default_redactor().redact(given) == {
        "a": [{"db_password": REDACTED, "n": (("Authorization", REDACTED),)}],
        "token_count": 3,
        "password": None,
    }


def test_query_strings_keep_their_shape() -> None:
    given = "a=1&token=x&code=2&state=z&q=hello%20world&empty=&flag"
    expected = f"a=1&token={REDACTED}&code={REDACTED}&state={REDACTED}&q=hello%20world&empty=&flag"
    assert default_redactor().redact_query(given) == expected


def test_urls_lose_credentials_and_secret_parameters() -> None:
    assert (
        default_redactor().redact_url("https://u:p@h/x?token=1&page=2#access_token=5")
        == f"https://u:{REDACTED}@h/x?token={REDACTED}&page=2#access_token={REDACTED}"
    )


def test_users_add_names_and_patterns() -> None:
    redactor = SecretRedactor(keys=("employeeNumber",), patterns=(r"EMP-(?P<secret>\d+)",))
    assert redactor.redact_text("employee_number=77 EMP-123") == f"employee_number={REDACTED} EMP-{REDACTED}"

"""Which names hold secrets: one verdict for dictionary keys, header names, query parameters and ``key=value`` text.

A name is reduced to lower-case words without separators. It is secret when it *ends* in a secret noun, so that
``db_password`` and ``X-Api-Key`` are, and ``password_policy``, ``token_count`` and ``secretary`` are not.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["HEADER_NAMES", "QUERY_NAMES", "STEMS", "ends_in_secret", "normalise"]

# Nouns that are unmistakable at the end of a name, whatever stands in front of them.
_ENDINGS: Final = (
    "password", "passwords", "passwd", "passphrase", "passphrases", "passcode", "passcodes",
    "token", "accesstokens", "refreshtokens", "apitokens", "authtokens", "sessiontokens", "devicetokens",
    "secret", "secrets", "credential", "credentials", "cookie", "cookies", "authorization", "authorisation",
    "apikey", "apikeys", "accesskey", "accesskeys", "accesskeyid", "secretkey", "secretkeys", "privatekey",
    "privatekeys", "encryptionkey", "encryptionkeys", "signingkey", "signingkeys", "masterkey", "sessionkey",
    "sharedkey", "accountkey", "authkey", "sshkey", "hmackey", "functionkey", "subscriptionkey",
    "sessionid", "sessionids", "sessid", "sharedaccesssignature",
    "recoverycode", "recoverycodes", "backupcode", "backupcodes", "onetimecode", "onetimecodes", "otpcode",
    "totpcode", "mfacode", "2facode", "verificationcode", "authcode", "authorizationcode", "authenticationcode",
    "securitycode", "resetcode", "logincode", "smscode", "pincode", "confirmationcode",
    "cardnumber", "cardno", "creditcard", "ccnumber",
    "webhook", "webhookurl", "webhookuri", "provisioninguri", "otpauthuri",
    "databaseurl", "databaseuri", "dburl", "dburi", "redisurl", "brokerurl", "resultbackend", "amqpurl",
    "mongouri", "mongourl", "connectionstring", "connectionuri", "connstr",
    "パスワード", "パスフレーズ", "暗証番号", "秘密鍵", "トークン", "認証コード", "確認コード", "リカバリーコード",
    "復旧コード", "バックアップコード", "apiキー", "カード番号", "セッションid", "クッキー", "認証情報",
    "シークレット", "合言葉",
)  # fmt: skip

# Short nouns that are secret only as a whole word: ``db_pass`` but not ``compass``, ``pin`` but not ``spin``.
_WORDS: Final = frozenset((
    "pass", "pwd", "pw", "auth", "otp", "otps", "totp", "hotp", "jwt", "dsn", "sid", "pin", "cvv", "cvc", "cvv2",
    "cvc2", "pan", "csrf", "xsrf", "creds", "cred", "bearer", "psk", "session", "jsessionid", "phpsessid",
    "aspsessionid",
))  # fmt: skip

# Names that are secret only when nothing stands in front of them.
_WHOLE: Final = frozenset(("tokens", "privkey", "webhooks"))

# What may follow the noun without making it harmless.
_NEUTRAL: Final = frozenset((
    "value", "values", "val", "raw", "plain", "plaintext", "cleartext", "text", "string", "str", "old", "new",
    "current", "previous", "confirm", "confirmation", "again", "repeat", "repeated", "retype", "verify", "header",
    "hash", "hashed", "digest", "encoded", "encrypted", "b64", "base64", "hex", "bytes", "input", "field", "data",
    "確認", "確認用", "再入力",
))  # fmt: skip

#: Header names whose unquoted value runs to the end of the line.
HEADER_NAMES: Final = ("authorization", "authorisation", "cookie", "cookies")

#: Query parameters that are secret in a URL although the word is harmless elsewhere.
QUERY_NAMES: Final = frozenset((
    "code", "sig", "signature", "xamzsignature", "xamzcredential", "xgoogsignature", "ticket", "samlresponse",
    "samlrequest", "assertion", "key", "passkey", "auth", "hash",
))  # fmt: skip

#: Every secret name contains one of these; a text without any of them holds no secret name.
STEMS: Final = (
    "pass", "pwd", "pw", "token", "secret", "cred", "cookie", "auth", "key", "sess", "sid", "signature", "code",
    "otp", "jwt", "dsn", "pin", "cvv", "cvc", "pan", "card", "ccnumber", "srf", "bearer", "psk", "webhook", "uri",
    "url", "backend", "connectionstring", "connstr",
    "パスワード", "パスフレーズ", "暗証番号", "秘密鍵", "トークン", "コード", "キー", "カード番号", "セッション",
    "認証情報", "シークレット", "合言葉",
)  # fmt: skip

_PIECE: Final = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+|[ァ-ヿ]+|[^\W\d_a-zA-Zァ-ヿ]+")


def normalise(name: str) -> list[str]:
    """The lower-case words of a name: ``X-ApiKey2`` gives ``x api key 2``."""
    if not name.isascii():
        from unicodedata import normalize

        name = normalize("NFKC", name)
    return [piece.lower() for piece in _PIECE.findall(name)]


def ends_in_secret(name: str, *, extra_endings: tuple[str, ...] = ()) -> bool:
    """Whether the name ends in a secret noun, neutral words such as ``confirm`` or ``2`` behind it aside."""
    words = normalise(name)
    while len(words) > 1 and (words[-1] in _NEUTRAL or words[-1].isdigit()):
        words.pop()
    if not words:
        return False
    joined = "".join(words)
    return (
        joined.endswith(_ENDINGS)
        or words[-1] in _WORDS
        or joined in _WHOLE
        or (bool(extra_endings) and joined.endswith(extra_endings))
    )

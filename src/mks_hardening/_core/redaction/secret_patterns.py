"""Table of secret names and patterns, from which the text patterns and the prefilter are derived.

To add a kind of secret, add a row here; nothing else needs to change, and the property tests cover it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = [
    "HARMLESS_VALUES",
    "HARMLESS_WORDS",
    "HEADER_NAMES",
    "NEUTRAL_WORDS",
    "NOUNS",
    "QUERY_NAMES",
    "SECRET_PATTERNS",
    "WEAK_VALUES",
    "SecretPattern",
]

# --- secrets by name -------------------------------------------------------------------------

#: For each stem, the nouns that contain it; a text without any stem contains no secret name. ``…x``: every name
#: that ends in x is secret (``db_password``); ``x``: a separate word (``db_pass`` but not ``compass``); ``~x``: the
#: same, but harmless with a value such as ``ldap`` or ``3``; ``^x``: the whole name.
NOUNS: Final[Mapping[str, str]] = {
    "pass": "…password …passwords …passwd …passphrase …passphrases …passcode …passcodes ~pass"
    " …requirepass …masterauth …sshpass …storepass …keypass",
    "pwd": "pwd",
    "pw": "pw …bindpw",
    "token": "…token …accesstokens …refreshtokens …apitokens …authtokens …sessiontokens …devicetokens ^tokens",
    "secret": "…secret …secrets",
    "cred": "…credential …credentials cred creds",
    "cookie": "…cookie …cookies",
    "auth": "…authorization …authorisation ~auth …otpauthuri",
    "key": "…apikey …apikeys …recoverykey …accesskey …accesskeys …accesskeyid …secretkey …secretkeys …privatekey"
    " …privatekeys …encryptionkey …encryptionkeys …signingkey …signingkeys …masterkey …sessionkey …sharedkey"
    " …accountkey …authkey …clientkeydata …sshkey …hmackey …functionkey …subscriptionkey ^privkey",
    "sess": "…sessionid …sessionids …sessid ~session jsessionid phpsessid aspsessionid",
    "sid": "sid",
    # Presigned URLs of Amazon and Google, shared access signatures of Azure.
    "signature": "…amzsignature …googsignature …sharedaccesssignature",
    "code": "…recoverycode …recoverycodes …backupcode …backupcodes …onetimecode …onetimecodes …otpcode …totpcode"
    " …mfacode …2facode …verificationcode …authcode …authorizationcode …authenticationcode …securitycode …resetcode"
    " …logincode …smscode …pincode …confirmationcode …signincode"
    " …accesscode …unlockcode …codeverifier",
    "otp": "otp otps totp hotp",
    "jwt": "jwt",
    "dsn": "dsn",
    "pin": "pin",
    "cvv": "cvv cvv2",
    "cvc": "cvc cvc2",
    "pan": "~pan",
    "card": "…cardnumber …cardno …creditcard",
    "ccnumber": "…ccnumber",
    "srf": "csrf xsrf",
    "bearer": "bearer",
    "psk": "psk",
    "webhook": "…webhook …webhookurl …webhookuri ^webhooks",
    "uri": "…provisioninguri …databaseuri …dburi …mongouri …connectionuri",
    "url": "…databaseurl …dburl …redisurl …brokerurl …amqpurl …mongourl",
    "backend": "…resultbackend",
    "phrase": "…passphrase …seedphrase",
    "answer": "…securityanswer …secretanswer",
    "connectionstring": "…connectionstring",
    "connstr": "…connstr",
    "パスワード": "…パスワード",
    "パスフレーズ": "…パスフレーズ",
    "パスコード": "…パスコード",
    "暗証番号": "…暗証番号",
    "認証番号": "…認証番号",
    "確認番号": "…確認番号",
    "秘密鍵": "…秘密鍵",
    "トークン": "…トークン",
    "コード": "…認証コード …確認コード …リカバリーコード …リカバリコード …復旧コード …復旧用コード"
    " …回復コード …復元コード …バックアップコード …予備コード …セキュリティコード …ワンタイムコード …ログインコード"
    " …サインインコード …pinコード …認証用コード …確認用コード …認証のコード …確認のコード",
    "キー": "…apiキー …アクセスキー …シークレットキー …秘密キー …認証キー …暗号化キー …署名キー",
    "鍵": "…暗号鍵 …署名鍵 …共通鍵",
    "カード番号": "…カード番号",
    "セッション": "…セッションid",
    "クッキー": "…クッキー",
    "認証情報": "…認証情報",
    "シークレット": "…シークレット",
    "合言葉": "…合言葉",
    # Halfwidth spellings of the same nouns.
    "ﾊﾟｽﾜｰﾄﾞ": "",
    "ﾄｰｸﾝ": "",
    "ｺｰﾄﾞ": "",
    "ｷｰ": "",
    "ｼｰｸﾚｯﾄ": "",
}

#: Words that may follow the noun without making it harmless.
NEUTRAL_WORDS: Final = frozenset((
    "value", "values", "val", "raw", "plain", "plaintext", "cleartext", "text", "string", "str", "old", "new",
    "current", "previous", "confirm", "confirmation", "again", "repeat", "repeated", "retype", "verify", "header",
    "hash", "hashed", "digest", "encoded", "encrypted", "b64", "base64", "hex", "bytes", "input", "field", "data",
    "確認", "確認用", "再入力",
))  # fmt: skip

#: Header names whose unquoted value extends to the end of the line.
HEADER_NAMES: Final = ("authorization", "authorisation", "cookie", "cookies")

#: Query parameters that are secret in a URL although the word is harmless elsewhere.
QUERY_NAMES: Final = frozenset((
    "code", "sig", "signature", "xamzsignature", "xamzcredential", "xgoogsignature", "xgoogcredential", "ticket",
    "samlresponse", "samlrequest", "assertion", "key", "passkey", "auth", "hash",
))  # fmt: skip

#: Values that reveal nothing, whatever the name.
HARMLESS_VALUES: Final = frozenset((
    "", "none", "null", "nil", "true", "false", "str", "bytes", "int", "...", "…", "undefined", "-", "--", "n/a",
    "redacted", "(none)", "(null)", "(hidden)", "(not set)", "(empty)", "(unset)",
))  # fmt: skip

#: First words of prose about a secret, after a colon and a space: ``password: required field``.
HARMLESS_WORDS: Final = frozenset((
    "required", "missing", "invalid", "incorrect", "wrong", "expired", "changed", "unchanged", "updated",
    "rejected", "accepted", "revoked", "rotated", "valid", "ok", "okay", "failed", "failure", "success", "too",
    "must", "cannot",
    "not", "no", "is", "was", "this", "please", "may", "should", "unset", "empty", "blank", "hidden", "masked",
    "mismatch", "denied", "disabled", "enabled", "delivered", "sent", "received", "include", "omit", "same-origin",
    "weak", "strong", "set", "same", "yes", "minimum", "timeout", "retrying", "queued", "none",
    "optional", "unknown", "error", "your", "the", "does", "do",
    "必須", "必須です", "必須項目", "必須項目です", "必須入力", "任意", "未入力", "未設定", "設定済み", "入力済み",
    "変更済み", "無効", "無効です", "有効", "有効です", "不正", "不正です", "不一致", "一致しません", "違います",
    "間違っています", "入力してください", "入力", "変更", "変更しました", "設定", "再設定", "リセット", "発行",
    "再発行", "送信", "再送", "再送信", "取得", "表示", "非表示", "確認", "確認用", "再入力", "削除", "更新",
    "登録", "完了", "成功", "失敗", "エラー", "なし", "あり", "不明", "空", "空欄", "期限切れ",
))  # fmt: skip

#: Values of weak nouns (``~``) that are a method or an outcome rather than a secret.
WEAK_VALUES: Final = HARMLESS_WORDS | frozenset((
    "ldap", "ldaps", "saml", "saml2", "oauth", "oauth2", "oidc", "openid", "sso", "kerberos", "gssapi", "ntlm",
    "basic", "digest", "negotiate", "token", "session", "cookie", "jwt", "mtls", "tls", "cert", "certificate",
    "radius", "pam", "local", "internal", "external", "anonymous", "password", "peer", "trust", "md5", "scram",
    "pending", "granted", "on", "off", "yes", "started", "ended", "closed", "opened", "new", "active", "inactive",
    "bearer", "api_key", "apikey", "api-key", "2fa", "mfa", "webauthn", "passkey", "fido2", "totp", "hotp", "otp",
    "x509", "plain", "cram-md5", "xoauth2", "oauthbearer", "scram-sha-1", "scram-sha-256", "sha256", "idle",
    "absolute", "revoked", "rotated", "all", "{}", "[]", "()",
    "pass", "passed", "fail", "skip", "skipped", "done", "created", "destroyed", "terminated", "timeout", "login",
    "logout",
))  # fmt: skip


# --- secrets by shape ------------------------------------------------------------------------


class SecretPattern(NamedTuple):
    """Pattern that recognises a secret by its shape, without a name.

    Attributes:
        literals: every match starts with one of them.
        pattern: regular expression for the whole match, including the literal.
        example: example for the tests.
        folded: whether matching ignores case.
        inside: whether a match may start within a word.
        needs: string that must also occur somewhere in the text.
        judge: name of the function in ``pattern_redaction`` that decides about a match; without one, everything but
            the group ``kept`` is replaced.
    """

    literals: tuple[str, ...]
    pattern: str
    example: str
    folded: bool = False
    inside: bool = False
    needs: str = ""
    judge: str = ""


_REST: Final = r"[^\s\"'<>\\]++"
#: Gap between the arguments of a command, and several arguments.
_GAP: Final = r"(?:[ ]{1,4}['\"]?|['\"],[ ]['\"])"
_ARGUMENTS: Final = rf"(?:{_GAP}[^\s'\",]{{1,64}}+['\"]?(?=[ ,'\"])){{0,12}}?"
#: Spellings of a slash in a URL, in JSON, and in a URL parameter.
_SLASHES: Final = ("/", "\\/", "%2F")
_SLASH: Final = r"(?:\\?/|%2F)"
_REST_OF_PATH: Final = r"(?:[^\s\"'<>\\&)]|\\/)++"
# To the end of the message: a value may span several lines.
_DETAIL: Final = r"(?:[^\n]|\n(?!\n|CONTEXT:|HINT:|LINE |\[SQL|\(Background))++"

SECRET_PATTERNS: Final[tuple[SecretPattern, ...]] = (
    SecretPattern(
        ("-----BEGIN ",),
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
        r"[^-]*+(?:-(?!----)[^-]*+)*+(?:-----END [A-Z0-9 ]{0,48}-----)?",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
        inside=True,
    ),
    # JSON Web Token, also with a single further part.
    SecretPattern(("eyJ",), r"eyJ[0-9A-Za-z_-]{4,}+(?:\.[0-9A-Za-z_-]*+){1,4}+", "eyJhbGciOi.eyJzdWIiOi.c2ln"),
    SecretPattern(("AKIA", "ASIA"), r"A(?:KI|SI)A[0-9A-Z]{16}(?![0-9A-Za-z])", "AKIAIOSFODNN7EXAMPLE"),
    SecretPattern(
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
        r"gh[pousr]_[0-9A-Za-z]{16,}+",
        "ghp_0123456789abcdefABCD",
    ),
    SecretPattern(("github_pat_",), r"github_pat_[0-9A-Za-z_]{16,}+", "github_pat_0123456789abcdefABCD"),
    SecretPattern(("glpat-",), r"glpat-[0-9A-Za-z_-]{16,}+", "glpat-0123456789abcdefABCD"),
    SecretPattern(
        ("xoxa-", "xoxb-", "xoxc-", "xoxd-", "xoxe-", "xoxo-", "xoxp-", "xoxr-", "xoxs-", "xapp-"),
        r"(?:xox[a-eoprs]|xapp)-[0-9A-Za-z-]{8,}+",
        "xoxb-1234567890-abc",
    ),
    SecretPattern(
        ("sk_live_", "sk_test_", "pk_live_", "pk_test_", "rk_live_", "rk_test_", "whsec_"),
        r"(?:[spr]k_(?:live|test)|whsec)_[0-9A-Za-z]{8,}+",
        "sk_live_0123456789",
    ),
    SecretPattern(("sk-",), r"sk-[0-9A-Za-z_-]{20,}+", "sk-0123456789abcdefABCDEF"),
    SecretPattern(("AIza",), r"AIza[0-9A-Za-z_-]{30,}+", "AIza0123456789012345678901234567890123"),
    SecretPattern(("npm_", "pypi-"), r"(?:npm_|pypi-)[0-9A-Za-z_-]{16,}+", "npm_0123456789abcdef01"),
    # Google access tokens, SendGrid API keys.
    SecretPattern(("ya29.",), r"ya29\.[0-9A-Za-z_-]{16,}+", "ya29.a0AfH6SMBx0123456789"),
    SecretPattern(
        ("SG.",),
        r"SG\.[0-9A-Za-z_-]{16,64}+\.[0-9A-Za-z_-]{16,128}+",
        "SG.0123456789abcdefABCDEF.0123456789abcdefABCDEF",
    ),
    SecretPattern(("hf_",), r"hf_[0-9A-Za-z]{24,}+", "hf_0123456789abcdefABCDEFGH"),
    SecretPattern(
        ("shpat_", "shpss_", "shpca_", "shppa_"), r"shp(?:at|ss|ca|pa)_[0-9a-fA-F]{24,}+",
        "shpat_0123456789abcdef01234567",
    ),
    # DigitalOcean, Docker Hub, Grafana, Groq; Vault; Atlassian; New Relic, Postman, Brevo, Square.
    SecretPattern(
        ("dop_v1_", "dckr_pat_", "glsa_", "gsk_"),
        r"(?:dop_v1|dckr_pat|glsa|gsk)_[0-9A-Za-z_-]{20,}+",
        "dop_v1_0123456789abcdef0123456789abcdef",
    ),
    SecretPattern(
        ("hvs.CAES", "hvb.AAAA"),
        r"hv(?:s\.CAES|b\.AAAA)[0-9A-Za-z_-]{20,}+",
        "hvs.CAESI0123456789abcdefABCDEFGH",
    ),
    SecretPattern(
        ("ATATT3x", "ATCTT3x"), r"AT[AC]TT3x[0-9A-Za-z_=-]{20,}+", "ATATT3xFfGF0123456789abcdefAB",
    ),
    SecretPattern(
        ("NRAK-", "PMAK-", "xkeysib-", "sq0atp-"),
        r"(?:NRAK|PMAK|xkeysib|sq0atp)-[0-9A-Za-z_-]{20,}+",
        "NRAK-0123456789ABCDEFGHIJKLM",
    ),
    SecretPattern(
        ("AGE-SECRET-KEY-1",), r"AGE-SECRET-KEY-1[0-9A-Z]{32,}+",
        "AGE-SECRET-KEY-1QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L",
    ),
    # Mailgun API keys, Telegram bot tokens.
    SecretPattern(("key-",), r"key-[0-9a-f]{32}(?![0-9A-Za-z])", "key-0123456789abcdef0123456789abcdef"),
    SecretPattern(
        (":AA",),
        r":AA[0-9A-Za-z_-]{33}(?![0-9A-Za-z_-])",
        ":AAF0123456789abcdefABCDEF0123456789",
        inside=True,
    ),
    # Credentials in a URL, also a password with an unescaped "@" or "/".
    SecretPattern(("://",), rf"://{_REST}", "postgres://app:hunter2@db/app", inside=True, needs="@", judge="url"),
    SecretPattern(
        ("hooks.slack.com/", "discord.com/api/webhooks/", "discordapp.com/api/webhooks/", "webhook.office.com/"),
        rf"(?P<kept>hooks\.slack\.com/|discord(?:app)?\.com/api/webhooks/|webhook\.office\.com/){_REST}",
        "hooks.slack.com/services/T0001/B0001/x",
        folded=True,
        inside=True,
    ),
    # The path alone, as HTTP libraries show it in errors, with a port, or inside JSON or a query.
    SecretPattern(
        tuple(f"services{slash}T" for slash in _SLASHES),
        rf"(?P<kept>services{_SLASH})T[0-9A-Z]{{2,12}}{_SLASH}(?:[AB][0-9A-Z]{{2,12}}"
        rf"|[0-9]{{6,20}}){_SLASH}{_REST_OF_PATH}",
        "services/T0001/B0001/hunter2",
        inside=True,
    ),
    SecretPattern(
        tuple(f"webhooks{slash}" for slash in _SLASHES),
        rf"(?P<kept>webhooks{_SLASH})[0-9]{{16,20}}{_SLASH}{_REST_OF_PATH}",
        "webhooks/123456789012345678/hunter2",
        inside=True,
    ),
    # A password in SQL, among the values of a row.
    SecretPattern(
        ("INSERT INTO ", "insert into "),
        r"(?:INSERT INTO|insert into) [^()\n]{1,200}+\((?P<columns>[^()]{1,4000}+)\)\s{0,8}(?i:VALUES)\s{0,8}"
        r"(?P<rows>\((?:'(?:[^']|'')*+'?|[^;'])*+)",
        "INSERT INTO users (name, password) VALUES ('tanaka', 'hunter2')",
        inside=True,
        judge="insert",
    ),
    SecretPattern(
        ("IDENTIFIED BY ", "IDENTIFIED WITH "),
        r"(?P<kept>IDENTIFIED (?:WITH [\w'\"`]{1,64} )?BY (?:PASSWORD )?['\"])[^'\"\r\n]++",
        "IDENTIFIED BY 'hunter2'",
        inside=True,
    ),
    SecretPattern(
        tuple(
            f"{mark}{name}="
            for mark in "?&"
            for name in ("code", "sig", "signature", "ticket", "samlresponse", "assertion")
        ),
        r"(?P<kept>[?&](?:code|sig|signature|ticket|samlresponse|assertion)=)[^\s&#\"'<>\\]++",
        "?code=4d5e",
        folded=True,
        inside=True,
    ),
    # Passwords among the arguments of commands, also in the text of ``CalledProcessError``.
    SecretPattern(
        ("sshpass", "mysql", "mariadb", "redis-cli", "docker", "sqlcmd", "ldap", "curl"),
        rf"(?P<kept>(?:sshpass{_GAP}-p(?:{_GAP}|['\"])?|(?:mysql|mariadb)(?:-?[a-z]{{1,12}})?{_ARGUMENTS}{_GAP}-p['\"]?"
        rf"|redis-cli{_ARGUMENTS}{_GAP}(?:-a|--pass){_GAP}|docker{_GAP}login{_ARGUMENTS}{_GAP}-p{_GAP}"
        rf"|sqlcmd{_ARGUMENTS}{_GAP}-P(?:{_GAP})?|ldap[a-z]{{1,12}}{_ARGUMENTS}{_GAP}-w{_GAP}"
        rf"|curl{_ARGUMENTS}{_GAP}(?:-u|--user){_GAP}[^\s:'\",-]{{1,64}}:(?!//)))[^\s'\",;|&-][^\s'\"|&]*+",
        "sshpass -p hunter2",
        inside=True,
        needs="-",
    ),
    # Sign-in commands in the output of mail libraries.
    SecretPattern(
        ("AUTH PLAIN ", "AUTH LOGIN ", "AUTH XOAUTH2 "),
        r"(?P<kept>AUTH (?:PLAIN|LOGIN|XOAUTH2) )(?=[a-z]{0,64}[A-Z0-9+/=])[0-9A-Za-z+/]{8,}+={0,2}"
        r"(?![0-9A-Za-z+/=])",
        "AUTH PLAIN AGJvYgBodW50ZXIy",
        inside=True,
    ),
    # Values in database errors: SQLAlchemy without hide_parameters, DETAIL of PostgreSQL.
    SecretPattern(
        ("[parameters: ",), r"(?P<kept>\[parameters: )[^\n]++", "[parameters: ('hunter2',)]", inside=True
    ),
    SecretPattern(
        ("Key (",),
        rf"(?P<kept>Key \((?:[^()\n]|\([^()\n]*+\)){{1,300}}+\)=\(){_DETAIL}",
        "Key (token)=(hunter2) already exists.",
        inside=True,
        judge="key",
    ),
    SecretPattern(
        ("Failing row contains (",),
        rf"(?P<kept>Failing row contains \(){_DETAIL}",
        "Failing row contains (1, hunter2).",
        inside=True,
    ),
    # psycopg2 interpolates values into the statement, and PostgreSQL quotes that line.
    SecretPattern(("LINE ",), r"(?P<kept>\bLINE [0-9]{1,6}: )[^\n]++", "LINE 1: SELECT 'hunter2'", inside=True),
    SecretPattern(
        ("invalid input syntax for ",),
        r"(?P<kept>invalid input syntax for [^:\n]{1,80}+: )[^\n]++",
        'invalid input syntax for type integer: "hunter2"',
        inside=True,
    ),
    SecretPattern(
        ('value "',),
        r"(?P<kept>value \")[^\"\n]*+(?=\" is out of range)",
        'value "99999" is out of range',
        inside=True,
    ),
    SecretPattern(
        ("syntax error in tsquery: ",),
        r"(?P<kept>syntax error in tsquery: )[^\n]++",
        'syntax error in tsquery: "hunter2 x"',
        inside=True,
    ),
    # Schemes of the Authorization header (RFC 6750, RFC 7617).
    SecretPattern(
        ("Bearer", "bearer", "BEARER"),
        r"(?:[Bb]earer|BEARER)(?:[ \t]|%20|\+){1,4}(?P<value>[\w.~+/=:%-]{4,}+)",
        "Bearer abc123",
        judge="bearer",
    ),
    SecretPattern(
        ("Basic", "BASIC"),
        r"(?:Basic|BASIC)(?:[ \t]|%20|\+){1,4}(?P<value>[A-Za-z0-9+/=_-]{4,}+)",
        "Basic dXNlcjpwYXNz",
        judge="basic",
    ),
)  # fmt: skip

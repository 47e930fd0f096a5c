"""Redaction by name, inside text, in query strings and in URLs."""

from __future__ import annotations

import sys
from collections import namedtuple
from collections.abc import Callable
from random import Random
from types import MappingProxyType
from typing import Any, cast

import pytest

from mks_hardening._core.redaction.redactor import CUT, REDACTED, SecretRedactor, default_redactor
from mks_hardening._core.redaction.secret_patterns import SECRET_PATTERNS
from mks_hardening._core.redaction.step_limit import StepLimit
from mks_hardening._core.redaction.value_end import value_at
from mks_hardening.exceptions import ConfigurationError

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


@pytest.mark.parametrize(
    ("beside", "holder"),
    [
        ({"name": "password"}, "default"),
        ({"type": "password", "temporary": False}, "value"),
        ({"op": "replace", "path": "/users/7/password"}, "value"),
        ({"loc": ("body", "password"), "type": "string_too_short"}, "input"),
        ({"field_name": "api_key"}, "field_value"),
        ({"paramName": "apiKey"}, "paramValue"),
        ({"column": "password"}, "old"),
        ({"key": "DB_PASSWORD"}, "new_value"),
        ({"k": "token"}, "v"),
    ],
)
def test_a_name_given_as_data_makes_the_value_beside_it_secret(beside: dict[str, Any], holder: str) -> None:
    assert default_redactor().redact({**beside, holder: "hunter2"}) == {**beside, holder: REDACTED}
    assert default_redactor().redact({holder: "hunter2", **beside}) == {**beside, holder: REDACTED}


@pytest.mark.parametrize(
    "given",
    [
        {"type": "token", "value": "if"},
        {"type": ["password"], "value": "x"},
        {"path": "/password", "data": "page"},
        {"loc": [], "input": "x"},
        {"loc": [["password"]], "input": "x"},
        {"title": "Password", "content": "how to choose one"},
        {"name": "user", "value": "bob"},
    ],
)
def test_what_is_no_name_of_a_secret_leaves_the_value_beside_it(given: dict[str, Any]) -> None:
    assert default_redactor().redact(given) == given


def test_query_strings_keep_their_shape() -> None:
    given = "a=1&token=x&code=2&state=z&q=hello%20world&empty=&flag"
    expected = f"a=1&token={REDACTED}&code={REDACTED}&state={REDACTED}&q=hello%20world&empty=&flag"
    assert default_redactor().redact_query(given) == expected


def test_a_query_of_escapes_alone_is_cut() -> None:
    assert default_redactor().redact_query("a=1&b=" + "%" * 100_000) == f"a=1&b={CUT}"
    assert default_redactor().redact_query("q=" + "%E3%81%82" * 500) == "q=" + "%E3%81%82" * 500


def test_urls_lose_credentials_and_secret_parameters() -> None:
    assert (
        default_redactor().redact_url("https://u:p@h/x?token=1&page=2#access_token=5")
        == f"https://u:{REDACTED}@h/x?token={REDACTED}&page=2#access_token={REDACTED}"
    )


def test_users_add_names_and_patterns() -> None:
    redactor = SecretRedactor(keys=("employeeNumber",), patterns=(r"EMP-(?P<secret>\d+)",))
    assert redactor.redact_text("employee_number=77 EMP-123") == f"employee_number={REDACTED} EMP-{REDACTED}"


def test_every_kind_of_container_is_looked_into() -> None:
    pair = namedtuple("pair", ["user", "password"])  # noqa: PYI024 - the untyped kind is the common one
    redact = default_redactor().redact
    assert redact({"token=x"}) == [f"token={REDACTED}"]
    assert redact(("token", "x")) == ("token", REDACTED)
    assert redact(("a", "b", "token=x")) == ("a", "b", f"token={REDACTED}")
    assert redact(pair("bob", "x")) == {"user": "bob", "password": REDACTED}
    assert redact({b"password": "x", 5: "y"}) == {b"password": REDACTED, 5: "y"}
    assert redact({"token=x": 1, "token=y": 2}) == {f"token={REDACTED}": 1, f"token={REDACTED}_2": 2}
    assert redact(MappingProxyType({"pwd": 1})) == {"pwd": REDACTED}


def test_plain_values_stay_and_texts_in_bytes_are_cleaned() -> None:
    redact = default_redactor().redact
    moment = object()
    assert [redact(value) for value in (None, True, 5, 0.5, moment, b"\xff")] == [
        None,
        True,
        5,
        0.5,
        moment,
        b"\xff",
    ]
    assert redact(b"token=x") == f"token={REDACTED}"
    assert redact([4111111111111111, 4111111111111112]) == [REDACTED, 4111111111111112]


def test_cycles_depth_and_size_are_bounded() -> None:
    redactor = default_redactor()
    cycle: list[object] = [1]
    cycle.append(cycle)
    assert redactor.redact(cycle) == [1, CUT]
    deep: object = 1
    for _ in range(200):
        deep = [deep]
    assert CUT in str(redactor.redact(deep))
    assert redactor.redact(list(range(10_001))) == [*range(10_000), CUT]
    wide = redactor.redact({number: number for number in range(10_001)})
    assert isinstance(wide, dict)
    assert (len(wide), wide[CUT]) == (10_001, CUT)
    assert len(redactor.redact_text("x" * 2_000_000)) == 1_048_576


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://h/p?q=a@b&token=x", f"https://h/p?q=a@b&token={REDACTED}"),
        ("/cb?code=1&state=2", f"/cb?code={REDACTED}&state={REDACTED}"),
        ("/list?state=open", "/list?state=open"),
        ("https://h/#section", "https://h/#section"),
        ("", ""),
    ],
)
def test_more_urls(url: str, clean: str) -> None:
    assert default_redactor().redact_url(url) == clean


def test_query_values_are_looked_into_also_when_they_are_encoded() -> None:
    redactor = default_redactor()
    assert redactor.redact_query("") == ""
    assert redactor.redact_query("next=%2Fcb%3Ftoken%3Dx") == f"next={REDACTED}"
    assert redactor.redact_query("n=token:x") == f"n=token:{REDACTED}"
    assert redactor.redact_query("pass%77ord=x") == f"pass%77ord={REDACTED}"


@pytest.mark.parametrize("keys", [("",), (5,), ("--",)])
def test_names_need_letters(keys: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigurationError, match="keys"):
        SecretRedactor(keys=keys)


@pytest.mark.parametrize("pattern", ["(", 5])
def test_patterns_must_compile(pattern: Any) -> None:
    with pytest.raises(ConfigurationError, match="patterns"):
        SecretRedactor(patterns=(pattern,))


def test_its_text_shows_nothing_of_what_was_added() -> None:
    assert "badge" not in repr(SecretRedactor(keys=("badge",), patterns=("x",)))
    assert not default_redactor().is_secret_key(None)
    assert default_redactor() is default_redactor()
    optional = SecretRedactor(patterns=(r"id(?P<secret>\d+)?",))
    assert optional.redact_text("id5 id") == f"id{REDACTED} {REDACTED}"


@pytest.mark.parametrize("quote", ["&quot;", "&#34;", "&#39;", "&#x27;"])
@pytest.mark.parametrize("separator", [":", ": ", "=", " = "])
def test_quotes_of_an_escaped_page_are_quotes(quote: str, separator: str) -> None:
    text = f"'password'{separator}'swordfish', 'crane'{separator}'7'".replace("'", quote)
    assert SecretRedactor().redact_text(text) == text.replace("swordfish", "[REDACTED]")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("eyJhbGciOi.eyJzdWIiOi.c2lnは無効です", f"{REDACTED}は無効です"),
        ("キーsk-0123456789abcdefABCDEFを失効", f"キー{REDACTED}を失効"),
        (
            "トークンはabcd1234です。次のトークンは wxyz5678 です",
            f"トークンは{REDACTED}です。次のトークンは {REDACTED} です",
        ),
        ("password='a\\'b' next", f"password='{REDACTED}' next"),
        ("token=f((a)(b))(c next", f"token={REDACTED}(c next"),
        ("ＰＡＳＳＷＯＲＤ：hunter2 次", f"ＰＡＳＳＷＯＲＤ：{REDACTED} 次"),
        ("PassWord\udc80 Api_KEY=hunter2", f"PassWord\udc80 Api_KEY={REDACTED}"),
    ],
)
def test_a_value_ends_where_it_ends(text: str, clean: str) -> None:
    assert default_redactor().redact_text(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[31mpassword\x1b[0m=\x1b[32m{}\x1b[0m",
        "\x1b[36mpw\x1b[0m: {}",
        "\x1b[1mAPI_KEY\x1b[0m \x1b[35m=\x1b[0m '{}'",
        "- name: DB_PASSWORD\n  value: {}",
        '- name: API_TOKEN\n  value: "{}"',
        "env: [{{name: DB_PASSWORD, value: {}}}]",
        "password: |\n  {}\nuser: bob",
        "password: >-\n    {}",
        "Environment:\n  DB_PASSWORD            {}",
        "mysqldump -uroot -p{} app",
        "mysql -u root -p'{}' -e 'select 1'",
        "Command '['mysqldump', '-uroot', '-p{}', 'app']' returned non-zero",
        "sshpass -p {} ssh bob@x",
        "redis-cli -h redis -a {} ping",
        "docker login -u bob -p {} registry",
        "sqlcmd -S db -U sa -P {} -Q 'select 1'",
        "ldapsearch -x -D cn=admin -w {} -b dc=x",
        "curl -s -u bob:{} https://x",
        "keytool -storepass {} -keystore x",
        "config set requirepass {}",
        "ldap bindpw {}",
        "code_verifier={}",
        "client-key-data: {}",
        "send: 'AUTH PLAIN {}\\r\\n'",
        "Your temporary password is: {}",
        "generated password for bob: {}",
        "The password for user bob is {}",
        "Incorrect API key provided: {}.",
        "■パスワード\n{}",
        "【仮パスワード】{}",
        "[パスワード] {}",
        "・パスワード\u3000\uff1a\u3000{}",
        "トークン[{}]が不正です",
    ],
)
def test_secrets_as_tools_and_mails_write_them(text: str) -> None:
    clean = default_redactor().redact_text(text.format("Zk9vQp2mXw4T"))
    assert "Zk9v" not in clean
    assert clean == text.format(REDACTED) or clean.count(REDACTED) == 1


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[31mpassword\x1b[0m: \x1b[1mrequired\x1b[0m",
        "\x1b[36mauth\x1b[0m=\x1b[35mldap\x1b[0m",
        "- name: PASSWORD_POLICY\n  value: strong",
        "- name: DB_PASSWORD\n  valueFrom:\n    secretKeyRef:\n      name: db",
        "password:\n  - This field is required.",
        "token: |",
        "mysql -u root -p app",
        "mysqldump --port 3306 app",
        "docker run -p 8080:80 nginx",
        "redis-cli -h redis -p 6379 ping",
        "curl -u https://x",
        "curl --user-agent Mozilla/5.0 https://x",
        "250-AUTH LOGIN PLAIN",
        "AUTH PLAIN supported by the server",
        "password for bob: changed",
        "Password for user bob is invalid",
        "OTP for bob: sent via SMS",
        "no API key provided",
        "[パスワード] 変更画面を表示",
        "[トークン] GET /items 200",
        "■パスワード\nを入力してください",
        "トークンの残数[12]",
        "パスワード\u3000\uff1a\u3000必須",
        "token            count",
    ],
)
def test_what_only_looks_like_them_stays(text: str) -> None:
    assert default_redactor().redact_text(text) == text


HOSTILE = [
    'token=a("((((', "pw:a ", "otp=1234 ", "pin 1234 ", 'password\\"', '"password", ', "a=b&token=",
    "12 ", "1 ", "1-", "4111 ", "API key for bob: x ", "secret=1,", "--password ", "url://a:b@c ",
    "Bearer a1 ", "token a1 ", "eyJ", "eyJa.", "コード1234 ", "パスワードは「", "token=%s ", 'token="\\"',
    "\x1b[0mtoken=", "mysql -p ", "<token>", "key=", '"name": "password", "value": "x" ',
    "gsk_Key (パスワード:", "はotp", "%22otp", "://key", "Key (", "services/T",
    "PWD=/home&%{", "password:\n", "INSERT INTO a (pw) VALUES (", "password is set to ", "dsn=2.0.0 ",
]  # fmt: skip


def calls_of(work: Callable[[str], object], text: str) -> int:
    """How many functions are called: what it costs, on any machine."""
    number = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal number
        number += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        work(text)
    finally:
        sys.setprofile(None)
    return number


def mixtures() -> list[str]:
    """Texts of a thousand characters out of all that the table knows."""
    chance = Random(21)
    pieces = [
        literal
        for form in SECRET_PATTERNS
        for literal in (*form.literals, form.example.replace("hunter2", "x"))
    ]
    pieces += ["token", "password", "コード", *"=:;,'\"`()[]{}<>-_?&@% 1a９\n"]
    texts = ["".join(chance.choices(pieces, k=chance.randint(1, 4))) * 1000 for _ in range(150)]
    return texts + ["".join(chance.choices(pieces, k=600)) for _ in range(50)]


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_thousand_hostile_characters_cost_little_and_hide_what_follows(piece: str) -> None:
    text = (piece * 1000)[:1000]
    assert calls_of(default_redactor().redact_text, text) < 4_500
    assert "hunter2" not in default_redactor().redact_text(f"{text} password=hunter2")


def test_mixtures_cost_no_more() -> None:
    redact = default_redactor().redact_text
    assert max(calls_of(redact, text[:1000]) for text in mixtures()) < 4_500
    assert not [text for text in mixtures() if "hunter2" in redact(f"{text[:1000]} password=hunter2 ")]


@pytest.mark.parametrize(
    "piece", ["a=1&", "%=%&", "=1&", "a=%41&", "a=token=1&", "a=p w&", "a[b]=1&", "あ=1&", "a=b%dc&"]
)
def test_a_query_of_a_thousand_characters_costs_little(piece: str) -> None:
    query = (piece * 1000)[:1000]
    assert calls_of(default_redactor().redact_query, query) < 6_000
    assert "hunter2" not in default_redactor().redact_query(f"{query}&token=hunter2")


def test_what_people_log_is_shown_to_its_end() -> None:
    environment = " ".join(f"SERVICE_{number}_PASSWORD=x{number}" for number in range(40))
    numbers = " ".join(str(number % 90 + 10) for number in range(333))
    shown = default_redactor().redact_text(environment)
    assert shown == " ".join(f"SERVICE_{number}_PASSWORD=[REDACTED]" for number in range(40))
    assert default_redactor().redact_text(numbers) == numbers


def test_a_hostile_text_costs_the_others_of_its_record_nothing() -> None:
    fields = {"path": ('token=a("((((' * 1000)[:1000], "user": "tanaka of key=1", "note": "password=hunter2"}
    clean = cast("dict[str, str]", default_redactor().redact(fields))
    assert clean["user"] == fields["user"]
    assert clean["note"] == "password=[REDACTED]"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("password:\nhunter2", "password:\n[REDACTED]"),
        ("Password:\r\n  hunterTwo\r\nnext", "Password:\r\n  [REDACTED]\r\nnext"),
        ("パスワード：\nhunter2", "パスワード：\n[REDACTED]"),
        ("password is set to hunter2", "password is set to [REDACTED]"),
        ("password is set to Xyzzy", "password is set to [REDACTED]"),
        ("the password was changed to correcthorse.", "the password was changed to [REDACTED]."),
        (
            "INSERT INTO users (name, password) VALUES ('bob', 'hunter2'), ('eve', 'it''s, (x)')",
            "INSERT INTO users (name, password) VALUES ('bob', [REDACTED]), ('eve', [REDACTED])",
        ),
        (
            'insert into "t" (a, "api_key", b) values (1, lower(\'hunter2\'), NULL)',
            'insert into "t" (a, "api_key", b) values (1, [REDACTED], NULL)',
        ),
        ("INSERT INTO t (password) VALUES ('hunter2", "INSERT INTO t (password) VALUES ([REDACTED]"),
        (
            'Key (token)=(hunter2) is not present in table "users".',
            'Key (token)=([REDACTED]) is not present in table "users".',
        ),
        ("Key (a)=(x) already exists. y) already exists.", "Key (a)=([REDACTED]) already exists."),
    ],
)
def test_secrets_that_were_missed(text: str, shown: str) -> None:
    assert default_redactor().redact_text(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "relay=mx[192.0.2.1]:25, delay=0.5, dsn=2.0.0, status=sent (250 2.0.0 Ok)",
        "sudo: bob : TTY=pts/0 ; PWD=/home/bob ; USER=root ; COMMAND=/bin/ls",
        "SyntaxError: Unexpected token '}', \"{...\" is not valid JSON",
        "Deleted block blk_-4111111111111111 and blk_-1608999687919862906",
        "the password is set to expire",
        "Password:\nEnter it twice",
        "token:\n  ttl: 3600",
        "INSERT INTO users (name, password) VALUES (%s, %(password)s), (:a, $1), (?, NULL)",
        "INSERT INTO users (id, name) VALUES (1, 'bob')",
    ],
)
def test_what_only_looks_like_a_secret_stays(text: str) -> None:
    assert default_redactor().redact_text(text) == text


@pytest.mark.parametrize(
    "text", ["dsn=postgres", "UID=sa;PWD=/hunter2", "PWD=hunter2", "unexpected token 'hunter2'"]
)
def test_the_same_names_with_a_secret_behind_them(text: str) -> None:
    assert REDACTED in default_redactor().redact_text(text)


def test_brackets_are_closed_as_they_were_opened() -> None:
    redact = default_redactor().redact_text
    assert redact("token=f(g(1), 'a b') and token=f(x y) end") == "token=[REDACTED] and token=[REDACTED] end"
    assert redact("secret=[1, [2]] secret=[3, (4] secret=(5)") == (
        "secret=[REDACTED] secret=[REDACTED] secret=[REDACTED]"
    )


def test_a_word_that_is_looked_through_for_a_shorter_value_takes_its_effort() -> None:
    text, effort = "/home{}" + "PWD=/home{}" * 90 + "{", StepLimit()
    before = effort.left
    assert value_at(text, 0, effort) == (0, len("/home{}"))
    assert before - effort.left >= len(text) // 16

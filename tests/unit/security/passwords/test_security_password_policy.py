import gzip
import unicodedata
from pathlib import Path
from typing import Any

import django.contrib.auth
import pytest

from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security import PasswordPolicy
from mks_hardening.security.passwords import password_policy

POLICY = PasswordPolicy(context=["MKS", "みらい建設", "mirai-kensetsu.example"])


@pytest.mark.parametrize(
    "password",
    [
        "x7#Kp2mq",
        "correct horse battery staple",
        "足場の点検は毎朝七時",
        "ｶﾞｰﾄﾞﾚｰﾙを三本",
        "🔑🏗️🦺🚧🪜🧱🔩🪛",
        "        zz%",
        "nur kleine Buchstaben",
        "83649105827361",
        "q" * 3 + "X8!" + "w" * 3,
        "k" + "ö" * 2 + "7!" * 30,
    ],
)
def test_any_composition_is_accepted(password: Any) -> None:
    assert POLICY.check(password)


@pytest.mark.parametrize(
    ("password", "fault"),
    [
        ("x7#Kp2m", "too_short"),
        ("", "too_short"),
        ("é" * 7, "too_short"),
        ("x7#Kp2mq" * 17, "too_long"),
        ("x7#K\udc80p2mq", "not_text"),
        (None, "not_text"),
        (12345678, "not_text"),
        (b"x7#Kp2mq", "not_text"),
        ("password", "common"),
        ("PASSWORD", "common"),
        ("Password123!", "common"),
        ("P@$$w0rd!!", "common"),
        ("@dmin2024", "common"),
        ("ｐａｓｓｗｏｒｄ", "common"),
        ("1password1", "common"),
        ("pass-word", "common"),
        ("Welcome2025", "common"),
        ("Summer2026Summer2026", "common"),
        ("Summer2025Summer2026", "common"),
        ("summer 2026! summer 2026! summer", "common"),
        ("Qwerty12Qwerty12", "common"),
        ("Passw0rd1Passw0rd1", "common"),
        ("iloveyou", "common"),
        ("i love you", "common"),
        ("12345678", "common"),
        ("87654321", "common"),
        ("aaaaaaaa", "common"),
        ("あああああああああ", "common"),
        ("abcabcabc", "common"),
        ("lovelylovely", "common"),
        ("qwertyuiop", "common"),
        ("1qaz2wsx", "common"),
        ("1q2w3e4r5t", "common"),
        ("qweasdzxc", "common"),
        ("abcd1234", "common"),
        ("11223344", "common"),
        ("147258369", "common"),
        ("パスワード123", "common"),
        ("ぱすわーど2024", "common"),
        ("アイウエオカキクケコ", "common"),
        ("sakura0401", "common"),
        ("yamamoto1", "common"),
        ("kensetsu2024", "common"),
        ("genbakanri!", "common"),
        ("taro.yamada.secret", "personal"),
        ("oratadamay99", "personal"),
        ("xx-mirai-kensetsu-xx", "personal"),
        ("みらい建設が好き", "personal"),
        ("Mirai-Kensetsu.example", "personal"),
        ("tanaka-hanako-x", "personal"),
    ],
)
def test_what_is_refused(password: Any, fault: Any) -> None:
    verdict = POLICY.check(
        password, username="yamadataro", context=["tanaka-hanako@example.jp", "taro.yamada"]
    )
    assert not verdict
    assert fault in verdict.errors


@pytest.mark.parametrize(
    "password",
    [
        "Yamada-Taro-11",  # the name, divided otherwise
        "y4m4d4t4r0!!",  # in look-alikes
        "0r@t@d@m@y-zz",  # backwards and in look-alikes
        "ya.ma.da.ta.ro",
        "mks2024!",  # a short word and nothing else
        "!!SKM-2024",
        "tanaka#7Kp2mq",
        "x7-hanako-Kp2",
        "x7.kensetsu.q",  # the domain of the address
        "TANAKAHANAKO.",
        "ｔａｎａｋａ#7Kp",
    ],
)
def test_what_is_about_the_user_or_the_product(password: str) -> None:
    policy = PasswordPolicy(context=["MKS"])
    verdict = policy.check(password, username="yamada_taro", email="tanaka+hanako@mirai.kensetsu.example")
    assert verdict.errors == ("personal",)


@pytest.mark.parametrize("password", ["mks-x7Kp2q", "correct horse battery", "足場の点検は毎朝"])
def test_short_words_and_others_words_are_let_pass(password: str) -> None:
    policy = PasswordPolicy(context=["MKS", "", "-", "@"])
    assert policy.check(password, username="a", email="b@c.de", context=["  "])


def test_lengths_at_the_edges() -> None:
    assert POLICY.check("x7#Kp2mq")
    for length in (64, 128):
        assert POLICY.check(("x7#Kp2mqVz" * 13)[:length])
    assert POLICY.check(("x7#Kp2mqVz" * 13)[:129]).errors == ("too_long",)
    assert PasswordPolicy(min_length=15).check("x7#Kp2mqVz9!bN").errors == ("too_short",)


def test_length_counts_after_composition() -> None:
    assert unicodedata.normalize("NFD", "がぎぐげ").__len__() == 8
    assert "too_short" in POLICY.check(unicodedata.normalize("NFD", "がぎぐげ")).errors


def test_short_words_of_the_user_do_not_refuse_everything() -> None:
    assert POLICY.check("x7#Kp2mq-an", username="an", context=["", "a", "2024"])


def test_a_list_of_leaked_passwords_is_asked_last() -> None:
    asked = []

    def breached(password: Any) -> Any:
        asked.append(password)
        return True

    policy = PasswordPolicy(breached=breached)
    assert policy.check("x7#Kp2mq").errors == ("breached",)
    assert not policy.check("short")
    assert not policy.check("password")
    assert asked == ["x7#Kp2mq"]


def test_the_three_thousand_most_frequent_passwords_are_refused() -> None:
    """ASVS 5.0, 6.2.4, against a list that comes from elsewhere."""
    listed = Path(django.contrib.auth.__file__).with_name("common-passwords.txt.gz")
    with gzip.open(listed, "rt") as lines:
        words = [line.strip() for line in lines]
    # Older lists hold what a tool wrote in place of what it could not spell.
    frequent = [word for word in words if len(word) >= 8 and not word.startswith("$hex[")][:3000]
    assert len(frequent) == 3000
    assert [password for password in frequent if POLICY.check(password)] == []


def test_the_words_are_usable_as_they_stand() -> None:
    words = password_policy._common_words()
    assert len(words) > 2_500
    for word in words:
        assert word == password_policy._folded(word)
        assert word == word.strip()
        assert not set(word) & set(" _-.")


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("min_length", 7),
        ("min_length", 65),
        ("min_length", "8"),
        ("max_length", 63),
        ("max_length", 1025),
        ("context", "mks"),
    ],
)
def test_impossible_parameters(parameter: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        PasswordPolicy(**{parameter: value})
    assert caught.value.parameter == parameter


def test_a_long_password_costs_no_more_than_its_length() -> None:
    assert POLICY.check("a" * 10_000_000).errors == ("too_long",)
    assert not POLICY.check(("abc" * 43)[:128])
    assert repr(POLICY) == "PasswordPolicy(min_length=8, max_length=128)"

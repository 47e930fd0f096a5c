"""No input breaks the check: variables, files, suppressions and responses of any content."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mks_check import CheckReport, definitions, render_report
from mks_check.production_check.application_facts import ApplicationFacts
from mks_check.production_check.config_files import parse_files
from mks_check.production_check.facts import Facts
from mks_check.production_check.host_facts import HostFacts
from mks_check.production_check.http_response import parse_response
from mks_check.production_check.known_weaknesses import known_weakness
from mks_check.production_check.live_facts import LiveFacts, TlsFacts
from mks_check.production_check.nginx_syntax import parse_nginx
from mks_check.production_check.runner import judge
from mks_check.production_check.settings_source import parse_env_file, setting_facts
from mks_check.production_check.suppressions import parse_silence, read_baseline
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.settings import variables

NAMES = st.sampled_from(
    [
        *(variable.name for variable in variables()),
        "DEBUG",
        "FLASK_DEBUG",
        "SECRET_KEY",
        "ALLOWED_HOSTS",
        "DATABASE_URL",
        "CELERY_BROKER_URL",
        "FORWARDED_ALLOW_IPS",
        "GUNICORN_CMD_ARGS",
        "CSRF_TRUSTED_ORIGINS",
        "SECURE_HSTS_SECONDS",
        "SESSION_SERIALIZER",
        "CORS_ORIGINS",
        "DB_PASSWORD",
        "LOG_LEVEL",
        "MKS_",
        "MKS_X",
    ]
)
VALUES = st.one_of(
    st.text(max_size=80),
    st.sampled_from(
        [
            "*",
            "0.0.0.0/0",
            "1",
            "0",
            "redis://[::1",
            "postgresql://a:b@[",
            "x://:@:99999/",
            "pickle",
            "9" * 40,
            "30",
            "8h",
        ]
    ),
)
NGINX_WORDS = st.sampled_from(
    [
        "server",
        "location",
        "http",
        "{",
        "}",
        ";",
        "proxy_pass",
        "include",
        "*.conf",
        "add_header",
        "listen",
        "443",
        "ssl",
        "return",
        "301",
        "https://$host",
        "alias",
        "/static",
        "/static/",
        "'",
        '"',
        "\\",
        "#",
        "\n",
        "${a",
        "if",
        "upstream",
        "ssl_protocols",
        "TLSv1",
        "proxy_read_timeout",
        "1e9",
        "99999999999999s",
        "log_format",
        "access_log",
        "keepalive",
        "Strict-Transport-Security",
        "max-age=99999999999999999999",
        "map",
        "default_server",
        "ssl_stapling",
        "on",
    ]
)
PATHS = st.sampled_from(
    [
        "nginx.conf",
        "sites-enabled/a.conf",
        "gunicorn.conf.py",
        "a.service",
        "logrotate.d/a",
        "redis.conf",
        "postgresql.conf",
        "pg_hba.conf",
        "Dockerfile",
        "compose.yml",
        ".env",
        "deploy.toml",
    ]
)
LINES = st.sampled_from(
    [
        "[Service]",
        "ExecStart=gunicorn",
        "Environment=A=b\\",
        "User=",
        "workers = int(os.environ.get('A', 'x'))",
        "workers = 10**10**10",
        "timeout = 1e999",
        "bind = [1, None]",
        "/var/log/a {",
        "rotate 7 # all",
        "}",
        "postrotate",
        "bind 0.0.0.0",
        "save",
        "maxmemory-policy allkeys-lru",
        "listen_addresses '*'",
        "max_connections = x",
        "host all",
        "FROM a",
        "USER",
        "ENV",
        "ENV A",
        "CMD",
        "services:",
        "  privileged: true",
        "  A_PASSWORD: {",
        "=",
        "A=",
        "\x00",
    ]
)
KNOWN = {definition.id for definition in definitions()}


def assert_made(facts: Facts) -> None:
    report = judge(facts)
    assert [each.evidence for each in report.findings if "could not be made" in each.evidence] == []
    for style in ("text", "json", "sarif", "github"):
        render_report(report, style=style)


@given(st.dictionaries(NAMES, VALUES, max_size=12))
def test_any_environment(environ: dict[str, str]) -> None:
    assert_made(Facts(settings=setting_facts(environ)))


@given(st.text())
def test_any_env_file(text: str) -> None:
    found, lines, _ = parse_env_file(text)
    assert found.keys() == lines.keys()
    assert_made(Facts(settings=setting_facts(found, file="a.env", lines=lines)))


@given(st.lists(st.one_of(NGINX_WORDS, st.text(max_size=6)), max_size=60).map(" ".join))
def test_any_nginx_file(text: str) -> None:
    assert_made(Facts(files=parse_files({"nginx.conf": text, "sites-enabled/a.conf": text})))


@given(
    st.dictionaries(
        PATHS, st.one_of(st.lists(LINES, max_size=12).map("\n".join), st.text(max_size=200)), max_size=11
    )
)
def test_any_files(texts: dict[str, str]) -> None:
    application = ApplicationFacts(target="a", config={"SQLALCHEMY_ENGINE_OPTIONS": {"pool_size": "x"}})
    assert_made(Facts(files=parse_files(texts), application=application, settings=setting_facts({})))


@example("{" * 500)
@example("a {" * 500 + "}" * 500)
@example("include nginx.conf;")
@given(st.text(alphabet="ab{};\"'\\#\n $", max_size=200))
def test_the_parser_of_nginx_ends_and_says_what_it_could_not_read(text: str) -> None:
    tree = parse_nginx({"nginx.conf": text})
    depth = sum(1 for _ in tree.scopes("a"))
    assert depth >= 0
    assert all(reason for _, reason in tree.problems)


CONFIG = st.dictionaries(
    st.sampled_from(
        [
            "SECRET_KEY",
            "SESSION_COOKIE_SAMESITE",
            "PERMANENT_SESSION_LIFETIME",
            "CELERY",
            "ALLOWED_HOSTS",
            "PASSWORD_HASHERS",
            "CORS_ORIGINS",
            "CELERY_TASK_TIME_LIMIT",
            "SESSION_TYPE",
            "FORCE_HTTPS",
            "SQLALCHEMY_ENGINE_OPTIONS",
            "CELERY_BROKER_TRANSPORT_OPTIONS",
            "RATELIMIT_STORAGE_URI",
        ]
    ),
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(),
        st.binary(),
        st.lists(st.integers()),
        st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
    ),
)


@given(CONFIG, st.sampled_from(["flask", "django", "starlette", ""]))
def test_any_config(config: dict[str, object], framework: str) -> None:
    assert_made(
        Facts(
            application=ApplicationFacts(target="a", framework=framework, config=config, wrappers=("Flask",))
        )
    )


HEADERS = st.sampled_from(
    [
        b"Set-Cookie",
        b"Location",
        b"Strict-Transport-Security",
        b"Content-Security-Policy",
        b"Cache-Control",
        b"Server",
        b"Age",
    ]
)
RESPONSES = st.one_of(
    st.binary(max_size=200),
    st.tuples(
        st.integers(0, 999),
        st.lists(st.tuples(HEADERS, st.binary(max_size=40)), max_size=6),
        st.binary(max_size=80),
    ).map(
        lambda parts: (
            b"HTTP/1.1 %03d X\r\n" % parts[0]
            + b"".join(b"%s: %s\r\n" % field for field in parts[1])
            + b"\r\n"
            + parts[2]
        )
    ),
)


@given(st.lists(RESPONSES, min_size=12, max_size=12), st.floats(), st.floats())
def test_any_responses(data: list[bytes], begin: float, end: float) -> None:
    names = (
        "page",
        "missing",
        "malformed",
        "static",
        "host",
        "spoofed",
        "spoofed scheme",
        "cors",
        "trace",
        "git",
        "plain",
        "health0",
    )
    responses = {
        name: parse_response(each, "https://a.example/") for name, each in zip(names, data, strict=True)
    }
    tls = TlsFacts(not_before=begin, not_after=end)
    assert_made(
        Facts(live=LiveFacts(url="https://a.example/", now=0, responses=responses, tls=tls, body_limit=1))
    )


@given(st.dictionaries(st.text(max_size=10), st.text(max_size=10)), st.integers(), st.floats())
def test_any_host(packages: dict[str, str], mode: int, free: float) -> None:
    facts = HostFacts(packages=packages, modes={"/a": abs(mode)}, free={"/": (free, 1)}, redis=packages)
    assert_made(Facts(host=facts, settings=setting_facts({})))


@given(
    st.sampled_from(["urllib3", "django", "flask", "gunicorn"]),
    st.text(alphabet="0123456789.abrc", max_size=12),
)
def test_any_version(package: str, version: str) -> None:
    assert isinstance(known_weakness(package, version), str)


@pytest.mark.parametrize(
    ("package", "version", "weak"),
    [
        ("urllib3", "1.26.18", True),
        ("urllib3", "1.26.20", False),
        ("urllib3", "2.5.0", True),
        ("urllib3", "2.6.0", False),
        ("django", "4.2.26", False),
        ("django", "5.0.9", True),
        ("django", "5.2.7", True),
        ("django", "6.1", False),
        ("flask", "2.2.5", False),
        ("flask", "2.3.1", True),
        ("gunicorn", "22.0.0", True),
        ("unknown", "0", False),
    ],
)
def test_fixed_lines_are_told_apart(package: str, version: str, weak: bool) -> None:
    assert bool(known_weakness(package, version)) is weak


@given(st.one_of(st.text(), st.text().map(lambda text: f"MKS-SET-003={text}")))
def test_any_silence_is_taken_or_refused(text: str) -> None:
    try:
        taken = parse_silence(text, KNOWN).reason
    except ConfigurationError as error:
        taken = error.parameter
    assert taken


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@given(
    st.one_of(
        st.text(), JSON.map(json.dumps), JSON.map(lambda each: json.dumps({"version": 1, "findings": [each]}))
    )
)
def test_any_baseline_is_taken_or_refused(text: str) -> None:
    refused = ""
    try:
        read_baseline(text, KNOWN)
    except ConfigurationError as error:
        refused = error.parameter
    assert refused in {"", "baseline", "until"}


def test_an_empty_report_renders() -> None:
    assert render_report(CheckReport(findings=())) == "no findings\n0 findings, 0 accepted, 0 checks made\n"

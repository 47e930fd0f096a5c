"""Other inputs that the same check finds, and near misses that it must leave alone."""

from __future__ import annotations

import pytest

from mks_check.production_check.facts import Facts
from mks_check.production_check.runner import judge
from production_check_cases import PROXY, SITE, app, env, files, live, response, site, unit
from tables import faulty_rows

FOUND: list[tuple[str, Facts]] = [
    ("MKS-SET-003", env(FLASK_ENV="development")),
    ("MKS-SET-005", env(JWT_SECRET="a" * 64)),
    ("MKS-SET-006", env(FORWARDED_ALLOW_IPS="*")),
    ("MKS-SET-006", env(GUNICORN_CMD_ARGS="--workers 2 --forwarded-allow-ips='*'")),
    ("MKS-SET-006", env(MKS_TRUSTED_PROXIES="10.0.0.0/8,::/0")),
    ("MKS-SET-008", env(MKS_ALLOWED_HOSTS="", MKS_ENV="production")),
    ("MKS-SET-009", env(MKS_HSTS="0")),
    ("MKS-SET-009", env(SECURE_HSTS_SECONDS="3600")),
    ("MKS-SET-010", env(CORS_ALLOW_ALL_ORIGINS="true")),
    ("MKS-SET-011", env(MKS_SESSION_IDLE_TIMEOUT="3h")),
    ("MKS-SET-012", env(POSTGRES_PASSWORD="postgres")),
    ("MKS-SET-013", env("shop.env", SHOP_API_TOKEN="Vq8xT1mWc7LrYp0s")),
    ("MKS-SET-014", env(DATABASE_URL="postgresql://shop@db.example.com/shop?sslmode=require")),
    ("MKS-SET-014", env(PYTHONHTTPSVERIFY="0")),
    ("MKS-SET-015", env(MKS_ALLOW_PLAINTEXT="1")),
    ("MKS-SET-019", env(SQLALCHEMY_ECHO="1")),
    ("MKS-SET-020", env(MKS_CLIENT_RULES_DRY_RUN="1")),
    ("MKS-DEP-001", site("location / { %s }".replace("%s", PROXY), "location / { proxy_pass http://app; }")),
    ("MKS-DEP-004", site("proxy_set_header Host $host;", "")),
    (
        "MKS-DEP-008",
        site("listen 80 default_server; return 444;", "listen 80; return 308 https://$host$request_uri;"),
    ),
    ("MKS-DEP-015", files(gunicorn="timeout = 30\n", postgresql="statement_timeout = 60s\n")),
    ("MKS-DEP-016", site("client_header_timeout 10s;", "client_header_timeout 5m;")),
    ("MKS-DEP-021", site("'$remote_addr $uri $status'", "'$remote_addr $request_uri'")),
    (
        "MKS-DEP-023",
        site("location /static/ { alias /srv/static/; }", "location /metrics { proxy_pass http://app; }"),
    ),
    ("MKS-DEP-030", unit("-c gunicorn.conf.py", "--bind 0.0.0.0:8000 shop:app")),
    ("MKS-DEP-030", files(gunicorn='bind = ":8000"\n')),
    ("MKS-DEP-031", unit("-c gunicorn.conf.py", "--forwarded-allow-ips='*' shop:app")),
    ("MKS-DEP-032", files(gunicorn='loglevel = "debug"\n')),
    ("MKS-DEP-034", files(gunicorn="timeout = 60 * 60\n")),
    ("MKS-DEP-040", unit("User=shop", "User=root")),
    ("MKS-DEP-041", unit("LANG=C.UTF-8", "DATABASE_URL=postgresql://shop:Vq8xT1mWc7Lr@db/shop")),
    ("MKS-DEP-044", files(dockerfile='FROM a\nCMD ["python", "manage.py", "runserver"]\n')),
    ("MKS-DEP-060", files(redis="bind 127.0.0.1\nprotected-mode no\n")),
    ("MKS-DEP-067", files(pg_hba="host all all 127.0.0.1/32 trust\n")),
    ("MKS-DEP-070", files(dockerfile="FROM a AS build\nUSER 1000\nFROM b\nCMD x\n")),
    ("MKS-DEP-071", files(dockerfile="FROM a\nCOPY .env /srv/.env\n")),
    (
        "MKS-DEP-074",
        files(compose="services:\n  a:\n    volumes: [/var/run/docker.sock:/var/run/docker.sock]\n"),
    ),
    ("MKS-DEP-075", files(compose="services:\n  a:\n    ports:\n      - 0.0.0.0:16379:6379\n")),
    ("MKS-APP-002", app(config={"TESTING": True})),
    ("MKS-APP-012", app(trusted=("0.0.0.0/0",))),
    ("MKS-APP-012", app(framework="django", wrappers=(), config={"USE_X_FORWARDED_HOST": True})),
    ("MKS-APP-015", app(config={"SESSION_TYPE": "filesystem"})),
    ("MKS-WEB-007", live(spoofed_scheme=response(301, location="https://www.example.com/"))),
    ("MKS-WEB-008", live(page=response(strict_transport_security="max-age=60"))),
    ("MKS-WEB-020", live(page=response(set_cookie="a=1", without="cache-control"))),
    ("MKS-WEB-021", live(env=response(200, "SECRET_KEY=abc\n", path="/.env"))),
]
LEFT_ALONE: list[tuple[str, Facts]] = [
    ("MKS-SET-005", env(SECRET_KEY_FILE="/run/credentials/key")),
    ("MKS-SET-006", env(MKS_TRUSTED_PROXIES="unix")),
    (
        "MKS-SET-013",
        env("shop.env", PASSWORD_RESET_TIMEOUT="3600", MKS_SECRET_KEYS_FILE="/run/credentials/keys"),
    ),
    ("MKS-SET-014", env(DATABASE_URL="postgresql://shop@localhost/shop?sslmode=disable")),
    ("MKS-SET-015", env(CELERY_BROKER_URL="redis+socket:///run/redis.sock")),
    (
        "MKS-DEP-002",
        files(
            site=f"set_real_ip_from 10.0.0.0/24;\n{SITE.replace('%s', PROXY)}".replace(
                "$remote_addr;", "$proxy_add_x_forwarded_for;"
            )
        ),
    ),
    (
        "MKS-DEP-010",
        site(
            "alias /srv/static/;",
            "alias /srv/static/; add_header Strict-Transport-Security max-age=63072000 always;",
        ),
    ),
    (
        "MKS-DEP-018",
        site("location /static/ { alias /srv/static/; }", "location /x/ { internal; alias /srv/x/; }"),
    ),
    ("MKS-DEP-030", files(gunicorn='bind = ["127.0.0.1:8000", "unix:/run/a.sock"]\n')),
    ("MKS-DEP-061", files(redis='maxmemory 1gb\nmaxmemory-policy allkeys-lru\nsave ""\nappendonly no\n')),
    ("MKS-DEP-063", files(redis='maxmemory 1gb\nmaxmemory-policy allkeys-lru\nsave ""\nappendonly no\n')),
    ("MKS-DEP-070", files(dockerfile="FROM gcr.io/distroless/base:nonroot\n")),
    ("MKS-DEP-075", files(compose='services:\n  a:\n    ports: ["443:8443", "127.0.0.1:5432:5432"]\n')),
    ("MKS-DEP-076", files(compose="services:\n  a:\n    environment:\n      DB_PASSWORD: ${DB_PASSWORD}\n")),
    ("MKS-WEB-010", live(page=response(content_security_policy="script-src 'nonce-abc' 'unsafe-inline'"))),
    ("MKS-WEB-021", live(git=response(200, "<html>Not here</html>", path="/.git/HEAD"))),
    ("MKS-WEB-007", live(page=response(302), spoofed_scheme=response(302))),
]


def found(facts: Facts) -> set[str]:
    return {finding.id for finding in judge(facts).findings}


def named(row: tuple[str, Facts]) -> str:
    return f"{row[0]} {row[1]}"[:300]


def test_other_inputs_are_found() -> None:
    assert faulty_rows(FOUND, lambda row: row[0] not in found(row[1]), name=named) == {}


def test_near_misses_are_left_alone() -> None:
    assert faulty_rows(LEFT_ALONE, lambda row: row[0] in found(row[1]), name=named) == {}


@pytest.mark.parametrize(
    ("facts", "level"),
    [
        (env(MKS_HSTS_MAX_AGE="5m"), "note"),
        (env(MKS_HSTS_MAX_AGE="0s"), "warning"),
        (env(MKS_HSTS="0"), "warning"),
        (env(SECURE_HSTS_SECONDS="300"), "note"),
        (env(SECURE_HSTS_SECONDS="0"), "warning"),
        (live(page=response(strict_transport_security="max-age=300")), "note"),
        (live(page=response(strict_transport_security="max-age=0")), "warning"),
        (live(missing=response(404, without="strict-transport-security")), "warning"),
        (site("max-age=63072000", "max-age=300"), "note"),
    ],
)
def test_a_site_that_begins_with_a_short_hsts_gets_a_note(facts: Facts, level: str) -> None:
    assert {each.level for each in judge(facts).findings if "HSTS" in each.title} == {level}

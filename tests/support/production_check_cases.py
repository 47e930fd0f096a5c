"""One failing and one passing input for each check of ``mks_hardening.production_check``, by its id."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mks_check.production_check.application_facts import (
    AdapterFinding,
    ApplicationFacts,
    CorsFacts,
    RouteFacts,
)
from mks_check.production_check.config_files import parse_files
from mks_check.production_check.facts import Facts
from mks_check.production_check.host_facts import HostFacts
from mks_check.production_check.http_response import HttpResponse
from mks_check.production_check.live_facts import LiveFacts, TlsFacts
from mks_check.production_check.page_faults import PageFault
from mks_check.production_check.settings_source import setting_facts

__all__ = ["CASES", "NOT_FROM_FACTS", "app", "env", "files", "host", "live", "response"]

HOURS = 3600
DAY = 86_400
GOOD_KEY = "Zk3vQ8xT1mWc7LrYp0sBn5JdHf2GuEa9"  # of a test
GOOD_ENV = {"MKS_ALLOWED_HOSTS": "www.example.com"}


def env(file: str = "", **variables: str) -> Facts:
    """Environment variables beside the few that every deployment has."""
    return Facts(settings=setting_facts({**GOOD_ENV, **variables}, file=file))


def files(**texts: str) -> Facts:
    """Files: ``site`` and ``http`` are nginx, the others are named by their kind."""
    names = {
        "site": "etc/nginx/sites-enabled/site.conf",
        "http": "etc/nginx/nginx.conf",
        "deploy": "deploy.toml",
        "gunicorn": "srv/gunicorn.conf.py",
        "unit": "etc/systemd/system/web.service",
        "logrotate": "etc/logrotate.d/web",
        "redis": "etc/redis/redis.conf",
        "postgresql": "etc/postgresql/postgresql.conf",
        "pg_hba": "etc/postgresql/pg_hba.conf",
        "dockerfile": "image/Dockerfile",
        "compose": "image/compose.yml",
    }
    return Facts(files=parse_files({names[kind]: text for kind, text in texts.items()}))


def app(**facts: Any) -> Facts:
    """An application with everything that it needs; the arguments change it."""
    usual: dict[str, Any] = {
        "target": "shop:app",
        "framework": "flask",
        "wrappers": (
            "TrustedProxyMiddleware",
            "SecurityHeadersMiddleware",
            "RequestLoggingMiddleware",
            "HTTPSRedirectMiddleware",
            "HealthMiddleware",
            "RequestLimitsMiddleware",
            "RateLimitMiddleware",
            "SessionTimeoutMiddleware",
            "CSRFMiddleware",
            "Flask",
        ),
        "config": {"SECRET_KEY": GOOD_KEY},
        "trusted": ("unix",),
        "session_store": "RedisSessionStore",
    }
    return Facts(application=ApplicationFacts(**{**usual, **facts}))


def bare(**facts: Any) -> Facts:
    """A Flask application without any middleware."""
    return app(**{"wrappers": ("Flask",), "trusted": None, "session_store": "", **facts})


FIELDS = (
    ("strict-transport-security", "max-age=63072000; includeSubDomains"),
    ("content-security-policy", "default-src 'none'; script-src 'nonce-a'; frame-ancestors 'none'"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "strict-origin-when-cross-origin"),
    ("permissions-policy", "camera=()"),
    ("x-request-id", "abcdef0123456789"),
    ("cache-control", "no-store"),
)


def response(
    status: int = 200, body: str = "", *, path: str = "/", without: str = "", **fields: str
) -> HttpResponse:
    """A response with all header fields; underscores stand for hyphens, and ``without`` leaves one out."""
    more = {name.replace("_", "-"): value for name, value in fields.items()}
    kept = [(name, value) for name, value in FIELDS if name != without and name not in more]
    return HttpResponse(
        url=f"https://www.example.com{path}", status=status, fields=(*kept, *more.items()), body=body
    )


def live(
    tls: TlsFacts | None = None,
    body_limit: int | None = None,
    url: str = "https://www.example.com/",
    page_faults: tuple[PageFault, ...] = (),
    **responses: HttpResponse,
) -> Facts:
    """A good site; responses replace those of the name, with spaces for underscores."""
    usual = {
        "page": response(),
        "missing": response(404),
        "malformed": response(400),
        "static": response(cache_control="public"),
        "host": response(421),
        "spoofed": response(),
        "spoofed missing": response(404),
        "spoofed scheme": response(),
        "cors": response(),
        "cors null": response(),
        "trace": response(405),
        "git": response(404),
        "env": response(404),
        "map": response(404),
        "health0": response(403),
        "plain": response(308, location="https://www.example.com/"),
        "plain host": HttpResponse(url="http://www.example.com/", error="closed"),
    }
    given = {name.replace("_", " "): value for name, value in responses.items()}
    handshake = tls or TlsFacts(not_before=0, not_after=90 * DAY)
    return Facts(
        live=LiveFacts(
            url=url,
            now=10 * DAY,
            responses={**usual, **given},
            tls=handshake,
            body_limit=body_limit,
            page_faults=page_faults,
        )
    )


def host(**facts: Any) -> Facts:
    """A good machine; the arguments change it."""
    usual: dict[str, Any] = {"synchronised": True, "python": (3, 13, 1), "free": {"/": (0.5, 0.5)}}
    return Facts(host=HostFacts(**{**usual, **facts}))


def both(*parts: Facts) -> Facts:
    """Facts of several sources."""
    whole = Facts()
    for part in parts:
        for name in ("settings", "application", "files", "live", "host"):
            value = getattr(part, name)
            if value is not None:
                whole = replace(whole, **{name: value})
    return whole


PROXY = """
proxy_set_header Host $host;
proxy_set_header X-Forwarded-For $remote_addr;
proxy_set_header X-Forwarded-Proto $scheme;
proxy_set_header Forwarded "";
proxy_pass http://app;
"""
SITE = """
server_tokens off;
client_header_timeout 10s;
client_body_timeout 15s;
client_max_body_size 8m;
log_format plain '$remote_addr $uri $status';
server { listen 80 default_server; return 444; }
server {
    listen 443 ssl;
    server_name www.example.com;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:!aNULL:!MD5;
    access_log /var/log/nginx/a.log plain;
    limit_req zone=all burst=20;
    add_header Strict-Transport-Security max-age=63072000 always;
    location / { %s }
    location /static/ { alias /srv/static/; }
    location ~ "/\\.(?!well-known/)" { return 404; }
}
"""


def site(old: str = "", new: str = "") -> Facts:
    """The good nginx file with one text replaced."""
    whole = SITE.replace("%s", PROXY)
    assert not old or old in whole
    return files(site=whole.replace(old, new) if old else whole)


GOOD_SITE = site()
UNIT = """[Service]
User=shop
ExecStart=/srv/venv/bin/gunicorn -c gunicorn.conf.py
Environment=MKS_SECRET_KEYS_FILE=%d/keys LANG=C.UTF-8
Restart=always
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
UMask=0027
"""


def unit(old: str = "", new: str = "") -> Facts:
    """The good unit with one text replaced."""
    assert not old or old in UNIT
    return files(unit=UNIT.replace(old, new) if old else UNIT)


LOGROTATE = "/var/log/shop/*.log {\n    daily\n    maxsize 200M\n    rotate 30\n    create 0640\n}\n"
REDIS = "bind 127.0.0.1\nmaxmemory 256mb\nmaxmemory-policy noeviction\nappendonly yes\n"
POSTGRESQL = """listen_addresses = ''
statement_timeout = 30s
idle_in_transaction_session_timeout = 60s
max_connections = 100
"""
DOCKERFILE = (
    'FROM python:3.13\nENV LANG=C.UTF-8\nUSER 10001\nHEALTHCHECK CMD ["true"]\nCMD ["gunicorn", "shop:app"]\n'
)
COMPOSE = """services:
  web:
    ports: ["127.0.0.1:8000:8000"]
    environment:
      DB_PASSWORD_FILE: /run/secrets/db
"""
POOL = {"pool_size": 20, "max_overflow": 40}


CASES: dict[str, tuple[Facts, Facts]] = {
    # --- the run itself
    "MKS-RUN-001": (Facts(unreadable=(("site.conf", "line 3"),)), Facts()),
    # --- settings
    "MKS-SET-001": (env(MKS_LOG_LEVEL="LOUD"), env(MKS_LOG_LEVEL="INFO")),
    "MKS-SET-002": (env(MKS_ALOWED_HOSTS="a.example"), env(MKS_UPLOADS="/srv/uploads")),
    "MKS-SET-003": (env(FLASK_DEBUG="1"), env(FLASK_DEBUG="0")),
    "MKS-SET-004": (env(MKS_ENV="development"), env(MKS_ENV="staging")),
    "MKS-SET-005": (env(SECRET_KEY="django-insecure-k3v!x8q2zt1mwc7lryp0sbn5jd"), env(SECRET_KEY=GOOD_KEY)),
    "MKS-SET-006": (env(MKS_TRUSTED_PROXIES="0.0.0.0/0"), env(MKS_TRUSTED_PROXIES="10.1.0.0/16, unix")),
    "MKS-SET-007": (env(MKS_PROXY_HOPS="1"), env(MKS_PROXY_HOPS="1", MKS_TRUSTED_PROXIES="unix")),
    "MKS-SET-008": (env(ALLOWED_HOSTS="*"), env(ALLOWED_HOSTS="www.example.com")),
    "MKS-SET-009": (env(MKS_HSTS_MAX_AGE="1h"), env(MKS_HSTS_MAX_AGE="180d")),
    "MKS-SET-010": (env(MKS_CORS_ORIGINS="*"), env(MKS_CORS_ORIGINS="https://app.example.com")),
    "MKS-SET-011": (env(MKS_SESSION_ABSOLUTE_TIMEOUT="25h"), env(MKS_SESSION_ABSOLUTE_TIMEOUT="24h")),
    "MKS-SET-012": (
        env(DATABASE_URL="postgresql://postgres:password@localhost/shop"),
        env(DATABASE_URL="postgresql://shop:Vq8xT1mWc7Lr@localhost/shop"),
    ),
    "MKS-SET-013": (
        env("shop.env", DATABASE_URL="postgresql://shop:Vq8xT1mWc7Lr@localhost/shop"),
        env("shop.env", DATABASE_URL_FILE="/run/credentials/database_url"),
    ),
    "MKS-SET-014": (
        env(CACHE_REDIS_URL="rediss://cache.example.com/0?ssl_cert_reqs=none"),
        env(CACHE_REDIS_URL="rediss://cache.example.com/0"),
    ),
    "MKS-SET-015": (
        env(CELERY_BROKER_URL="redis://queue.example.com/0"),
        env(CELERY_BROKER_URL="redis://localhost/0"),
    ),
    "MKS-SET-016": (
        env(MKS_GUNICORN_WORKERS="4"),
        env(MKS_GUNICORN_WORKERS="4", MKS_REDIS_URL="redis://localhost/0"),
    ),
    "MKS-SET-017": (
        env(DATABASE_URL="postgresql://shop@localhost/shop"),
        env(DATABASE_URL="postgresql://shop@localhost/shop", MKS_DB_MAX_CONNECTIONS="90"),
    ),
    "MKS-SET-018": (env(MKS_DB_GENERATIONS="1"), env(MKS_DB_GENERATIONS="2")),
    "MKS-SET-019": (env(LOG_LEVEL="debug"), env(LOG_LEVEL="INFO")),
    "MKS-SET-020": (env(MKS_RATE_LIMITS_DRY_RUN="search"), env(MKS_CLIENT_RULES_DRY_RUN="0")),
    "MKS-SET-021": (env(CELERY_TASK_SERIALIZER="pickle"), env(CELERY_TASK_SERIALIZER="json")),
    "MKS-SET-022": (
        env(CSRF_TRUSTED_ORIGINS="https://*.example.com"),
        env(CSRF_TRUSTED_ORIGINS="https://app.example.com"),
    ),
    # --- application
    "MKS-APP-001": (app(error="KeyError: 'DATABASE_URL'"), app()),
    "MKS-APP-002": (app(debug=True), app()),
    "MKS-APP-003": (app(config={"SECRET_KEY": "dev"}), app()),
    "MKS-APP-004": (bare(), bare(config={"SECRET_KEY": GOOD_KEY, "SESSION_COOKIE_SECURE": True})),
    "MKS-APP-005": (bare(config={"SECRET_KEY": GOOD_KEY, "SESSION_COOKIE_HTTPONLY": False}), bare()),
    "MKS-APP-006": (bare(), bare(config={"SECRET_KEY": GOOD_KEY, "SESSION_COOKIE_SAMESITE": "Lax"})),
    "MKS-APP-007": (
        bare(config={"SECRET_KEY": GOOD_KEY, "PERMANENT_SESSION_LIFETIME": 24 * HOURS}),
        bare(config={"SECRET_KEY": GOOD_KEY, "PERMANENT_SESSION_LIFETIME": 8 * HOURS}),
    ),
    "MKS-APP-008": (
        bare(routes=(RouteFacts(path="/save", methods=frozenset({"POST"})),)),
        bare(routes=(RouteFacts(path="/", methods=frozenset({"GET"})),)),
    ),
    "MKS-APP-009": (
        app(cors=(CorsFacts(any_origin=True, credentials=True),)),
        app(cors=(CorsFacts(any_origin=True, credentials=False),)),
    ),
    "MKS-APP-010": (bare(), app()),
    "MKS-APP-011": (bare(), app()),
    "MKS-APP-012": (bare(wrappers=("ProxyFix", "Flask")), app()),
    "MKS-APP-013": (app(wrappers=("CSRFMiddleware", "SessionTimeoutMiddleware", "Flask")), app()),
    "MKS-APP-014": (bare(), app()),
    "MKS-APP-015": (app(session_store="MemorySessionStore"), app()),
    "MKS-APP-016": (bare(), bare(routes=(RouteFacts(path="/healthz", methods=frozenset({"GET"})),))),
    "MKS-APP-017": (app(documentation="/openapi.json"), app()),
    "MKS-APP-018": (
        app(routes=(RouteFacts(path="/users/<id>/delete", methods=frozenset({"GET", "HEAD"})),)),
        app(
            routes=(
                RouteFacts(path="/password/reset", methods=frozenset({"GET", "HEAD"})),
                RouteFacts(path="/password/reset", methods=frozenset({"POST"})),
            )
        ),
    ),
    "MKS-APP-019": (bare(), bare(config={"MAX_CONTENT_LENGTH": 1_000_000})),
    "MKS-APP-020": (bare(), bare(config={"TRUSTED_HOSTS": ["www.example.com"]})),
    "MKS-APP-021": (app(config={"CELERY_ACCEPT_CONTENT": ["json", "pickle"]}), app()),
    "MKS-APP-022": (
        app(
            framework="django", config={"PASSWORD_HASHERS": ["django.contrib.auth.hashers.MD5PasswordHasher"]}
        ),
        app(
            framework="django",
            config={"PASSWORD_HASHERS": ["django.contrib.auth.hashers.Argon2PasswordHasher"]},
        ),
    ),
    "MKS-APP-023": (app(threads=("poller",)), app(threads=("mks-delivery",))),
    "MKS-APP-024": (
        app(routes=(RouteFacts(path="/", methods=frozenset({"GET"}), blocking=("time.sleep",)),)),
        app(),
    ),
    "MKS-APP-025": (
        app(config={"CELERY_TASK_TIME_LIMIT": 7200}),
        app(config={"CELERY_TASK_TIME_LIMIT": 600}),
    ),
    "MKS-APP-026": (
        app(config={"RATELIMIT_STORAGE_URI": "memory://"}),
        app(config={"RATELIMIT_STORAGE_URI": "redis://a"}),
    ),
    "MKS-APP-027": (bare(), app()),
    "MKS-APP-028": (
        app(config={"SQLALCHEMY_DATABASE_URI": "postgresql://postgres:password@localhost/shop"}),
        app(config={"SQLALCHEMY_DATABASE_URI": "postgresql://shop:Vq8xT1mWc7Lr@localhost/shop"}),
    ),
    **{
        f"MKS-FLASK-00{number}": (
            app(adapter_findings=(AdapterFinding(id=f"MKS-FLASK-00{number}", text="wrong"),)),
            app(),
        )
        for number in range(1, 7)
    },
    "MKS-DJANGO-001": (app(adapter_findings=(AdapterFinding(id="MKS-DJANGO-001", text="W005"),)), app()),
    # --- files
    "MKS-DEP-001": (site("proxy_set_header X-Forwarded-For $remote_addr;", ""), GOOD_SITE),
    "MKS-DEP-002": (
        site("X-Forwarded-For $remote_addr", "X-Forwarded-For $proxy_add_x_forwarded_for"),
        GOOD_SITE,
    ),
    "MKS-DEP-003": (site('proxy_set_header Forwarded "";', ""), GOOD_SITE),
    "MKS-DEP-004": (site("Host $host", "Host $http_host"), GOOD_SITE),
    "MKS-DEP-005": (site("TLSv1.2 TLSv1.3", "TLSv1 TLSv1.2"), GOOD_SITE),
    "MKS-DEP-006": (site(":!aNULL", ":RC4:!aNULL"), GOOD_SITE),
    "MKS-DEP-007": (site("listen 80 default_server; return 444;", "listen 80; return 444;"), GOOD_SITE),
    "MKS-DEP-008": (
        site("return 444;", "return 308 https://$http_host$request_uri;"),
        site("return 404;", "return 308 https://www.example.com$request_uri;"),
    ),
    "MKS-DEP-009": (
        site("return 404;", "return 301 https://www.example.com$request_uri;"),
        site(
            "return 404;",
            'if ($request_method !~ "^(GET|HEAD)$") { return 308 https://a.example; } return 301 https://a.example;',
        ),
    ),
    "MKS-DEP-010": (
        site("alias /srv/static/;", "alias /srv/static/; add_header Cache-Control public;"),
        GOOD_SITE,
    ),
    "MKS-DEP-011": (site("max-age=63072000", "max-age=3600"), GOOD_SITE),
    "MKS-DEP-012": (site("max-age=63072000 always", "max-age=63072000"), GOOD_SITE),
    "MKS-DEP-013": (site("client_max_body_size 8m", "client_max_body_size 0"), GOOD_SITE),
    "MKS-DEP-014": (site("server_tokens off;", ""), GOOD_SITE),
    "MKS-DEP-015": (
        files(site=SITE.replace("%s", PROXY), gunicorn="timeout = 60\n"),
        files(site=SITE.replace("%s", PROXY), gunicorn="timeout = 30\n"),
    ),
    "MKS-DEP-016": (site("client_body_timeout 15s;", ""), GOOD_SITE),
    "MKS-DEP-017": (site("limit_req zone=all burst=20;", ""), GOOD_SITE),
    "MKS-DEP-018": (site('location ~ "/\\.(?!well-known/)" { return 404; }', ""), GOOD_SITE),
    "MKS-DEP-019": (
        site(
            "listen 443 ssl;",
            "listen 443 ssl; ssl_stapling on; ssl_certificate /etc/letsencrypt/live/a/fullchain.pem;",
        ),
        site("listen 443 ssl;", "listen 443 ssl; ssl_stapling on; ssl_certificate /etc/ssl/a.pem;"),
    ),
    "MKS-DEP-020": (
        site("listen 443 ssl;", 'listen 443 ssl; add_header X-XSS-Protection "1; mode=block" always;'),
        site("listen 443 ssl;", 'listen 443 ssl; add_header X-XSS-Protection "0" always;'),
    ),
    "MKS-DEP-021": (site("/var/log/nginx/a.log plain;", "/var/log/nginx/a.log;"), GOOD_SITE),
    "MKS-DEP-022": (
        files(site="upstream app { server unix:/run/a.sock; keepalive 16; }", gunicorn="keepalive = 5\n"),
        files(site="upstream app { server unix:/run/a.sock; keepalive 16; }", gunicorn="keepalive = 75\n"),
    ),
    "MKS-DEP-023": (
        site("alias /srv/static/;", "alias /srv/static/; stub_status;"),
        site("alias /srv/static/;", "alias /srv/static/; stub_status; allow 127.0.0.1; deny all;"),
    ),
    "MKS-DEP-024": (site("location /static/ {", "location /static {"), GOOD_SITE),
    "MKS-DEP-025": (site("alias /srv/static/;", "alias /srv/static/; autoindex on;"), GOOD_SITE),
    "MKS-DEP-026": (
        files(deploy='[edge]\nproxies_in_front = ["0.0.0.0/0"]\n'),
        files(
            deploy='[edge]\nproxies_in_front = ["10.0.0.0/24"]\n',
            http="set_real_ip_from 10.0.0.0/24;\nserver { }\n",
        ),
    ),
    "MKS-DEP-030": (
        files(gunicorn='bind = ["0.0.0.0:8000"]\n'),
        files(gunicorn='bind = ["unix:/run/a.sock"]\n'),
    ),
    "MKS-DEP-031": (
        files(gunicorn='forwarded_allow_ips = "*"\n'),
        files(gunicorn='forwarded_allow_ips = ""\n'),
    ),
    "MKS-DEP-032": (files(gunicorn="reload = True\n"), files(gunicorn="reload = False\n")),
    "MKS-DEP-033": (files(gunicorn='accesslog = "-"\n'), files(gunicorn="accesslog = None\n")),
    "MKS-DEP-034": (files(gunicorn="timeout = 0\n"), files(gunicorn="timeout = 60\n")),
    "MKS-DEP-035": (files(gunicorn="ssl_version = 5\n"), files(gunicorn="timeout = 60\n")),
    "MKS-DEP-036": (
        files(gunicorn='certfile = "a.pem"\nbind = ["0.0.0.0:80", "0.0.0.0:443"]\n'),
        files(gunicorn='certfile = "a.pem"\nbind = ["0.0.0.0:443"]\n'),
    ),
    "MKS-DEP-040": (unit("User=shop\n", ""), unit("User=shop", "DynamicUser=yes")),
    "MKS-DEP-041": (unit("LANG=C.UTF-8", "DB_PASSWORD=Vq8xT1mWc7Lr"), unit()),
    "MKS-DEP-042": (unit("ProtectSystem=strict\n", ""), unit()),
    "MKS-DEP-043": (unit("Restart=always\n", ""), unit()),
    "MKS-DEP-044": (unit("gunicorn -c gunicorn.conf.py", "flask --app shop run"), unit()),
    "MKS-DEP-045": (
        unit("gunicorn -c gunicorn.conf.py", "uvicorn shop:app\nExecReload=/bin/kill -HUP $MAINPID"),
        unit(
            "gunicorn -c gunicorn.conf.py", "uvicorn shop:app --workers 2\nExecReload=/bin/kill -HUP $MAINPID"
        ),
    ),
    "MKS-DEP-046": (unit("UMask=0027\n", ""), unit()),
    "MKS-DEP-050": (files(logrotate=LOGROTATE.replace("daily", "copytruncate")), files(logrotate=LOGROTATE)),
    "MKS-DEP-051": (
        files(logrotate=LOGROTATE.replace("daily", "daily  # each day")),
        files(logrotate=LOGROTATE),
    ),
    "MKS-DEP-052": (files(logrotate=LOGROTATE.replace("maxsize", "minage")), files(logrotate=LOGROTATE)),
    "MKS-DEP-053": (
        files(gunicorn='accesslog = "/var/log/other/a.log"\n', logrotate=LOGROTATE),
        files(gunicorn='accesslog = "/var/log/shop/a.log"\n', logrotate=LOGROTATE),
    ),
    "MKS-DEP-060": (files(redis=REDIS.replace("127.0.0.1", "0.0.0.0")), files(redis=REDIS)),
    "MKS-DEP-061": (files(redis=REDIS.replace("noeviction", "allkeys-lru")), files(redis=REDIS)),
    "MKS-DEP-062": (files(redis=REDIS.replace("maxmemory 256mb\n", "")), files(redis=REDIS)),
    "MKS-DEP-063": (files(redis=REDIS.replace("appendonly yes", 'save ""')), files(redis=REDIS)),
    "MKS-DEP-065": (files(postgresql=POSTGRESQL.replace("''", "'*'")), files(postgresql=POSTGRESQL)),
    "MKS-DEP-066": (
        files(postgresql=POSTGRESQL.replace("statement_timeout = 30s", "")),
        files(postgresql=POSTGRESQL),
    ),
    "MKS-DEP-067": (
        files(pg_hba="host all all 0.0.0.0/0 md5\n"),
        files(pg_hba="local all all peer\nhostssl all all 0.0.0.0/0 scram-sha-256\n"),
    ),
    "MKS-DEP-068": (
        both(app(config={"SQLALCHEMY_ENGINE_OPTIONS": POOL}), files(gunicorn="workers = 4\n")),
        both(
            app(config={"SQLALCHEMY_ENGINE_OPTIONS": {"pool_size": 5, "max_overflow": 0}}),
            files(gunicorn="workers = 4\n"),
        ),
    ),
    "MKS-DEP-069": (
        both(env(MKS_DB_MAX_CONNECTIONS="200"), files(postgresql=POSTGRESQL)),
        both(env(MKS_DB_MAX_CONNECTIONS="90"), files(postgresql=POSTGRESQL)),
    ),
    "MKS-DEP-070": (files(dockerfile=DOCKERFILE.replace("USER 10001\n", "")), files(dockerfile=DOCKERFILE)),
    "MKS-DEP-071": (
        files(dockerfile=DOCKERFILE.replace("LANG=", "DB_PASSWORD=")),
        files(dockerfile=DOCKERFILE),
    ),
    "MKS-DEP-072": (
        files(dockerfile=DOCKERFILE.replace("HEALTHCHECK", "LABEL a=")),
        files(dockerfile=DOCKERFILE),
    ),
    "MKS-DEP-074": (files(compose=COMPOSE + "    privileged: true\n"), files(compose=COMPOSE)),
    "MKS-DEP-075": (files(compose=COMPOSE + '    ports: ["5432:5432"]\n'), files(compose=COMPOSE)),
    "MKS-DEP-076": (files(compose=COMPOSE + "      DB_PASSWORD: Vq8xT1mWc7Lr\n"), files(compose=COMPOSE)),
    # --- live site
    "MKS-WEB-001": (live(TlsFacts(error="self-signed certificate")), live()),
    "MKS-WEB-002": (live(TlsFacts(not_before=-85 * DAY, not_after=15 * DAY)), live()),
    "MKS-WEB-003": (live(TlsFacts(old_versions=("TLSv1",))), live()),
    "MKS-WEB-004": (live(plain=response(200)), live()),
    "MKS-WEB-005": (live(page=response(302, location="https://other.example.org/")), live()),
    "MKS-WEB-006": (live(host=response(301, location="https://spoofed.example.net/")), live()),
    "MKS-WEB-007": (live(spoofed=response(200, "<a href=https://spoofed.example.net/>")), live()),
    "MKS-WEB-008": (live(missing=response(404, without="strict-transport-security")), live()),
    "MKS-WEB-009": (live(static=response(without="content-security-policy")), live()),
    "MKS-WEB-010": (live(page=response(content_security_policy="script-src 'self' 'unsafe-inline'")), live()),
    "MKS-WEB-011": (live(malformed=response(400, without="x-content-type-options")), live()),
    "MKS-WEB-012": (live(page=response(content_security_policy="default-src 'none'")), live()),
    "MKS-WEB-013": (live(missing=response(404, without="referrer-policy")), live()),
    "MKS-WEB-014": (live(page=response(without="permissions-policy")), live()),
    "MKS-WEB-015": (
        live(page=response(set_cookie="sid=1; HttpOnly; SameSite=Lax")),
        live(page=response(set_cookie="sid=1; Secure; HttpOnly; SameSite=Lax")),
    ),
    "MKS-WEB-016": (
        live(page=response(set_cookie="sessionid=1; Secure; SameSite=Lax")),
        live(page=response(set_cookie="csrftoken=1; Secure; SameSite=Lax")),
    ),
    "MKS-WEB-017": (
        live(page=response(set_cookie="sid=1; Secure; HttpOnly; SameSite=None")),
        live(page=response(set_cookie="sid=1; Secure; HttpOnly; SameSite=Strict")),
    ),
    "MKS-WEB-018": (
        live(
            cors=response(
                access_control_allow_origin="https://spoofed.example.net",
                access_control_allow_credentials="true",
            )
        ),
        live(
            cors=response(
                access_control_allow_origin="https://app.example.com", access_control_allow_credentials="true"
            )
        ),
    ),
    "MKS-WEB-019": (live(cors=response(access_control_allow_origin="*")), live()),
    "MKS-WEB-020": (
        live(page=response(set_cookie="sid=1; Secure", cache_control="public, max-age=60")),
        live(page=response(set_cookie="sid=1; Secure", cache_control="no-store")),
    ),
    "MKS-WEB-021": (
        live(git=response(200, "ref: refs/heads/main\n", path="/.git/HEAD")),
        live(git=response(200, "<html>")),
    ),
    "MKS-WEB-022": (live(page=response(server="nginx/1.26.3")), live(page=response(server="nginx"))),
    "MKS-WEB-023": (live(trace=response(200, "TRACE / HTTP/1.1")), live()),
    "MKS-WEB-024": (
        live(health0=response(200, '{"redis": "ok"}', path="/readyz", content_type="application/json")),
        live(health0=response(200, "ok", path="/readyz")),
    ),
    "MKS-WEB-025": (live(malformed=response(500, "Traceback (most recent call last):")), live()),
    "MKS-WEB-026": (
        live(body_limit=100, too_large=response(404)),
        live(body_limit=100, too_large=response(413)),
    ),
    "MKS-WEB-027": (live(page=response(without="x-request-id")), live()),
    "MKS-WEB-028": (live(page_faults=(PageFault("/", "script-src-elem blocks inline of <script>"),)), live()),
    # --- host
    "MKS-HOST-001": (host(synchronised=False), host(synchronised=None)),
    "MKS-HOST-002": (host(modes={"/etc/shop/key": 0o644}), host(modes={"/etc/shop/key": 0o640})),
    "MKS-HOST-003": (
        host(writable={"/etc/shop/shop.env": 0o666}),
        host(writable={"/etc/shop/shop.env": 0o644}),
    ),
    "MKS-HOST-004": (host(packages={"gunicorn": "20.1.0"}), host(packages={"gunicorn": "23.0.0"})),
    "MKS-HOST-005": (host(python=(3, 10, 4)), host()),
    "MKS-HOST-006": (
        both(env(MKS_REDIS_URL="redis://localhost/0"), host()),
        both(env(MKS_REDIS_URL="redis://localhost/0"), host(packages={"redis": "7.3.0"})),
    ),
    "MKS-HOST-007": (host(free={"/var": (0.05, 0.5)}), host()),
    "MKS-HOST-008": (
        host(large_logs={"/var/log/shop/app.log": 2 * 1024**3}),
        host(large_logs={"/var/log/a.log": 1000}),
    ),
    "MKS-HOST-009": (host(listening=(443, 5432)), host(listening=(80, 443))),
    "MKS-HOST-010": (host(root_processes=("gunicorn",)), host()),
    "MKS-HOST-011": (host(exposed_arguments={"worker": "db-password"}), host()),
    "MKS-HOST-012": (
        host(redis={"maxmemory-policy": "allkeys-lru", "maxmemory": "100"}),
        host(redis={"maxmemory-policy": "noeviction", "maxmemory": "100"}),
    ),
    "MKS-HOST-013": (
        host(redis={"appendonly": "no", "save": ""}),
        host(redis={"appendonly": "yes", "save": ""}),
    ),
    "MKS-HOST-014": (
        both(env(MKS_DB_MAX_CONNECTIONS="200"), host(max_connections=100)),
        both(env(MKS_DB_MAX_CONNECTIONS="90"), host(max_connections=100)),
    ),
}
"""Facts in which the check finds something, and facts in which it does not."""

NOT_FROM_FACTS = {"MKS-RUN-002", "MKS-RUN-003"}
"""Checks about suppressions; ``test_production_check_suppressions.py`` has their inputs."""

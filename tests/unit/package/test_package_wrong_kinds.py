"""An argument of a wrong kind is refused where it is given, by name, and not at the first use, at night.

The second half walks over everything that is public: whoever adds a class adds arguments with which it can be made.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, is_typeddict

import fakeredis
import pytest
from celery import Celery
from flask import Flask
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, select
from sqlalchemy.ext.asyncio import AsyncEngine

from mks_check import CheckReport, check
from mks_hardening._core import hooks
from mks_hardening.cache import CDNManager, MemoryCache
from mks_hardening.contrib import django_app, flask_app
from mks_hardening.contrib.celery_app import TaskNotifier, celery_app
from mks_hardening.db import (
    InvalidCursorError,
    SlowQueryMonitor,
    aexplain,
    hardened_async_engine,
    hardened_engine,
)
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security import (
    SIGN_IN_LIMITS,
    ConcurrencyLimiter,
    CredentialChanges,
    MemoryPasskeyStore,
    MemorySignInStore,
    MemoryTwoFactorStore,
    PasswordPolicy,
    RateLimiter,
    RelyingParty,
    SecretBox,
    SignIn,
    TwoFactorManager,
)
from mks_hardening.settings import HardeningSettings
from mks_hardening.tasks import Daily, MailTask, TaskQueueWatch, Tasks, TaskStatusApp, TaskWorker, task_table
from mks_hardening.testing import FrozenClock
from mks_hardening.wsgi import (
    BanList,
    ConcurrencyRule,
    CookiePolicy,
    CORSPolicy,
    HeaderPolicy,
    MaintenanceSwitch,
    MemorySessionStore,
    ProxyTrust,
    RateLimitRule,
    RequestLimits,
)
from wrong_kinds import faults_of


class Accounts:
    """Has nobody."""

    def find(self, name: str, /) -> None:
        return None

    def get(self, user_id: str, /) -> None:
        return None

    def set_password(self, user_id: str, stored: str, /, *, expected: str | None) -> bool:
        return False


def sign_in(**wrong: Any) -> SignIn:
    usual: dict[str, Any] = {
        "accounts": Accounts(),
        "store": MemorySignInStore(),
        "limiter": RateLimiter(SIGN_IN_LIMITS),
        "factors": None,
        "end_sessions": print,
        "on_notice": print,
    }
    return SignIn(**{**usual, **wrong})


def changes(**wrong: Any) -> CredentialChanges:
    return CredentialChanges(sign_in(), **wrong)


def factors(**wrong: Any) -> TwoFactorManager:
    usual: dict[str, Any] = {
        "store": MemoryTwoFactorStore(),
        "issuer": "Knowledge",
        "secret_box": SecretBox(SecretBox.generate_key()),
        "relying_party": RelyingParty("example.com", name="Knowledge", origins=["https://example.com"]),
        "passkey_store": MemoryPasskeyStore(),
    }
    return TwoFactorManager(**{**usual, **wrong})


def tasks() -> Tasks:
    return Tasks(hardened_engine("sqlite://"))


def worker(**wrong: Any) -> TaskWorker:
    return TaskWorker(**{"tasks": tasks(), **wrong})


def watch(**wrong: Any) -> TaskQueueWatch:
    return TaskQueueWatch(**{"tasks": tasks(), **wrong})


def status_app(**wrong: Any) -> TaskStatusApp:
    return TaskStatusApp(**{"tasks": tasks(), "user_of": len, **wrong})


def mail_task(**wrong: Any) -> MailTask:
    usual = {"tasks": tasks(), "smtp_host": "smtp.example.com", "from_addr": "a@example.com"}
    return MailTask(**{**usual, **wrong})


def celery(**wrong: Any) -> object:
    return celery_app(**{"tasks": tasks(), "broker_url": "memory://", **wrong})


def notifier(**wrong: Any) -> TaskNotifier:
    return TaskNotifier(**{"tasks": tasks(), "app": Celery("x", broker="memory://"), **wrong})


def slots(**wrong: Any) -> ConcurrencyLimiter:
    return ConcurrencyLimiter(**{"limits": {"export": 2}, **wrong})


def held(**wrong: Any) -> object:
    return slots().limit("export", **wrong)


def limits(**wrong: Any) -> RateLimiter:
    return RateLimiter(**{"groups": {"mail": "2 per minute"}, **wrong})


def flask_limit(**wrong: Any) -> object:
    return flask_app.limit("auth_login", **wrong)


def django_limit(**wrong: Any) -> object:
    return django_app.limit("auth_login", **wrong)


def hardening(**wrong: Any) -> object:
    settings = HardeningSettings.from_env(environ={"MKS_ENV": "development"})
    return flask_app.Hardening(**{"app": Flask("x"), "settings": settings, **wrong})


def daily(**wrong: Any) -> Daily:
    return Daily(**{"hour": 3, **wrong})


CASES: list[tuple[Callable[..., object], str, list[object]]] = [
    (sign_in, "accounts", [None, Accounts, {}]),
    (sign_in, "store", [None, MemorySignInStore, "redis://localhost"]),
    (sign_in, "limiter", [RateLimiter, "5 per minute"]),
    (sign_in, "factors", [object(), SignIn]),
    (sign_in, "passwords", ["argon2id", PasswordPolicy]),
    (sign_in, "end_sessions", ["everything"]),
    (sign_in, "on_notice", [[]]),
    (sign_in, "device_keys", [5, {"a": "b"}]),
    (sign_in, "clock", [5]),
    (changes, "policy", [PasswordPolicy, "strict"]),
    (changes, "set_email", ["email"]),
    (factors, "store", [None, MemoryTwoFactorStore]),
    (factors, "secret_box", [None, "a" * 43, SecretBox]),
    (factors, "failure_budget", [5]),
    (factors, "relying_party", ["example.com", RelyingParty]),
    (factors, "passkey_store", ["redis://localhost", MemoryPasskeyStore]),
    (worker, "tasks", [None, Tasks, "sqlite://"]),
    (worker, "queues", [None, 5, "default"]),
    (watch, "tasks", [None, Tasks]),
    (status_app, "tasks", [None, Tasks]),
    (mail_task, "tasks", [None, Tasks]),
    (celery, "tasks", [None, Tasks]),
    (celery, "queues", [None, "default"]),
    (celery, "ring_again_after", ["soon", 0]),
    (celery, "setup_logging", ["json"]),
    (notifier, "tasks", [None, Tasks]),
    (notifier, "app", [None, Celery, "knowledge"]),
    (notifier, "queues", [5]),
    (slots, "limits", [5, ["export"], "export"]),
    (slots, "on_unavailable", [5, ["local"]]),
    (held, "key", ["user"]),
    (limits, "groups", [5, ["mail"], "5 per minute"]),
    (limits, "dry_run", [5, "mail"]),
    (limits, "on_unavailable", [5, ["local"]]),
    (flask_limit, "methods", ["POST", 5, [1]]),  # "POST" would be four methods, and count none
    (flask_limit, "key", ["user"]),
    (flask_limit, "exempt", [True]),
    (flask_limit, "cost", ["1", -1]),
    (django_limit, "methods", ["POST", 5]),
    (django_limit, "key", ["user"]),
    (hardening, "app", [Flask, "app"]),
    (hardening, "settings", [{"MKS_ENV": "development"}, HardeningSettings]),
    (hardening, "limiter", [RateLimiter, "redis://localhost"]),
    (hardening, "groups", [["few"], "5 per minute"]),
    (hardening, "user_keys", [5, "uid"]),
    (hardening, "sign_in", [5, SignIn, lambda parts: None]),
    (daily, "zone", [None, 9]),
]


@pytest.mark.parametrize(
    ("make", "parameter", "values"), CASES, ids=[f"{make.__name__}-{name}" for make, name, _ in CASES]
)
def test_a_wrong_kind_is_refused_by_name(
    make: Callable[..., object], parameter: str, values: list[object]
) -> None:
    for value in values:
        with pytest.raises(ConfigurationError, match=parameter) as refused:
            make(**{parameter: value})
        assert refused.value.parameter == parameter


def test_what_is_of_the_right_kind_is_taken() -> None:
    for make in {make for make, _, _ in CASES}:
        assert make()
    key = secrets.token_bytes(32)
    for keys in (key, [key, key], ()):
        assert sign_in(device_keys=keys)


# --- everything that is public


def app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return []


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})


def closed_connection(engine: Engine) -> Connection:
    """A connection that leaves nothing open."""
    with engine.connect() as connection:
        return connection


def usual(engine: Engine) -> dict[str, dict[str, Any]]:
    """Arguments with which everything that users make can be made or called; but for ``security``."""
    tasks, store, limiter = Tasks(engine), MemorySessionStore(), limits()
    settings = HardeningSettings.from_env(environ={"MKS_ENV": "development"})
    table = Table("t", MetaData(), Column("id", Integer, primary_key=True))
    worker = TaskWorker(tasks)
    found: dict[str, dict[str, Any]] = {
        "cache.AfterCommit": {},
        "cache.CDNManager": {"zone_id": "0" * 32, "api_token": "t" * 40},
        "cache.CacheTransaction": {"cache": MemoryCache()},
        "cache.FastlyCDN": {"service_id": "x" * 22, "api_token": "t" * 40},
        "cache.MemoryCache": {},
        "cache.NullCache": {},
        "cache.PurgeQueue": {"cdn": CDNManager("0" * 32, api_token="t" * 40)},
        "cache.RedisCache": {"url_or_client": fakeredis.FakeRedis()},
        "cache.TagInvalidator": {"cache": MemoryCache()},
        "cache.TieredCache": {"l1": MemoryCache(), "l2": MemoryCache(namespace="b")},
        "cache.cache_if": {"condition": bool},
        "cache.cached": {},
        "cache.set_default_cache": {"cache": None},
        "compose.ban_list": {"settings": settings},
        "compose.cache_backend": {"settings": settings},
        "compose.harden_asgi": {"app": asgi_app, "settings": settings},
        "compose.harden_wsgi": {"app": app, "settings": settings},
        "compose.rate_limiter": {"settings": settings},
        "compose.session_store": {"settings": settings},
        "compose.setup_logging_with_notifications": {"settings": settings},
        "mks_check.check": {},
        "mks_check.render_report": {"report": CheckReport(findings=())},
        "settings.setting": {"description": "Size.", "default": 3},
        "contrib.loguru_sink.LoguruSink": {},
        "contrib.otel_observer.OpenTelemetryObserver": {},
        "contrib.otel_observer.SpanFilter": {},
        "contrib.otel_observer.trace_headers": {},
        "contrib.prometheus_observer.PrometheusObserver": {},
        "contrib.prometheus_observer.metrics_app": {},
        "contrib.sentry_redaction.SentryRedaction": {},
        "contrib.sentry_redaction.init_sentry": {"dsn": "http://key@127.0.0.1:9/1"},
        "contrib.structlog_renderer.StructlogRenderer": {},
        "contrib.uvicorn_config.uvicorn_config": {"app_name": "x"},
        "contrib.waitress_config.waitress_config": {"app_name": "x"},
        "contrib.asgi_app.Hardening": {"app": asgi_app, "settings": settings},
        "contrib.gunicorn_config.gunicorn_config": {"app_name": "x"},
        "db.SearchIndex": {"name": "x"},
        "mks_check.MigrationLinter": {"server_version": 17},
        "db.ReadReplicas": {"primary": hardened_engine("postgresql+psycopg://host/db"), "replicas": []},
        "db.SafeOperations": {"connection": closed_connection(engine)},
        "db.migration_lock": {"engine": engine},
        "db.PoolMonitor": {"engine": engine},
        "db.QueryLog": {"threshold": 3},
        "db.SlowQueryMonitor": {"engine": engine},
        "db.allow_n_plus_one": {"patterns": "x"},
        "db.explain": {"bind": engine, "statement": "SELECT 1"},
        "db.aexplain": {"bind": hardened_async_engine("sqlite+aiosqlite://"), "statement": "SELECT 1"},
        "db.client_report": {"monitors": SlowQueryMonitor(engine)},
        "db.fingerprint": {"sql": "SELECT 1"},
        "db.guard_fork": {"engine": engine},
        "db.hardened_async_engine": {"url": "sqlite+aiosqlite://"},
        "db.hardened_engine": {"url": "sqlite://"},
        "db.keyset_page": {"select": select(table), "order_by": [table.c.id]},
        "db.normalize_sql": {"sql": "SELECT 1"},
        "db.plan_pool": {"workers": 1, "threads": 1, "max_connections": 20},
        "db.query_budget": {"limit": 3},
        "db.retry_on_serialization_failure": {},
        "db.slow_query_record": {"statement": "SELECT 1", "parameters": ()},
        "db.watch_queries": {"engines": engine},
        "events.add_observer": {"observer": len},
        "logging.BelowLevelFilter": {},
        "logging.BoundedQueueHandler": {"handlers": [logging.NullHandler()]},
        "logging.ContextFilter": {},
        "logging.JsonFormatter": {},
        "logging.ProcessSafeRotatingFileHandler": {"filename": "a.log"},
        "logging.RedactionFilter": {},
        "logging.ReopeningFileHandler": {"filename": "b.log"},
        "logging.Rotation": {},
        "logging.SecretRedactor": {},
        "logging.StandardStreamHandler": {},
        "logging.UncaughtExceptions": {"logger": logging.getLogger("x")},
        "logging.dict_config": {"app_name": "x"},
        "logging.setup_logging": {"app_name": "x", "loggers": ["mks.wrong_kinds"]},
        "notify.AlertPolicy": {},
        "notify.EmailNotificationHandler": {
            "smtp_host": "localhost", "from_addr": "a@example.com", "to_addrs": "b@example.com",
        },
        "notify.SlackNotificationHandler": {"webhook_url": "https://hooks.slack.com/services/T/B/x"},
        "notify.WebhookNotificationHandler": {"url": "https://example.com/x"},
        "tasks.Daily": {"hour": 1},
        "tasks.Every": {"interval": 60},
        "tasks.MailTask": {"tasks": tasks, "smtp_host": "localhost", "from_addr": "a@example.com"},
        "tasks.TaskQueueWatch": {"tasks": tasks},
        "tasks.TaskStatusApp": {"tasks": tasks, "user_of": len},
        "tasks.TaskWorker": {"tasks": tasks},
        "tasks.Tasks": {"engine": engine},
        "tasks.clean_folder": {"folder": ".", "older_than": 365 * 86_400},
        "tasks.task_table": {"metadata": MetaData()},
        "testing.FlakyRedis": {},
        "testing.FrozenClock": {},
        "testing.RecordedLines": {"formatter": logging.Formatter()},
        "testing.RecordingTransport": {},
        "testing.TaskRecorder": {"tasks": tasks, "worker": worker, "clock": FrozenClock()},
        "wsgi.BanList": {},
        "wsgi.BanRule": {"name": "sweep"},
        "wsgi.CORSMiddleware": {"app": app, "policy": CORSPolicy("*")},
        "wsgi.CORSPolicy": {"origins": ["https://example.com"]},
        "wsgi.CORSRule": {"path": "/", "policy": CORSPolicy("*")},
        "wsgi.HeaderRule": {"path": "/", "csp": {"img-src": "data:"}, "frame": "deny"},
        "wsgi.CSRFMiddleware": {"app": app},
        "wsgi.CacheRule": {"path": "/x", "ttl": 1},
        "wsgi.ClientRules": {},
        "wsgi.ClientRulesMiddleware": {"app": app, "bans": BanList()},
        "wsgi.ConcurrencyMiddleware": {
            "app": app, "limiter": ConcurrencyLimiter({"all": 1}), "rules": [ConcurrencyRule("all")],
        },
        "wsgi.ConcurrencyRule": {"limit": "all"},
        "wsgi.CookiePolicy": {},
        "wsgi.CookiePolicyMiddleware": {"app": app, "policy": CookiePolicy()},
        "wsgi.ContentSecurityPolicy": {"directives": {"default-src": "'self'"}},
        "wsgi.GroupChoice": {"choose": lambda request: "mail", "groups": ["mail"], "fallback": "mail"},
        "wsgi.HSTS": {},
        "wsgi.HTTPSRedirectMiddleware": {"app": app, "allowed_hosts": ["example.com"]},
        "wsgi.HeaderPolicy": {},
        "wsgi.HealthMiddleware": {"app": app, "required": ()},
        "wsgi.MaintenanceMiddleware": {"app": app, "switch": MaintenanceSwitch("/maintenance")},
        "wsgi.MaintenanceSwitch": {"path": "/maintenance"},
        "wsgi.MemorySessionStore": {},
        "wsgi.CustomResponse": {"body": "x"},
        "wsgi.ProxyTrust": {},
        "wsgi.RateLimitMiddleware": {"app": app, "limiter": limiter, "rules": [RateLimitRule("mail")]},
        "wsgi.RateLimitRule": {"group": "mail"},
        "wsgi.RedisSessionStore": {"url_or_client": fakeredis.FakeRedis()},
        "wsgi.RequestLimitRule": {"path": "/", "limits": RequestLimits()},
        "wsgi.RequestLimits": {},
        "wsgi.RequestLimitsMiddleware": {"app": app},
        "wsgi.RequestLoggingMiddleware": {"app": app},
        "wsgi.RequestTimeoutMiddleware": {"app": app},
        "wsgi.RequestTimeoutRule": {"path": "/", "seconds": 1},
        "wsgi.ResponseCacheMiddleware": {"app": app, "cache": MemoryCache(), "rules": []},
        "wsgi.SecurityHeadersMiddleware": {"app": app, "policy": HeaderPolicy()},
        "wsgi.SessionCookie": {},
        "wsgi.SessionManager": {"store": store},
        "wsgi.SessionTimeoutMiddleware": {"app": app, "store": store},
        "wsgi.TrustedProxyMiddleware": {"app": app, "trust": ProxyTrust()},
        "wsgi.limit_by_header": {"name": "x"},
        "wsgi.set_request_cost": {"request": {}, "cost": 1},
        "a task.status": {"task_id": "x"},
        "a task.listed": {},
        "a task.cancel": {"task_id": "x"},
        "a task.replay": {"task_id": "x"},
        "a task.discard": {"task_id": "x"},
        "a task.stats": {},
        "a worker.run_pending": {},
        "a worker.run_one": {"task_id": "x"},
    }  # fmt: skip
    for name, arguments in list(found.items()):
        if name.startswith("wsgi."):
            found[f"asgi.{name.removeprefix('wsgi.')}"] = arguments | (
                {"app": asgi_app} if "app" in arguments else {}
            )
    return found


# What a server or a database gives, and what is told of otherwise, as documented.
TAKEN = {("db.slow_query_record", "parameters"), ("mks_check.check", "app")}
OTHERS: dict[tuple[str, str], tuple[type[Exception], ...]] = {
    ("db.keyset_page", "after"): (InvalidCursorError,),
    ("db.keyset_page", "before"): (InvalidCursorError,),
    ("tasks.clean_folder", "folder"): (OSError,),
}
CONTRIB = (
    "asgi_app", "gunicorn_config", "loguru_sink", "otel_observer", "prometheus_observer", "sentry_redaction",
    "structlog_renderer", "uvicorn_config", "waitress_config",
)  # fmt: skip
AREAS = (
    "asgi", "cache", "compose", "db", "events", "logging", "notify", "tasks", "testing", "wsgi",
)  # fmt: skip
MODULES = {name: f"mks_hardening.{name}" for name in (*AREAS, *(f"contrib.{name}" for name in CONTRIB))}
MODULES["mks_check"] = "mks_check"

# Handed out and not made by users, or called with what a server gives.
HANDED_OUT = {
    "BaseCDN", "BaseCache", "NotificationHandler", "Page", "RecordedAlerts", "RecordedEvents", "RequestDeadline",
    "RequestOrigin", "SessionHandle", "Task", "TaskCall", "TaskRun", "WSGIResponse", "bind", "bound", "call_asgi",
    "call_wsgi", "is_transient", "limit_by_address", "limit_by_all", "limit_by_user", "remove_observer",
    "request_deadline", "request_origin",
}  # fmt: skip


def is_for_users(found: object) -> bool:
    """Whether users make or call it with arguments; what only carries values is checked where it is made."""
    if isinstance(found, type):
        of_values = is_dataclass(found) or issubclass(found, (tuple, BaseException)) or is_typeddict(found)
        return not (of_values or getattr(found, "_is_protocol", False) or found.__name__.endswith("Contract"))
    return callable(found) and bool(signature(found).parameters)


def test_everything_public_is_walked_over() -> None:
    engine = hardened_engine("sqlite://")
    walked = {name for name in usual(engine) if not name.startswith("a ")}
    engine.dispose()
    public = {
        f"{area}.{name}"
        for area, module in MODULES.items()
        for name in import_module(module).__all__
        if name not in HANDED_OUT and is_for_users(getattr(import_module(module), name))
    }
    assert public - walked == set()


@pytest.fixture
def made() -> Iterator[dict[str, dict[str, Any]]]:
    engine = hardened_engine("sqlite://")
    tasks = Tasks(engine)
    tasks.store.table.metadata.create_all(engine)
    handlers = logging.getLogger("mks.wrong_kinds").handlers
    observers = tuple(hooks.observers)
    yield usual(engine)
    hooks.observers[:] = observers  # what can be called can observe
    for handler in tuple(handlers):
        handlers.remove(handler)
        handler.close()
    engine.dispose()


def check_offline(  # what ``check`` takes, but for ``url``
    *,
    environ: Any = None,
    env_file: Any = None,
    app: Any = None,
    files: Any = (),
    host: Any = False,
    ca_file: Any = None,
    body_limit: Any = None,
    silence: Any = (),
    baseline: Any = None,
    lang: Any = "en",
    clock: Any = None,
) -> CheckReport:
    return check(**locals())


def explain_now(bind: Any, statement: Any, *, analyze: Any = False) -> Any:
    async def explain() -> Any:
        try:
            return await aexplain(bind, statement, analyze=analyze)
        finally:  # its connection belongs to this loop
            if isinstance(bind, AsyncEngine):
                await bind.dispose()

    return asyncio.run(explain())


def named(name: str, arguments: dict[str, dict[str, Any]]) -> Callable[..., Any]:
    place, _, last = name.rpartition(".")
    if place == "a task":
        return getattr(arguments["tasks.TaskWorker"]["tasks"], last)
    if place == "a worker":
        return getattr(arguments["testing.TaskRecorder"]["worker"], last)
    if name == "mks_check.check":  # without the live site: a name would be looked up
        return check_offline
    if name == "db.aexplain":
        return explain_now
    if name == "tasks.task_table":  # a table can be defined once in one metadata
        return lambda metadata, name="x", schema=None: task_table(
            MetaData() if isinstance(metadata, MetaData) else metadata, name=name, schema=schema
        )
    return getattr(import_module(MODULES[place]), last)


@pytest.mark.usefixtures("logging_as_it_was")  # some kinds are no fault, and set it up
@pytest.mark.filterwarnings("ignore")  # of what is possible, and unwise
@pytest.mark.parametrize("area", [*AREAS, "contrib", "mks_check", "a task", "a worker"])
def test_each_parameter_is_refused_by_name(
    area: str, made: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a log is written here
    monkeypatch.setattr("sentry_sdk.init", dict)  # it would report from this process
    faults = []
    for name, arguments in made.items():
        if not name.startswith(f"{area}."):
            continue
        found = named(name, made)
        of = {parameter: errors for (owner, parameter), errors in OTHERS.items() if owner == name}
        taken = [parameter for owner, parameter in TAKEN if owner == name]
        faults += [f"{name}({fault}" for fault in faults_of(found, arguments, taken=taken, others=of)]
    assert faults == []

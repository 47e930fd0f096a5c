"""What an import costs and does: few modules, nothing heavy, nothing opened, started, read or changed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

from testbed import package_map
from testbed.run_python import run_python

HEAVY = [
    "redis", "limits", "pyotp", "qrcode", "PIL", "sqlalchemy", "requests", "werkzeug", "flask", "orjson", "msgspec",
    "cryptography", "pythonjsonlogger", "asyncio", "ssl", "smtplib", "urllib.request", "importlib.metadata",
]  # fmt: skip

BUDGETS = {
    "mks_hardening": 3,
    "mks_hardening.wsgi": 60,
    "mks_hardening.settings": 60,
    "mks_check": 16,
    **{f"mks_hardening.{area}": 75 for area in ("logging", "cache", "security", "db", "notify")},
    "mks_hardening.exceptions": 40,
    "mks_hardening.protocols": 60,
    "mks_hardening.events": 60,
}


COUNT = """
import sys
before = set(sys.modules)
for name in sys.argv[1:]:
    __import__(name)
new = sorted(set(sys.modules) - before)
print('["' + '", "'.join(new) + '"]')
"""


def _new_modules(*names: str) -> list[str]:
    found: list[str] = run_python(COUNT, *names).json()
    return found


def test_all_extras_are_there_to_be_left_alone() -> None:
    absent = {name for name in HEAVY if find_spec(name.partition(".")[0]) is None}
    assert absent <= {"PIL"}  # comes with no extra of ours; a user may have it


@pytest.mark.parametrize(("module", "budget"), BUDGETS.items())
def test_one_import_stays_within_its_budget(module: str, budget: int) -> None:
    new = _new_modules(module)
    assert len(new) <= budget, new
    assert [name for name in HEAVY if name in new] == []


def test_all_areas_together_stay_within_their_budget() -> None:
    new = _new_modules(*(f"mks_hardening.{area}" for area in package_map.AREAS))
    assert len(new) <= 140, new
    assert [name for name in HEAVY if name in new] == []


@pytest.mark.parametrize("area", package_map.AREAS)
def test_looking_at_every_name_loads_nothing_heavy(area: str) -> None:
    base_class = {"logging": {"pythonjsonlogger"}}.get(area, set())  # the formatter is a subclass
    code = f"""
    import sys
    before = set(sys.modules)
    from mks_hardening.{area} import *
    print("\\n".join(set(sys.modules) - before))
    """
    assert set(HEAVY) & set(run_python(code).stdout.split()) <= base_class


def test_the_package_imports_no_area() -> None:
    assert [name for name in _new_modules("mks_hardening") if name.startswith("mks_hardening.")] == []


@pytest.mark.parametrize("area", package_map.AREAS)
def test_an_area_imports_no_other(area: str) -> None:
    new = _new_modules(f"mks_hardening.{area}")
    others = {f"mks_hardening.{other}" for other in package_map.AREAS if other != area}
    assert others.isdisjoint(new)


# --- nothing happens


WATCHED_IMPORT = """
import atexit, json, logging, os, signal, sys, threading

found, watching = [], False

def ours():
    '''Whether our code, not the import system on our behalf, is at work.'''
    frame = sys._getframe(2)
    while frame is not None and "importlib._bootstrap" not in frame.f_code.co_filename:
        if "mks_hardening" in frame.f_globals.get("__name__", ""):
            return f"{frame.f_globals['__name__']}:{frame.f_lineno}"
        frame = frame.f_back
    return ""

EVENTS = ("open", "socket.", "subprocess.", "os.", "_thread.", "shutil.", "tempfile.", "sqlite3.", "ctypes.",
          "pathlib.", "glob.", "urllib.", "http.", "smtplib.", "ftplib.", "signal.", "mmap.", "fcntl.")

def watch(event, arguments):
    if watching and event.startswith(EVENTS) and (where := ours()):
        found.append(f"{where} {event} {arguments!r:.80}")

class Watched(type(os.environ)):
    def __getitem__(self, key):
        if watching and (where := ours()):
            found.append(f"{where} reads the environment: {key}")
        return super().__getitem__(key)
    def __iter__(self):
        if watching and (where := ours()):
            found.append(f"{where} reads the environment")
        return super().__iter__()

def watched(owner, name):
    original = getattr(owner, name)
    def replacement(*arguments, **options):
        if watching and (where := ours()):
            found.append(f"{where} calls {name}")
        return original(*arguments, **options)
    setattr(owner, name, replacement)

def loggers():
    real = {name: known for name, known in logging.root.manager.loggerDict.items() if hasattr(known, "level")}
    return {
        name: (known.level, tuple(known.handlers), tuple(known.filters), known.propagate, known.disabled)
        for name, known in {"root": logging.root, **real}.items()
    }

def state():
    return {
        "threads": threading.active_count(),
        "hooks": [sys.excepthook, sys.unraisablehook, threading.excepthook, sys.displayhook],
        "signals": [signal.getsignal(number) for number in signal.valid_signals()],
        "logging": [logging.getLogRecordFactory(), logging.getLoggerClass(), logging.lastResort],
        "stdio": [sys.stdin, sys.stdout, sys.stderr],
    }

os.environ.__class__ = Watched
CALLS = [(atexit, "register"), (os, "register_at_fork"), (signal, "signal"), (threading.Thread, "start")]
for owner, name in CALLS:
    watched(owner, name)
sys.addaudithook(watch)
fresh = (logging.NOTSET, (), (), True, False)

for module in sys.argv[1:]:
    before, known = state(), loggers()
    watching = True
    __import__(module)
    watching = False
    after = state()
    found += [f"{module} changed {what}" for what in before if before[what] != after[what]]
    found += [
        f"{module} changed the logger {name}"
        for name, now in loggers().items()
        if now != known.get(name, fresh) and (name in known or name.startswith("mks_hardening"))
    ]
print(json.dumps(found))
"""


def _importable() -> list[str]:
    return [name for name in package_map.all_modules() if not name.endswith(".__main__")]


@pytest.mark.parametrize("order", ["forwards", "backwards"])
def test_importing_any_module_does_nothing(order: str) -> None:
    modules = _importable()
    if order == "backwards":
        modules.reverse()
    assert run_python(WATCHED_IMPORT, *modules, flags=("-I", "-W", "ignore")).json() == []


@pytest.mark.parametrize(
    ("offence", "clue"),
    [
        ("open('/dev/null').close()", "open"),
        ("import socket; socket.socket().close()", "socket"),
        ("import threading; threading.Thread(target=int).start()", "start"),
        ("import os; os.environ.get('HOME')", "environment"),
        ("import os; os.getenv('HOME')", "environment"),
        ("import os; os.putenv('A', 'b')", "putenv"),
        ("import atexit; atexit.register(int)", "register"),
        ("import logging; logging.getLogger('x.y').setLevel(10)", ""),
        ("import logging; logging.getLogger().setLevel(10)", "logger root"),
        (
            "import logging; logging.getLogger('mks_hardening.a').addHandler(logging.NullHandler())",
            "logger mks",
        ),
        ("import subprocess; subprocess.run(['true'])", "subprocess"),
        ("import mimetypes; mimetypes.init()", "open"),
        ("import sys; sys.excepthook = print", "hooks"),
    ],
)
def test_the_watch_sees_an_offence(tmp_path: Any, offence: str, clue: str) -> None:
    package = tmp_path / "mks_hardening_offender.py"
    package.write_text(offence)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{WATCHED_IMPORT}"
    found = run_python(code, "mks_hardening_offender").json()
    assert bool(found) is bool(clue), found
    assert clue in " ".join(found)


# --- one package absent


ABSENT = """
import sys
from importlib.machinery import PathFinder

class Finder(PathFinder):
    '''Finds everything but the package in the first argument, as if that were not installed.'''

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == sys.argv[1] else super().find_spec(name, path, target)

sys.meta_path[:] = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
"""

ONE_ABSENT = (
    ABSENT
    + """
import json, sys
from importlib import import_module
package, modules = sys.argv[1], sys.argv[2:]
from mks_hardening.exceptions import MissingDependencyError
errors, missing = [], []
for module in modules:
    try:
        loaded = import_module(module)
    except ImportError as error:
        errors.append(f"import {module}: {error!r}")
        continue
    for name in getattr(loaded, "__all__", ()):
        try:
            getattr(loaded, name)
        except MissingDependencyError as error:
            missing.append(name)
            if error.package != package or package not in str(error) or "pip install" not in str(error):
                errors.append(f"{module}.{name}: {error!r}")
        except Exception as error:
            errors.append(f"{module}.{name}: {error!r}")
print(json.dumps({"errors": errors, "missing": missing}))
"""
)


@pytest.mark.parametrize("package", sorted(package_map.third_party() - {"pytest"}))
def test_an_absent_package_is_named_at_first_use_only(package: str) -> None:
    modules = [
        name
        for name in package_map.public_modules()
        if name.count(".") < 2 and name != "mks_hardening.pytest_plugin"
    ]
    result = run_python(ONE_ABSENT, package, *modules, flags=("-I", "-W", "ignore")).json()
    assert result["errors"] == []


CONSTRUCTIONS = [
    ("redis", "cache", "mks_hardening.cache", "RedisCache('redis://localhost')"),
    ("limits", "security", "mks_hardening.security", "RateLimiter({'login': '5 per minute'})"),
    (
        "pyotp",
        "security",
        "mks_hardening.security",
        "provisioning_uri('A' * 32, account_name='a', issuer='b')",
    ),
    ("cryptography", "security", "mks_hardening.security", "SecretBox('A' * 43 + '=')"),
    (
        "werkzeug",
        "security",
        "mks_hardening.security",
        "PasswordHasher(scheme='scrypt').hash('battery staple')",
    ),
    ("argon2", "argon2", "mks_hardening.security", "PasswordHasher(scheme='argon2id')"),
    (
        "bcrypt",
        "bcrypt",
        "mks_hardening.security",
        "PasswordHasher(scheme='scrypt').verify('x', '$2b$04$' + 'a' * 53)",
    ),
    ("sqlalchemy", "db", "mks_hardening.security", "SQLAlchemyPasskeyStore(object())"),
    ("qrcode", "qr", "mks_hardening.security", "qr_code('otpauth://totp/x')"),
    ("sqlalchemy", "db", "mks_hardening.db", "hardened_engine('sqlite://')"),
    ("sqlalchemy", "db", "mks_hardening.security", "SQLAlchemyTwoFactorStore(object())"),
    (
        "requests",
        "notify",
        "mks_hardening.notify",
        "SlackNotificationHandler('https://hooks.example.com/services/T/B/X')",
    ),
    (
        "requests",
        "notify",
        "mks_hardening.notify",
        "WebhookNotificationHandler('https://hooks.example.com/x')",
    ),
    ("requests", "notify", "mks_hardening.cache", "CDNManager('0' * 32, api_token='t' * 40)"),
    ("pythonjsonlogger", "logging", "mks_hardening.logging", "JsonFormatter()"),
    ("prometheus_client", "prometheus", "mks_hardening.contrib.prometheus_observer", "PrometheusObserver()"),
    ("opentelemetry", "opentelemetry", "mks_hardening.contrib.otel_observer", "OpenTelemetryObserver()"),
    ("flask", "flask", "mks_hardening.contrib.flask_app", "Hardening()"),
    ("django", "django", "mks_hardening.contrib.django_app", "limit('search')"),
]


@pytest.mark.parametrize(("package", "extra", "module", "expression"), CONSTRUCTIONS)
def test_construction_says_which_extra_is_missing(
    package: str, extra: str, module: str, expression: str
) -> None:
    code = f"""{ABSENT}
from mks_hardening.exceptions import MissingDependencyError
try:
    from {module} import {expression.partition("(")[0]}
    {expression}
except MissingDependencyError as error:
    print(error.package, error.extra, isinstance(error, ImportError))
"""
    assert run_python(code, package).stdout.split() == [package, extra, "True"]


def test_a_broken_package_is_not_called_missing() -> None:
    code = """
    import sys, types
    from importlib.machinery import ModuleSpec
    from mks_hardening._core.optional_imports import optional

    class Broken:
        def find_spec(self, name, path=None, target=None):
            return ModuleSpec(name, self) if name == "redis" else None
        def create_module(self, spec):
            return None
        def exec_module(self, module):
            import a_module_that_redis_needs

    sys.meta_path.insert(0, Broken())
    try:
        with optional("redis", extra="cache"):
            import redis
    except ImportError as error:
        print(type(error).__name__, error.name)
    """
    assert run_python(code).stdout.split() == ["ModuleNotFoundError", "a_module_that_redis_needs"]

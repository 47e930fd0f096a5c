"""The application in a source tree: named by a Procfile or by Django's settings, or found in its modules.

The evidence is parsed, never searched for as text. The strongest kind of evidence that finds anything decides; if
it finds two applications, the operator has to choose.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from mks_deploy.init.source_tree import Module, SourceTree, called_name, walk_top

__all__ = ["DEVELOPMENT", "Candidate", "django_settings", "find_candidates"]

DEVELOPMENT: Final = frozenset({"ci", "dev", "development", "local", "test", "testing"})
"""Names of settings modules that are not for a server of users."""

_FRAMEWORKS: Final = {
    "flask.Flask": "wsgi",
    "flask.app.Flask": "wsgi",
    "bottle.Bottle": "wsgi",
    "falcon.App": "wsgi",
    "falcon.asgi.App": "asgi",
    "fastapi.FastAPI": "asgi",
    "fastapi.applications.FastAPI": "asgi",
    "starlette.applications.Starlette": "asgi",
    "quart.Quart": "asgi",
    "litestar.Litestar": "asgi",
    "litestar.app.Litestar": "asgi",
    "django.core.wsgi.get_wsgi_application": "wsgi",
    "django.core.asgi.get_asgi_application": "asgi",
}
_WRAPPERS: Final = {
    "mks_hardening.compose.harden_wsgi": "wsgi",
    "mks_hardening.compose.harden_asgi": "asgi",
    "mks_hardening.contrib.django_app.hardened": "",
    "werkzeug.middleware.proxy_fix.ProxyFix": "wsgi",
    "werkzeug.middleware.dispatcher.DispatcherMiddleware": "wsgi",
    "whitenoise.WhiteNoise": "wsgi",
    "sentry_sdk.integrations.wsgi.SentryWsgiMiddleware": "wsgi",
    "sentry_sdk.integrations.asgi.SentryAsgiMiddleware": "asgi",
    "asgiref.wsgi.WsgiToAsgi": "asgi",
    "a2wsgi.WSGIMiddleware": "asgi",
    "a2wsgi.ASGIMiddleware": "wsgi",
    "uvicorn.middleware.proxy_headers.ProxyHeadersMiddleware": "asgi",
    "socketio.WSGIApp": "wsgi",
    "socketio.ASGIApp": "asgi",
}
_FACTORIES: Final = frozenset({"create_app", "make_app", "build_app", "get_app", "application_factory"})
_SERVERS: Final = frozenset(
    {"gunicorn", "uvicorn", "hypercorn", "granian", "daphne", "waitress-serve", "uwsgi"}
)
_TARGET: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*(\(\))?", re.ASCII)
_MODULE: Final = re.compile(r"[A-Za-z_][\w.]*", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Candidate:
    """An application that was found.

    Attributes:
        target: ``module:object`` or ``module:function()``.
        kind: ``wsgi`` or ``asgi``; empty if it can only be determined by an import.
        evidence: where it was found.
    """

    target: str
    kind: str
    evidence: str


def find_candidates(tree: SourceTree) -> list[Candidate]:
    """Return what the strongest evidence names, without repetition."""
    for source in (_of_procfile, _of_django, _of_modules):
        found: dict[str, Candidate] = {}
        for candidate in source(tree):
            found.setdefault(candidate.target, candidate)
        if found:
            return list(found.values())
    return []


def django_settings(tree: SourceTree) -> tuple[str, str]:
    """Return Django's settings module, and the file that names it; empty texts if there is none.

    ``wsgi.py`` and ``asgi.py`` go first: they are what a server imports, ``manage.py`` what developers run. If they
    name settings of development, as those of ``wagtail start`` do, those of production beside them go first.
    """
    modules = sorted(
        (module for module in tree.modules.values() if _last(module) in {"wsgi", "asgi", "manage"}),
        key=lambda module: (_last(module) == "manage", module.path),
    )
    for module in modules:
        for node in ast.walk(module.tree):
            if (
                isinstance(node, ast.Call)
                and called_name(node.func).endswith("environ.setdefault")
                and len(words := [each.value for each in node.args if isinstance(each, ast.Constant)]) == 2
                and words[0] == "DJANGO_SETTINGS_MODULE"
            ):
                return _of_production(tree, str(words[1]), f"{module.path}:{node.lineno}")
    return "", ""


def _of_production(tree: SourceTree, settings: str, place: str) -> tuple[str, str]:
    package, _, name = settings.rpartition(".")
    for other in ("production", "prod") if name in DEVELOPMENT else ():
        if module := tree.modules.get(f"{package}.{other}"):
            return module.name, f"{module.path}; {place} names {settings}"
    return settings, place


def _of_procfile(tree: SourceTree) -> Iterator[Candidate]:
    file = tree.folder / "Procfile"
    if not file.is_file():
        return
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        process, colon, command = line.partition(":")
        if not colon or process.strip() != "web":
            continue
        try:
            words = shlex.split(command)
        except ValueError:
            continue
        server = next(
            (place for place, word in enumerate(words) if word.rpartition("/")[2] in _SERVERS), None
        )
        if server is None:
            continue
        if target := _target_in(tree, words[server + 1 :]):
            asgi = words[server].rpartition("/")[2] in {"uvicorn", "hypercorn", "daphne"}
            asgi |= any("uvicorn" in word.lower() and "worker" in word.lower() for word in words)
            yield Candidate(target, "asgi" if asgi else "", f"Procfile:{number}")


def _target_in(tree: SourceTree, words: list[str]) -> str:
    factory = "--factory" in words
    for word in words:
        if _TARGET.fullmatch(word):
            return f"{word}()" if factory and not word.endswith("()") else word
    # gunicorn takes `application` of a module that is named alone.
    for word in reversed(words):
        if _MODULE.fullmatch(word) and word in tree.modules:
            return f"{word}:application"
    return ""


def _of_django(tree: SourceTree) -> Iterator[Candidate]:
    settings, _ = django_settings(tree)
    for name, kind in (("WSGI_APPLICATION", "wsgi"), ("ASGI_APPLICATION", "asgi")):
        if found := _assigned_text(tree, settings, name):
            dotted, place = found
            module, _, attribute = dotted.rpartition(".")
            if module:
                yield Candidate(f"{module}:{attribute}", kind, f"{name} in {place}")


def _assigned_text(tree: SourceTree, module_name: str, name: str, depth: int = 0) -> tuple[str, str] | None:
    """Return a text that a module, or one that it takes everything from, assigns to a name."""
    module = tree.modules.get(module_name)
    if module is None or depth > 5:
        return None
    origins = []
    for node in walk_top(module.tree.body):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            if any(isinstance(target, ast.Name) and target.id == name for target in node.targets):
                return str(node.value.value), f"{module.path}:{node.lineno}"
        elif isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            origins.append(module.origin(node))
    found = (_assigned_text(tree, origin, name, depth + 1) for origin in origins)
    return next((each for each in found if each), None)


def _of_modules(tree: SourceTree) -> Iterator[Candidate]:
    factories = dict(_factories(tree))
    made, found = set[str](), list[Candidate]()
    for module in tree.modules.values():
        inner = _inside_another(module)
        for name, call, line in _assigned_calls(module):
            callee = module.whole_name(call.func)
            callee = callee if "." in callee else f"{module.name}.{callee}"
            kind = _kind_of(module, call)
            if callee in factories:
                kind = factories[callee].kind
                made.add(callee)
            if kind is not None and name not in inner:
                found.append(Candidate(f"{module.name}:{name}", kind, f"{module.path}:{line}"))
    yield from found
    # A factory whose result is an object of a module already is the same application.
    yield from (candidate for name, candidate in factories.items() if name not in made)


def _kind_of(module: Module, call: ast.Call) -> str | None:
    """Return the kind of application that a call makes or wraps; ``None`` if it does neither."""
    callee = module.whole_name(call.func)
    if callee in _WRAPPERS:
        inner = call.args[0] if call.args else None
        return _WRAPPERS[callee] or (_kind_of(module, inner) if isinstance(inner, ast.Call) else "") or ""
    return "wsgi" if callee.endswith(".make_wsgi_app") else _FRAMEWORKS.get(callee)  # Pyramid's configurator


def _assigned_calls(module: Module) -> Iterator[tuple[str, ast.Call, int]]:
    for node in walk_top(module.tree.body):
        targets = node.targets if isinstance(node, ast.Assign) else ()
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            targets = [node.target]
        value = getattr(node, "value", None)
        if isinstance(value, ast.Call):
            for target in targets:
                if isinstance(target, ast.Name):
                    yield target.id, value, node.lineno


def _factories(tree: SourceTree) -> Iterator[tuple[str, Candidate]]:
    """Functions with a usual name that need no argument and make an application of a known framework."""
    for module in tree.modules.values():
        for node in walk_top(module.tree.body):
            if isinstance(node, ast.FunctionDef) and node.name in _FACTORIES and _needs_nothing(node.args):
                calls = [call for call in ast.walk(node) if isinstance(call, ast.Call)]
                kinds = [kind for call in calls if (kind := _FRAMEWORKS.get(module.whole_name(call.func)))]
                if kinds:
                    target, place = f"{module.name}:{node.name}()", f"{module.path}:{node.lineno}"
                    yield f"{module.name}.{node.name}", Candidate(target, kinds[0], place)


def _needs_nothing(arguments: ast.arguments) -> bool:
    positional = len(arguments.posonlyargs) + len(arguments.args)
    return positional == len(arguments.defaults) and None not in arguments.kw_defaults


def _inside_another(module: Module) -> set[str]:
    """Names of applications that are mounted in another one, or wrapped under another name."""
    mounts = {
        argument.id
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "mount"
        for argument in (*node.args, *(keyword.value for keyword in node.keywords))
        if isinstance(argument, ast.Name)
    }
    wrapped = {
        argument.id
        for name, call, _ in _assigned_calls(module)
        if module.whole_name(call.func) in _WRAPPERS
        for argument in call.args[:1]
        if isinstance(argument, ast.Name) and argument.id != name
    }
    return mounts | wrapped


def _last(module: Module) -> str:
    return module.name.rpartition(".")[2]

"""What else a deployment needs to know of an application, each fact with the place it was found at."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from mks_deploy.init.candidates import Candidate, django_settings
from mks_deploy.init.source_tree import Module, SourceTree, called_name, walk_top
from mks_deploy.settings.application_secrets import SERVER_SECRETS
from mks_deploy.settings.application_variables import looks_secret

__all__ = ["Fact", "find_facts"]

_READY: Final = ("readyz", "ready", "healthz", "health", "up", "livez", "status")
_LIVE: Final = ("livez", "live", "healthz", "health", "up", "readyz", "ready", "status")
_POSTGRESQL: Final = ("psycopg", "psycopg2", "psycopg2-binary", "asyncpg", "pg8000")
_REDIS: Final = ("redis", "django-redis", "flask-session", "celery", "rq", "hiredis")
_OF_THE_SYSTEM: Final = frozenset({"HOME", "PATH", "PORT", "LANG", "TZ", "USER", "DJANGO_SETTINGS_MODULE"})
_REDIS_NAMES: Final = {
    "REDIS_URL": "redis_url",
    "CACHE_URL": "cache_url",
    "CELERY_BROKER_URL": "celery_broker_url",
}


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of ``deploy.toml``.

    Attributes:
        table: its table.
        key: its key.
        value: its value; ``None`` if the operator has to provide it: the line is then a comment.
        evidence: where it was found; empty if it is what to use when nothing was found.
    """

    table: str
    key: str
    value: object
    evidence: str


def find_facts(tree: SourceTree, candidate: Candidate) -> Iterator[Fact]:
    """Yield the facts found in the source, in the order of the file."""
    settings, place = django_settings(tree)
    celery = next(_celery(tree), None)
    reads = dict(_variables_read(tree))
    needs, why = _needs(tree, reads)
    yield Fact("app", "needs", needs, why)
    yield from _static(tree, candidate, settings)
    for key, names in (("live", _LIVE), ("ready", _READY)):
        found = _health(tree, names)
        yield Fact("app", key, *(found or ("/", "")))
    if migrate := _migrate(tree, candidate, settings):
        yield migrate
    if settings:
        yield Fact("variables", "DJANGO_SETTINGS_MODULE", settings, place)
    yield from _plain_variables(reads)
    yield from _secrets(reads, needs, tasks=celery is not None)
    if celery:
        yield celery
    yield from _image(tree)


def _needs(tree: SourceTree, reads: dict[str, str]) -> tuple[list[str], str]:
    needs, why = [], []
    for server, names in (("postgresql", _POSTGRESQL), ("redis", _REDIS)):
        if distribution := next((name for name in names if name in tree.requirements), None):
            needs.append(server)
            why.append(f"{distribution} in {tree.requirements[distribution]}")
    for variable, server in (("REDIS_URL", "redis"), ("MKS_REDIS_URL", "redis")):
        if variable in reads and server not in needs:
            needs.append(server)
            why.append(f"{variable} in {reads[variable]}")
    return needs, "; ".join(why)


def _static(tree: SourceTree, candidate: Candidate, settings: str) -> Iterator[Fact]:
    if settings:
        for module in _chain(tree, settings):
            for node in walk_top(module.tree.body):
                if isinstance(node, ast.Assign) and [called_name(each) for each in node.targets] == [
                    "STATIC_ROOT"
                ]:
                    parts = [each.value for each in ast.walk(node.value) if isinstance(each, ast.Constant)]
                    if parts and isinstance(parts[-1], str) and re.fullmatch(r"[\w.-]+", parts[-1]):
                        evidence = (
                            f"STATIC_ROOT in {module.path}:{node.lineno}; run collectstatic in each release"
                        )
                        yield Fact("app", "static", parts[-1], evidence)
                        build = [["python", "manage.py", "collectstatic", "--noinput"]]
                        yield Fact("app", "build", build, "fills STATIC_ROOT; mks-deploy up runs it")
                        return
        return
    package = candidate.target.partition(":")[0].rpartition(".")[0].replace(".", "/")
    whole = candidate.target.partition(":")[0].replace(".", "/")
    for place in dict.fromkeys((f"{whole}/static", f"{package}/static" if package else "static")):
        for root in tree.roots:
            if (root / place).is_dir():
                yield Fact(
                    "app", "static", str((root / place).relative_to(tree.folder)), "the folder is there"
                )
                return


def _chain(tree: SourceTree, name: str, depth: int = 0) -> Iterator[Module]:
    """Yield a settings module, and those that it takes everything from."""
    module = tree.modules.get(name)
    if module is None or depth > 5:
        return
    yield module
    for node in walk_top(module.tree.body):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            yield from _chain(tree, module.imported["*"].removesuffix(".*"), depth + 1)


def _health(tree: SourceTree, names: tuple[str, ...]) -> tuple[str, str] | None:
    """Return the first known address that a route is declared for."""
    routes: dict[str, tuple[str, str]] = {}
    for module in tree.modules.values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and _declares_route(node):
                for each in node.args[:2]:
                    if isinstance(each, ast.Constant) and isinstance(each.value, str):
                        path = f"/{each.value.lstrip('/')}"
                        routes.setdefault(path.strip("/"), (path, f"{module.path}:{node.lineno}"))
    return next((routes[name] for name in names if name in routes), None)


def _declares_route(node: ast.Call) -> bool:
    name = called_name(node.func).rpartition(".")[2]
    return name in {
        "route",
        "get",
        "api_route",
        "add_url_rule",
        "add_api_route",
        "add_route",
        "path",
        "Route",
    }


def _migrate(tree: SourceTree, candidate: Candidate, settings: str) -> Fact | None:
    if settings and (tree.folder / "manage.py").is_file():
        return Fact("app", "migrate", ["python", "manage.py", "migrate", "--noinput"], "manage.py")
    if "flask-migrate" in tree.requirements:
        evidence = f"flask-migrate in {tree.requirements['flask-migrate']}"
        return Fact("app", "migrate", ["flask", "--app", candidate.target, "db", "upgrade"], evidence)
    if (tree.folder / "alembic.ini").is_file():
        return Fact("app", "migrate", ["alembic", "upgrade", "head"], "alembic.ini")
    return None


def _variables_read(tree: SourceTree) -> Iterator[tuple[str, str]]:
    """Yield the environment variables that the source reads, each with its first place."""
    seen = set[str]()
    for module in tree.modules.values():
        for node in ast.walk(module.tree):
            name = _variable(module, node) if isinstance(node, ast.Subscript | ast.Call) else None
            if isinstance(name, ast.Constant) and isinstance(name.value, str) and name.value.isupper():
                if name.value not in seen:
                    yield name.value, f"{module.path}:{name.lineno}"
                seen.add(name.value)


def _variable(module: Module, node: ast.Subscript | ast.Call) -> ast.expr | None:
    """Return the name that an expression reads from the environment."""
    if isinstance(node, ast.Subscript):
        return node.slice if module.whole_name(node.value) == "os.environ" else None
    function = module.whole_name(node.func)
    # env("NAME") and config("NAME") are those of django-environ and python-decouple.
    known = function in {"os.environ.get", "os.getenv"} or function.rpartition(".")[2] in {"env", "config"}
    return node.args[0] if known and node.args else None


def _secrets(reads: dict[str, str], needs: list[str], *, tasks: bool) -> Iterator[Fact]:
    given = {
        "DATABASE_URL": "postgresql" in needs,
        **{
            name: tasks if file == "celery_broker_url" else "redis" in needs
            for name, file in _REDIS_NAMES.items()
        },
    }
    for name, place in sorted(reads.items()):
        plain = name.removesuffix("_FILE")
        way = "file" if name.endswith("_FILE") else "variable"
        if name.startswith("MKS_") or (plain != name and plain in reads):
            continue  # the library accepts both forms of its own variables
        if plain in given:
            if given[plain]:
                file = _REDIS_NAMES.get(plain)
                yield Fact("secrets", plain, {"as": way, "from": file} if file else way, place)
        elif looks_secret(plain) and plain not in SERVER_SECRETS.values():
            yield Fact("secrets", plain, way, place)


def _plain_variables(reads: dict[str, str]) -> Iterator[Fact]:
    for name, place in sorted(reads.items()):
        known = name in _REDIS_NAMES or name in SERVER_SECRETS.values() or name.startswith("MKS_")
        if not known and not looks_secret(name.removesuffix("_FILE")) and name not in _OF_THE_SYSTEM:
            yield Fact("variables", name, None, f"read in {place}")


def _image(tree: SourceTree) -> Iterator[Fact]:
    """Yield what the image is built from: packages by pip where the project is one, else the files themselves."""
    tops = {module.path.partition("/")[0] for module in tree.modules.values()}
    if "build-system" in tree.project and "project" in tree.project:
        yield Fact("image", "install", ["."], "pyproject.toml has a [build-system]")
        tops |= {"pyproject.toml"} | {name for name in ("README.md",) if (tree.folder / name).is_file()}
    if tops:
        yield Fact("image", "files", sorted(tops), "folders and files of the modules")


def _celery(tree: SourceTree) -> Iterator[Fact]:
    for module in tree.modules.values():
        for node in walk_top(module.tree.body):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                name = called_name(node.targets[0])
                if (
                    module.whole_name(node.value.func) in {"celery.Celery", "celery.app.Celery"}
                    and name.isidentifier()
                ):
                    yield Fact(
                        "tasks", "application", f"{module.name}:{name}", f"{module.path}:{node.lineno}"
                    )

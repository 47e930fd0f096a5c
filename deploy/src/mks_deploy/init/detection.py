"""What else a deployment needs to know of an application, each fact with the place it was found at."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from mks_deploy.init.candidates import DEVELOPMENT, Candidate, django_settings
from mks_deploy.init.source_tree import Module, SourceTree, called_name, walk_top
from mks_deploy.settings.application_variables import looks_secret

__all__ = ["Fact", "find_facts"]

_READY: Final = ("readyz", "ready", "healthz", "health", "up", "livez", "status")
_LIVE: Final = ("livez", "live", "healthz", "health", "up", "readyz", "ready", "status")
_OF_THE_SYSTEM: Final = frozenset({"HOME", "PATH", "PORT", "LANG", "TZ", "USER", "DJANGO_SETTINGS_MODULE"})
_OF_OTHERS: Final = re.compile(r"(^|_)(DEV|TEST)(_|$)")
_PATH_FUNCTIONS: Final = frozenset(
    {"Path", "PurePath", "abspath", "dirname", "join", "normpath", "realpath", "str"}
)
_UPLOADS: Final = frozenset({"UPLOAD_FOLDER", "UPLOAD_DIR", "UPLOADS_FOLDER", "UPLOADS_DIR"})
_ENVS: Final = frozenset({"environ.Env", "environ.FileAwareEnv", "environs.Env"})
# The default names of django-environ's and dj-database-url's functions.
_BY_DEFAULT: Final = {
    "db": "DATABASE_URL",
    "db_url": "DATABASE_URL",
    "cache": "CACHE_URL",
    "cache_url": "CACHE_URL",
    "email": "EMAIL_URL",
    "email_url": "EMAIL_URL",
}
_ADDRESSES: Final = {
    "database_url": re.compile(r"(.*_)?(DATABASE|DB|PG|POSTGRES|POSTGRESQL)_(DSN|URI|URL)"),
    "redis_url": re.compile(r"(.*_)?REDIS_(DSN|URI|URL)"),
    "cache_url": re.compile(r"(.*_)?CACHE_URL"),
    "celery_broker_url": re.compile(r"(.*_)?BROKER_URL"),
}
"""Variables of the application that hold the address of a server, by the secret of the kit with that address."""


@dataclass(frozen=True, slots=True)
class _Server:
    """By what the source shows that it needs a server: distributions, imports, an address, texts."""

    name: str
    distributions: tuple[str, ...]
    imports: tuple[str, ...]
    address: str
    text: re.Pattern[str]


_SERVERS: Final = (
    _Server(
        "postgresql",
        ("psycopg", "psycopg2", "psycopg2-binary", "asyncpg", "pg8000"),
        ("psycopg", "psycopg2", "asyncpg", "pg8000", "pydantic.PostgresDsn"),
        "database_url",
        re.compile(r"postgres(ql)?(\+\w+)?://|postgresql\+\w+$|django\.(contrib\.gis\.)?db\.backends\.postg"),
    ),
    _Server(
        "redis",
        ("redis", "django-redis", "flask-session", "celery", "rq", "hiredis"),
        ("redis", "django_redis", "celery", "rq", "pydantic.RedisDsn"),
        "redis_url",
        re.compile(r"rediss?://|django_redis\.|channels_redis\.|django\.core\.cache\.backends\.redis"),
    ),
)

_SQLITE: Final = re.compile(
    r"sqlite(\+\w+)?:///(?!:memory:)|django\.(contrib\.gis\.)?db\.backends\.(sqlite3|spatialite)"
)
_CONNECT: Final = frozenset({"sqlite3.connect", "aiosqlite.connect"})
_SQLITE_URL: Final = re.compile(r"sqlite(?:\+\w+)?:///(?!:memory:)(?:file:)?([^?]*)")


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of ``deploy.toml``.

    Attributes:
        table: its table.
        key: its key.
        value: its value.
        evidence: where it was found; empty if it is what to use when nothing was found.
        is_open: whether the operator decides about it: the line is then a comment.
    """

    table: str
    key: str
    value: object
    evidence: str
    is_open: bool = False


@dataclass(frozen=True, slots=True)
class _Variable:
    """An environment variable that the source reads.

    Attributes:
        place: where.
        required: whether the application fails without it.
        default: expression of its default; ``None`` if none is seen.
        is_secret: whether its type says so.
    """

    place: str
    required: bool
    default: ast.expr | None = None
    is_secret: bool = False


def find_facts(tree: SourceTree, candidate: Candidate) -> Iterator[Fact]:
    """Yield the facts found in the source, in the order of the file."""
    settings, place = django_settings(tree)
    modules = _deployed(tree, settings)
    celery = next(_celery(tree), None)
    reads = dict(_variables_read(modules))
    needs = dict(_needs(tree, modules, reads))
    yield Fact("app", "needs", list(needs), "; ".join(needs.values()))
    yield from _static(tree, candidate, settings)
    yield from _media(tree, modules, settings)
    for key, names in (("live", _LIVE), ("ready", _READY)):
        found = _health(tree, names)
        yield Fact("app", key, *(found or ("/", "")))
    if migrate := _migrate(tree, modules, candidate, settings):
        yield migrate
    if settings:
        evidence = "; ".join([place, *_of_a_laptop(tree, settings)])
        yield Fact("variables", "DJANGO_SETTINGS_MODULE", settings, evidence)
    yield from _variables_and_secrets(reads, {*needs, *(("tasks",) if celery else ())})
    if "postgresql" not in needs:
        yield from _sqlite(modules)
    elif not settings:
        yield from _database_scheme(tree, modules)
    if celery:
        yield celery
    yield from _image(tree)


def _of_a_laptop(tree: SourceTree, settings: str) -> Iterator[str]:
    """Yield what ``django-admin startproject`` leaves in the settings, and no site can have."""
    chain = reversed(list(_chain(tree, settings)))
    assigned = {name: (module, value) for module in chain for name, value in _assigned(module)}
    for name, text, reason in (
        ("DEBUG", "True", "shows every visitor the source: read it from a variable"),
        ("ALLOWED_HOSTS", "[]", "refuses every visitor: name the host"),
    ):
        module, value = assigned.get(name, (None, None))
        if module and value and ast.unparse(value) == text:
            yield f"{name} = {text} in {module.path}:{value.lineno} {reason}"
    module, value = assigned.get("SECRET_KEY", (None, None))
    if module and isinstance(value, ast.Constant) and value.value:
        yield f"SECRET_KEY in {module.path}:{value.lineno} is in git: read it from a variable"
    if "STATIC_ROOT" not in assigned:
        yield "no STATIC_ROOT: nobody serves the styles of packages, such as the admin's"


def _deployed(tree: SourceTree, settings: str) -> list[Module]:
    """Return the modules that a server runs: without the settings of other environments."""
    used = {module.name for module in _chain(tree, settings)}
    return [
        module
        for module in tree.modules.values()
        if module.name in used or module.name.rpartition(".")[2] not in DEVELOPMENT
    ]


def _needs(tree: SourceTree, modules: list[Module], reads: dict[str, _Variable]) -> Iterator[tuple[str, str]]:
    """Yield the servers, each with the place that shows it."""
    for server in _SERVERS:
        addresses = (name for name in reads if _address_of(name) == server.address)
        if distribution := next((name for name in server.distributions if name in tree.requirements), None):
            yield server.name, f"{distribution} in {tree.requirements[distribution]}"
        elif name := next(addresses, None):
            yield server.name, f"{name} in {reads[name].place}"
        elif place := _imports(modules, server.imports) or _text(modules, server.text):
            yield server.name, place


def _sqlite(modules: list[Module]) -> Iterator[Fact]:
    """Yield the file of SQLite; as an open line if its path is not known."""
    place = _text(modules, _SQLITE)
    known = {name: (module, value) for module in modules for name, value in _assigned_anywhere(module)}
    for module in modules:
        own = known | {name: (module, value) for name, value in _assigned(module)}
        for node in ast.walk(module.tree):
            file = _sqlite_file(module, node) if isinstance(node, ast.expr) else None
            path = _path(module, file, own) if file else None
            if not (file and path and path.parts) or path.is_absolute() or {"..", ":memory:"} & {*path.parts}:
                continue
            if isinstance(node, ast.Constant) and _imports(modules, ("flask_sqlalchemy",)):
                path = PurePosixPath("instance", path)
            evidence = f"{module.path}:{file.lineno}; a link to a file that the backup holds"
            yield Fact("stores", "sqlite", str(path), evidence)
            return
    if place:
        yield Fact("stores", "sqlite", "", f"{place}; fill in its path below the source tree", is_open=True)


def _sqlite_file(module: Module, node: ast.expr) -> ast.expr | None:
    """Return what an expression gives as the file of SQLite; ``None`` if it gives none."""
    match node:
        case ast.Dict(keys=keys, values=values):
            pairs = zip(keys, values, strict=True)
            given = {key.value: value for key, value in pairs if isinstance(key, ast.Constant)}
            engine = given.get("ENGINE")
            if isinstance(engine, ast.Constant) and _SQLITE.match(str(engine.value)):
                return given.get("NAME")
        case ast.Constant(value=str(text)) if (found := _SQLITE_URL.match(text)) and found[1]:
            return ast.copy_location(ast.Constant(found[1]), node)
        case ast.JoinedStr(values=[ast.Constant(value=str(text)), *rest]) if found := _SQLITE_URL.fullmatch(
            text
        ):
            return ast.copy_location(ast.JoinedStr([ast.Constant(found[1]), *rest]), node)
        case ast.BinOp(left=ast.Constant(value=str(text)), op=ast.Add(), right=right) if (
            found := _SQLITE_URL.fullmatch(text)
        ) and not found[1]:
            return right
        case ast.Call(func=function, args=[file, *_]) if module.whole_name(function) in _CONNECT:
            return file
    return None


def _imports(modules: list[Module], names: tuple[str, ...]) -> str:
    """Return the first import of one of these names, and where it is; empty without one."""
    for module in modules:
        for whole in module.imported.values():
            if any(f"{whole}.".startswith(f"{name}.") for name in names):
                return f"{whole} imported in {module.path}"
    return ""


def _text(modules: list[Module], pattern: re.Pattern[str]) -> str:
    """Return the beginning of the first text that matches, and where it is; empty without one."""
    for module in modules:
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
                continue
            if found := pattern.match(node.value):
                return f"{found[0]} in {module.path}:{node.lineno}"
    return ""


def _address_of(name: str) -> str:
    """Return the secret of the kit whose address a variable holds; empty if it holds none."""
    return next((file for file, names in _ADDRESSES.items() if names.fullmatch(name)), "")


def _database_scheme(tree: SourceTree, modules: list[Module]) -> Iterator[Fact]:
    """Yield how ``DATABASE_URL`` has to begin for SQLAlchemy, which chooses its driver by that."""
    place = _imports(modules, ("sqlalchemy", "flask_sqlalchemy", "sqlmodel"))
    awaited = _imports(modules, ("sqlalchemy.ext.asyncio",))
    if awaited and ("asyncpg" in tree.requirements or _text(modules, re.compile(r"postgresql\+asyncpg"))):
        yield Fact("stores", "database_scheme", "postgresql+asyncpg", f"{awaited}; asyncpg")
    elif place and (awaited or not {"psycopg2", "psycopg2-binary"} & tree.requirements.keys()):
        yield Fact("stores", "database_scheme", "postgresql+psycopg", f"{place}; no psycopg2")


def _static(tree: SourceTree, candidate: Candidate, settings: str) -> Iterator[Fact]:
    if settings:
        yield from _django_static(tree, settings)
        return
    target = PurePosixPath(candidate.target.partition(":")[0].replace(".", "/"))
    # That of the target's package; else the only one of the highest package that has one.
    own = [root / place / "static" for place in (target, target.parent) for root in tree.roots]
    packages = {(tree.folder / module.path).parent / "static" for module in tree.modules.values()}
    others = sorted((place for place in packages if place.is_dir()), key=lambda place: len(place.parts))
    highest = [place for place in others if len(place.parts) == len(others[0].parts)]
    if place := next((place for place in own if place.is_dir()), highest[0] if len(highest) == 1 else None):
        yield Fact("app", "static", str(place.relative_to(tree.folder)), "the folder is there")


def _django_static(tree: SourceTree, settings: str) -> Iterator[Fact]:
    chain = reversed(list(_chain(tree, settings)))
    assigned = {name: (module, value) for module in chain for name, value in _assigned(module)}
    for name in ("STATIC_ROOT", "STATICFILES_DIRS"):
        module, value = assigned.get(name, (None, None))
        if module is None or value is None:
            continue
        path = _path(module, next(iter(getattr(value, "elts", [value])), value), assigned)
        if path is None or path.is_absolute() or ".." in path.parts or not path.parts:
            continue
        place = f"{name} in {module.path}:{value.lineno}"
        manage = _manage(tree)
        if name == "STATIC_ROOT" and manage:
            yield Fact("app", "static", str(path), f"{place}; run collectstatic in each release")
            build = [["python", manage, "collectstatic", "--noinput"]]
            yield Fact("app", "build", build, "fills STATIC_ROOT; mks-deploy up runs it")
        else:
            yield Fact("app", "static", str(path), f"{place}; collectstatic would add those of packages")
        return


def _media(tree: SourceTree, modules: list[Module], settings: str) -> Iterator[Fact]:
    """Yield where the application writes what users hand in, and where they are to read it."""
    chain = list(_chain(tree, settings))
    assigned = {name: (module, value) for module in reversed(chain) for name, value in _assigned(module)}
    found = [assigned["MEDIA_ROOT"]] if "MEDIA_ROOT" in assigned else []
    found += [
        (module, value)
        for module in modules
        for name, value in _assigned_anywhere(module)
        if name in _UPLOADS
    ]
    for module, value in found:
        path = _path(module, value, assigned or {name: (module, each) for name, each in _assigned(module)})
        if path is None or path.is_absolute() or ".." in path.parts or not path.parts:
            continue
        place = f"{module.path}:{value.lineno}"
        yield Fact("media", "folder", str(path), f"written to in {place}; a link to /var/lib/NAME/uploads")
        _, _, below_static = f"/{path}".partition("/static/")
        given = assigned["MEDIA_URL"][1] if "MEDIA_URL" in assigned else ast.Constant("")
        text = given.value if isinstance(given, ast.Constant) else ""
        url = f"static/{below_static}" if below_static else str(text).strip("/")
        if url and "://" not in url:
            yield Fact(
                "media", "url", f"/{url}/", "everybody may read them, except those in its folder private"
            )
        return


def _assigned_anywhere(module: Module) -> Iterator[tuple[str, ast.expr]]:
    """Yield names and keys, such as those of ``app.config``, with the values that they get."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                match target:
                    case ast.Name(id=name) | ast.Subscript(slice=ast.Constant(value=str(name))):
                        yield name, node.value
        elif isinstance(node, ast.keyword) and node.arg and node.arg.isupper():  # app.config.update(...)
            yield node.arg, node.value


def _path(
    module: Module, node: ast.expr, assigned: Mapping[str, tuple[Module, ast.expr]], depth: int = 0
) -> PurePosixPath | None:
    """Return the path below the source tree that an expression of pathlib or os.path names; ``None`` if unknown."""
    if depth > 20:
        return None

    def read(*nodes: ast.expr) -> PurePosixPath | None:
        paths = [_path(module, each, assigned, depth + 1) for each in nodes]
        return None if None in paths or not paths else PurePosixPath(*filter(None, paths))

    match node:
        case ast.Constant(value=str(text)):
            return PurePosixPath(text)
        case ast.Name(id="__file__"):
            return PurePosixPath(module.path)
        case ast.Name(id=name) if name in assigned:
            return _path(*assigned[name], assigned, depth + 1)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return read(left, right)
        case ast.JoinedStr(values=values):
            parts = [
                each.value if isinstance(each, ast.Constant) else _path(module, each, assigned, depth + 1)
                for each in values
            ]
            return None if None in parts else PurePosixPath("".join(map(str, parts)))
        case ast.FormattedValue(value=inner):
            return read(inner)
        case ast.Subscript(slice=ast.Constant(value=str(name))) if name in assigned:
            return _path(*assigned[name], assigned, depth + 1)  # app.config["DATABASE"]
        case ast.Attribute(attr="instance_path"):
            return PurePosixPath("src" * module.path.startswith("src/"), "instance")
        case ast.Attribute(value=inner, attr="parent"):
            return path.parent if (path := read(inner)) and path.parts else None
        case ast.Subscript(
            value=ast.Attribute(value=inner, attr="parents"), slice=ast.Constant(value=int(number))
        ):
            path = read(inner)
            return path.parents[number] if path and number < len(path.parents) else None
        case ast.Call(func=ast.Attribute(value=inner, attr="resolve" | "absolute" | "as_posix")):
            return read(inner)
        case ast.Call(func=ast.Attribute(value=inner, attr="joinpath"), args=words):
            return read(inner, *words)
        case ast.Call(func=function, args=words):
            name = called_name(function).rpartition(".")[2]
            path = read(*words) if name in _PATH_FUNCTIONS else None
            return path.parent if path and name == "dirname" else path
    return None


def _assigned(module: Module) -> Iterator[tuple[str, ast.expr]]:
    for node in walk_top(module.tree.body):
        if isinstance(node, ast.Assign):
            yield from ((each.id, node.value) for each in node.targets if isinstance(each, ast.Name))


def _manage(tree: SourceTree) -> str:
    """Return Django's ``manage.py``; empty without one."""
    files = (root / "manage.py" for root in tree.roots)
    return next((str(file.relative_to(tree.folder)) for file in files if file.is_file()), "")


def _chain(tree: SourceTree, name: str, depth: int = 0) -> Iterator[Module]:
    """Yield a settings module, and those that it takes everything from."""
    module = tree.modules.get(name)
    if module is None or depth > 5:
        return
    yield module
    for node in walk_top(module.tree.body):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            yield from _chain(tree, module.origin(node), depth + 1)


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


def _migrate(tree: SourceTree, modules: list[Module], candidate: Candidate, settings: str) -> Fact | None:
    if settings and (manage := _manage(tree)):
        evidence = f"{manage}; the first user, on the host: mks-deploy app python {manage} createsuperuser"
        return Fact("app", "migrate", ["python", manage, "migrate", "--noinput"], evidence)
    if place := _imports(modules, ("flask_migrate",)):
        return Fact("app", "migrate", ["flask", "--app", candidate.target, "db", "upgrade"], place)
    packages = {(tree.folder / module.path).parent for module in modules}
    folders = (tree.folder, tree.folder / "alembic", tree.folder / "migrations", *sorted(packages))
    file = next((each for folder in folders if (each := folder / "alembic.ini").is_file()), None)
    if file is None and "alembic" not in tree.project.get("tool", {}):
        return None
    name = str(file.relative_to(tree.folder)) if file else "pyproject.toml"
    given = ("-c", name) if "/" in name else ()
    return Fact("app", "migrate", ["alembic", *given, "upgrade", "head"], name)


def _variables_read(modules: list[Module]) -> Iterator[tuple[str, _Variable]]:
    """Yield the environment variables that the source reads, each with its first place."""
    seen = set[str]()
    classes = {
        f"{module.name}.{node.name}": (module, node)
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
    }
    for module in modules:
        for node in ast.walk(module.tree):
            found: Iterable[tuple[str, _Variable]] = ()
            if isinstance(node, ast.Subscript | ast.Call):
                found = _read(module, node)
            elif isinstance(node, ast.ClassDef):
                found = _fields(f"{module.name}.{node.name}", classes)
            for name, variable in found:
                if name not in seen and not _OF_OTHERS.search(name):
                    yield name, variable
                seen.add(name)


def _read(module: Module, node: ast.Subscript | ast.Call) -> Iterator[tuple[str, _Variable]]:
    """Yield what an expression reads by os, django-environ, environs, python-decouple or dj-database-url."""
    name: ast.expr | None = None
    default: ast.expr | None = None
    required = True
    if isinstance(node, ast.Subscript):
        name = node.slice if module.whole_name(node.value) == "os.environ" else None
    else:
        function = module.whole_name(node.func)
        before, _, last = function.rpartition(".")
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        name, second = (*node.args[:2], None, None)[:2]
        default = given.get("default", second)
        if function in _ENVS:
            # environ.Env(DEBUG=(bool, False)): types and defaults
            for key, value in given.items():
                if key and key.isupper() and isinstance(value, ast.Tuple) and value.elts:
                    yield (
                        key,
                        _Variable(f"{module.path}:{value.lineno}", required=False, default=value.elts[-1]),
                    )
            return
        if function in {"os.environ.get", "os.getenv"}:
            required = False
        elif function == "dj_database_url.config":
            name = given.get("env", name) or ast.Constant("DATABASE_URL")
        elif last == "env":
            default = given.get("default", second if isinstance(second, ast.Constant) else None)  # or a type
        elif isinstance(node.func, ast.Attribute) and (
            before.rpartition(".")[2] == "env"
            or (isinstance(node.func.value, ast.Call) and module.whole_name(node.func.value.func) in _ENVS)
        ):
            name = name or ast.Constant(_BY_DEFAULT.get(node.func.attr, ""))
        elif last != "config":
            return
    if isinstance(name, ast.Constant) and isinstance(name.value, str) and name.value.isupper():
        place = f"{module.path}:{node.lineno}"
        yield name.value, _Variable(place, required=required and default is None, default=default)


def _fields(name: str, classes: Mapping[str, tuple[Module, ast.ClassDef]]) -> Iterator[tuple[str, _Variable]]:
    """Yield the variables of a class of pydantic-settings; none of another class."""
    ancestry = list(_ancestry(name, classes))
    if not any(each.startswith("pydantic") and each.endswith(".BaseSettings") for each in ancestry):
        return
    prefixes = (_prefix(classes[each][1]) for each in ancestry if each in classes)
    prefix = next((each for each in prefixes if each is not None), "")
    module, node = classes[name]
    for each in node.body:
        if not (isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)):
            continue
        types = {
            called_name(part).rpartition(".")[2]
            for part in ast.walk(each.annotation)
            if isinstance(part, ast.expr)
        }
        if each.target.id.startswith("_") or each.target.id == "model_config" or "ClassVar" in types:
            continue
        calls = [part for part in ast.walk(each) if isinstance(part, ast.Call)]
        field = next((call for call in calls if module.whole_name(call.func).endswith(".Field")), None)
        given = {keyword.arg: keyword.value for keyword in field.keywords} if field else {}
        default = each.value
        if field and default in {field, None}:
            default = given.get("default", given.get("default_factory", next(iter(field.args), None)))
        alias = next((given[key] for key in ("validation_alias", "alias", "env") if key in given), None)
        texts = [part.value for part in ast.walk(alias) if isinstance(part, ast.Constant)] if alias else []
        required = default is None or (isinstance(default, ast.Constant) and default.value is ...)
        is_secret = any(kind.startswith("Secret") or kind.endswith("Dsn") for kind in types)
        yield (
            str(texts[0] if texts else prefix + each.target.id).upper(),
            _Variable(f"{module.path}:{each.lineno}", required, default, is_secret),
        )


def _ancestry(name: str, classes: Mapping[str, tuple[Module, ast.ClassDef]], depth: int = 0) -> Iterator[str]:
    """Yield the whole name of a class, and those of the classes that it inherits from."""
    yield name
    if name in classes and depth < 10:
        module, node = classes[name]
        for base in node.bases:
            whole = module.whole_name(base)
            yield from _ancestry(whole if "." in whole else f"{module.name}.{whole}", classes, depth + 1)


def _prefix(node: ast.ClassDef) -> str | None:
    """Return the ``env_prefix`` in ``model_config`` or ``Config`` of a class, or among its arguments."""
    for each in ast.walk(node):
        if isinstance(each, ast.keyword | ast.Assign) and isinstance(each.value, ast.Constant):
            key = each.arg if isinstance(each, ast.keyword) else called_name(each.targets[0])
            if key == "env_prefix":
                return str(each.value.value)
    return None


def _variables_and_secrets(reads: dict[str, _Variable], has: set[str]) -> Iterator[Fact]:
    """Yield the tables ``[variables]`` and ``[secrets]``.

    Args:
        reads: what the source reads.
        has: servers that the application needs, and ``tasks`` if it has a queue.
    """
    of_server = {"database_url": "postgresql", "celery_broker_url": "tasks"}
    for name, variable in sorted(reads.items()):
        plain = name.removesuffix("_FILE")
        way = "file" if name.endswith("_FILE") else "variable"
        if name.startswith("MKS_") or name in _OF_THE_SYSTEM or (plain != name and plain in reads):
            continue  # the library accepts both forms of its own variables
        file = _address_of(plain)
        default = variable.default.value if isinstance(variable.default, ast.Constant) else ...
        if file and of_server.get(file, "redis") in has:
            yield Fact(
                "secrets",
                plain,
                way if plain == "DATABASE_URL" else {"as": way, "from": file},
                variable.place,
            )
        elif variable.is_secret or looks_secret(plain):
            # An empty default means that the application works without; nobody works without SECRET_KEY.
            is_open = not default and not plain.endswith("SECRET_KEY")
            yield Fact("secrets", plain, way, variable.place, is_open=is_open)
        else:
            text = "" if default in {..., None} else str(default)
            evidence = f"read in {variable.place}{', no default' * variable.required}"
            yield Fact("variables", name, text, evidence, is_open=True)


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

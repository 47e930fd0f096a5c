"""Files of a deployment, told apart by name and content, and parsed: the formats beside nginx and gunicorn are small."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from mks_check.production_check.gunicorn_file import GunicornFile, parse_gunicorn
from mks_check.production_check.nginx_syntax import NginxTree, parse_nginx

__all__ = ["ConfigFiles", "KeyValueFile", "LogrotateRule", "SystemdUnit", "kind_of", "parse_files"]

Kind = Literal[
    "nginx",
    "gunicorn",
    "systemd",
    "logrotate",
    "redis",
    "postgresql",
    "pg_hba",
    "dockerfile",
    "compose",
    "env",
    "deploy",
]

_SYSTEMD: Final = (".service", ".socket", ".timer")
_QUIET: Final = ("#", ";")


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemdUnit:
    """A unit: its values by section and name, in order, with their lines."""

    path: str
    entries: tuple[tuple[str, str, str, int], ...]

    def values(self, name: str, section: str = "Service") -> list[tuple[str, int]]:
        """Return the values of a setting; an empty one resets those before it."""
        found: list[tuple[str, int]] = []
        for where, key, value, line in self.entries:
            if where == section and key == name:
                found = [*found, (value, line)] if value else []
        return found

    def value(self, name: str) -> str:
        """Return the last value of a setting; empty if there is none."""
        found = self.values(name)
        return found[-1][0] if found else ""

    @property
    def command(self) -> str:
        """The commands that it starts."""
        return " ".join(value for value, _ in self.values("ExecStart"))


@dataclass(frozen=True, slots=True, kw_only=True)
class LogrotateRule:
    """One rule of logrotate: patterns of files and directives."""

    path: str
    line: int
    patterns: tuple[str, ...]
    directives: Mapping[str, str]
    comments: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyValueFile:
    """A file of names and values, such as ``redis.conf``; the last value of a name counts, ``all`` has every line."""

    path: str
    values: Mapping[str, str]
    lines: Mapping[str, int]
    all: tuple[tuple[str, str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFiles:
    """Parsed files of a deployment.

    Attributes:
        nginx: all nginx files; ``None`` if there are none.
        gunicorn: configuration files of gunicorn.
        units: systemd units.
        rules: rules of logrotate.
        redis: configuration files of Redis.
        postgresql: configuration files of PostgreSQL.
        pg_hba: files with who may connect to PostgreSQL.
        dockerfiles: instructions of Dockerfiles: path, instruction, value and line.
        compose: lines of compose files and manifests: path, text and line.
        deploy: tables of ``deploy.toml`` files by path.
        problems: what could not be read: file and reason.
    """

    nginx: NginxTree | None = None
    gunicorn: tuple[GunicornFile, ...] = ()
    units: tuple[SystemdUnit, ...] = ()
    rules: tuple[LogrotateRule, ...] = ()
    redis: tuple[KeyValueFile, ...] = ()
    postgresql: tuple[KeyValueFile, ...] = ()
    pg_hba: tuple[KeyValueFile, ...] = ()
    dockerfiles: tuple[tuple[str, tuple[tuple[str, str, int], ...]], ...] = ()
    compose: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] = ()
    deploy: tuple[tuple[str, Mapping[str, object]], ...] = ()
    problems: tuple[tuple[str, str], ...] = field(default=())


def kind_of(path: str, text: str) -> Kind | None:
    """Return what a file is, by its path and then by its content; ``None`` if nothing here reads it."""
    name = path.rpartition("/")[2].lower()
    if name == "deploy.toml":
        return "deploy"
    if name.endswith(_SYSTEMD):
        return "systemd"
    if name.startswith("dockerfile") and not name.endswith(".dockerignore"):
        return "dockerfile"
    if name.endswith((".yml", ".yaml")):
        return "compose" if re.search(r"(?m)^(?:services:|kind:)", text) else None
    if name.endswith(".py"):
        return (
            "gunicorn"
            if "gunicorn" in name or re.search(r"(?m)^(?:worker_class|wsgi_app|bind)\s*=", text)
            else None
        )
    if name == "pg_hba.conf":
        return "pg_hba"
    if "postgresql" in name and name.endswith(".conf"):
        return "postgresql"
    if name.startswith(("redis", "valkey")) and name.endswith(".conf"):
        return "redis"
    if name == ".env" or name.endswith(".env") or name.startswith(".env."):
        return "env"
    if "logrotate" in path.lower():
        return "logrotate"
    if re.search(
        r"(?m)^\s*(?:server|http|upstream\s+\S+|location\s[^{]*|events)\s*\{|^\s*(?:proxy_pass|error_page|limit_req|map)\s",
        text,
    ):
        return "nginx"
    return "nginx" if "nginx" in path.lower() and name.endswith(".conf") else None


def parse_files(files: Mapping[str, str]) -> ConfigFiles:
    """Return the parsed files; those of no known kind, and environment files, are left out."""
    kinds = {path: kind_of(path, text) for path, text in files.items()}

    def texts(kind: Kind) -> dict[str, str]:
        return {path: text for path, text in files.items() if kinds[path] == kind}

    # gunicorn.conf.py beside a Dockerfile or a manifest listens inside a container.
    containers = {path.rpartition("/")[0] for path in (*texts("dockerfile"), *texts("compose"))}
    nginx_texts = texts("nginx")
    nginx = parse_nginx(nginx_texts) if nginx_texts else None
    gunicorn = tuple(
        parse_gunicorn(text, path, container=path.rpartition("/")[0] in containers)
        for path, text in texts("gunicorn").items()
    )
    rules: list[LogrotateRule] = []
    problems = [
        *(nginx.problems if nginx else ()),
        *((file.path, file.error) for file in gunicorn if file.error),
    ]
    for path, text in texts("logrotate").items():
        found, complaint = _logrotate(text, path)
        rules += found
        problems += [(path, complaint)] if complaint else []
    deploy = tuple(_deploy_files(texts("deploy"), problems))
    return ConfigFiles(
        nginx=nginx,
        gunicorn=gunicorn,
        units=tuple(_unit(text, path) for path, text in texts("systemd").items()),
        rules=tuple(rules),
        redis=tuple(_key_values(text, path, " ") for path, text in texts("redis").items()),
        postgresql=tuple(_key_values(text, path, "=") for path, text in texts("postgresql").items()),
        pg_hba=tuple(_key_values(text, path, " ") for path, text in texts("pg_hba").items()),
        dockerfiles=tuple((path, tuple(_instructions(text))) for path, text in texts("dockerfile").items()),
        compose=tuple(
            (path, tuple((line, number) for number, line in enumerate(text.split("\n"), 1)))
            for path, text in texts("compose").items()
        ),
        deploy=deploy,
        problems=tuple(problems),
    )


def _deploy_files(
    texts: Mapping[str, str], problems: list[tuple[str, str]]
) -> Iterator[tuple[str, Mapping[str, object]]]:
    import tomllib

    for path, text in texts.items():
        try:
            yield path, tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            problems.append((path, f"no TOML ({str(error)[:80]})"))


def _joined(text: str) -> Iterator[tuple[str, int]]:
    """Yield lines without comments and blank ones; a backslash continues a line."""
    begun, start = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith(_QUIET):
            continue
        start = start or number
        if stripped.endswith("\\"):
            begun += stripped[:-1] + " "
            continue
        yield begun + stripped, start
        begun, start = "", 0
    if begun:
        yield begun.strip(), start


def _unit(text: str, path: str) -> SystemdUnit:
    section, entries = "", list[tuple[str, str, str, int]]()
    for line, number in _joined(text):
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
            continue
        name, equals, value = line.partition("=")
        if equals:
            entries.append((section, name.strip(), value.strip(), number))
    return SystemdUnit(path=path, entries=tuple(entries))


def _key_values(text: str, path: str, separator: str) -> KeyValueFile:
    entries: list[tuple[str, str, int]] = []
    for line, number in _joined(text):
        if separator == "=":
            match = re.fullmatch(r"([A-Za-z_.]+)\s*=?\s*(.*)", line)
            if match:
                # A comment may follow a value, quoted or not.
                value = re.sub(r"\s+#.*$", "", match[2]).strip().strip("'")
                entries.append((match[1].lower(), value, number))
        else:
            name, _, value = line.partition(" ")
            entries.append((name.lower(), value.strip(), number))
    return KeyValueFile(
        path=path,
        values={name: value for name, value, _ in entries},
        lines={name: number for name, _, number in entries},
        all=tuple(entries),
    )


def _logrotate(text: str, path: str) -> tuple[list[LogrotateRule], str]:
    """Return the rules, and why the file could not be read to its end."""
    rules: list[LogrotateRule] = []
    patterns: list[str] = []
    directives: dict[str, str] | None = None
    comments: list[int] = []
    start, script = 0, False
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if script:
            script = line != "endscript"
            continue
        if not line or line.startswith("#"):
            continue
        if directives is None:
            start = start if patterns else number
            head, brace, rest = line.partition("{")
            # Global directives stand alone on a line and are no paths.
            if not brace and not line.startswith(("/", '"', "'", "~")) and not patterns:
                continue
            patterns += [word.strip("\"'") for word in head.split()]
            if brace:
                directives = {}
                line = rest.strip()
                if not line:
                    continue
            else:
                continue
        if line == "}":
            rules.append(
                LogrotateRule(
                    path=path,
                    line=start,
                    patterns=tuple(patterns),
                    directives=directives,
                    comments=tuple(comments),
                )
            )
            patterns, directives, comments = [], None, []
            continue
        if line in {"postrotate", "prerotate", "firstaction", "lastaction", "preremove"}:
            directives[line] = ""
            script = True
            continue
        if re.search(r"\s#", line):
            comments.append(number)
        name, _, value = line.partition(" ")
        directives[name] = value.strip()
    if directives is not None or script:
        return rules, "the end comes before '}' or endscript"
    return rules, ""


def _instructions(text: str) -> Iterator[tuple[str, str, int]]:
    for line, number in _joined(text):
        name, _, value = line.partition(" ")
        yield name.upper(), value.strip(), number

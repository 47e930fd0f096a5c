"""Reading of everything that was asked for; what cannot be read is reported, never skipped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mks_check.production_check.facts import Facts, SettingFacts
from mks_hardening._core.environment.variables import Environment

if TYPE_CHECKING:
    from mks_check.production_check.config_files import ConfigFiles

__all__ = ["read_facts"]

_MOST_BYTES: Final = 1_048_576
_MOST_FILES: Final = 2000


def read_facts(
    *,
    environ: Mapping[str, str] | None,
    env_file: str | None,
    app: object,
    files: Sequence[str],
    host: bool,
    url: str | None,
    pages: Iterable[str],
    websocket: str,
    ca_file: str | None,
    body_limit: int | None,
    now: float,
) -> tuple[Facts, list[str]]:
    """Return the facts, and one sentence for each source that could not be read at all; see ``check``."""
    failed: list[str] = []
    unreadable: list[tuple[str, str]] = []
    nothing_else = app is None and not files and url is None
    settings: SettingFacts | None = None
    if env_file is not None:
        settings = _settings_of_file(env_file, failed, unreadable)
    elif environ is not None or nothing_else or app is not None or host:
        from mks_check.production_check.settings_source import setting_facts

        settings = setting_facts(Environment(environ).variables)
    parsed: ConfigFiles | None = None
    if files:
        from mks_check.production_check.config_files import parse_files

        texts = _texts_of(files, failed, unreadable)
        parsed = parse_files(texts)
        unreadable += parsed.problems
        if settings is None:
            settings = _settings_among(texts, unreadable)
    application = None
    if app is not None:
        from mks_check.production_check.application_source import application_facts

        application = application_facts(app)
    live = None
    if url is not None:
        from mks_check.production_check.live_source import live_facts

        live = live_facts(
            url, pages=pages, websocket=websocket, ca_file=ca_file, body_limit=body_limit, now=now, failed=failed
        )  # fmt: skip
    machine = None
    if host:
        from mks_check.production_check.host_source import host_facts

        machine = host_facts(settings, parsed)
    facts = Facts(
        settings=settings,
        application=application,
        files=parsed,
        live=live,
        host=machine,
        unreadable=tuple(unreadable),
    )
    return facts, failed


def _texts_of(paths: Sequence[str], failed: list[str], unreadable: list[tuple[str, str]]) -> dict[str, str]:
    """Return the files that are named, and those below named folders that a check reads."""
    from mks_check.production_check.config_files import kind_of

    found: dict[str, str] = {}
    for given in paths:
        path = Path(given)
        if path.is_dir():
            members = sorted(each for each in path.rglob("*") if each.is_file())
            if len(members) > _MOST_FILES:
                unreadable.append((given, f"more than {_MOST_FILES} files"))
            for each in members[:_MOST_FILES]:
                text = _text(each)
                # A picture or a program is no file of a deployment.
                if text is not None and kind_of(str(each), text) is not None:
                    found[str(each)] = text
                elif text is None and kind_of(str(each), "") is not None:
                    unreadable.append((str(each), "no UTF-8 text of at most 1 MiB"))
            continue
        text = _text(path)
        if text is None:
            failed.append(f"{given} cannot be read")
        elif kind_of(given, text) is None:
            unreadable.append((given, "its name and content are those of no known kind of file"))
        else:
            found[given] = text
    return found


def _text(path: Path) -> str | None:
    try:
        with path.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
        return data.decode("utf-8-sig") if len(data) <= _MOST_BYTES else None
    except (OSError, ValueError):
        return None


def _settings_among(texts: Mapping[str, str], unreadable: list[tuple[str, str]]) -> SettingFacts | None:
    """Return the variables of the environment files, the last value of a name as in a unit."""
    from mks_check.production_check.config_files import kind_of
    from mks_check.production_check.settings_source import parse_env_file, setting_facts

    files = [path for path, text in texts.items() if kind_of(path, text) == "env"]
    unreadable += [
        (path, "only one environment file is judged at a time; use --env-file") for path in files[1:]
    ]
    if not files:
        return None
    found, lines, unread = parse_env_file(texts[files[0]])
    unreadable += [(files[0], f"line {line}") for line in unread]
    return setting_facts(found, file=files[0], lines=lines)


def _settings_of_file(path: str, failed: list[str], unreadable: list[tuple[str, str]]) -> SettingFacts | None:
    from mks_check.production_check.settings_source import parse_env_file, setting_facts

    text = _text(Path(path))
    if text is None:
        failed.append(f"{path} cannot be read")
        return None
    found, lines, unread = parse_env_file(text)
    unreadable += [(path, f"line {line}") for line in unread]
    return setting_facts(found, file=path, lines=lines)

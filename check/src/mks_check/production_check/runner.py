"""``check``: reads what was asked for, makes the checks, and applies what is accepted."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mks_check.production_check.check_definition import CheckDefinition, Language
from mks_check.production_check.facts import Facts
from mks_check.production_check.finding import LEVELS, Evidence, Finding
from mks_check.production_check.registry import checks_reading, definitions
from mks_hardening._core.checks import boolean, choice, mapping, path_text, strings, text_of, whole_number
from mks_hardening._core.clock import given_clock
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from mks_check.production_check.suppressions import Suppression
    from mks_hardening.protocols import Clock

__all__ = ["CheckReport", "check", "judge"]

_LONGEST: Final = 300
# The name of a variable, or that with a truth value: the redactor would keep it, and is not needed to find that out.
_HARMLESS: Final = re.compile(r"[A-Z][A-Z_]{0,60}(?:=(?:[01*]|true|false|yes|no|on|off))?")
_MOST_OF_ONE: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """The result of a check.

    Attributes:
        findings: problems, the most severe ones first.
        accepted: problems that a silence or the baseline accepts, with the reason.
        checked: ids of the checks that were made.
        failed: what was asked for and could not be done at all, one sentence each.
    """

    findings: tuple[Finding, ...]
    accepted: tuple[Finding, ...] = ()
    checked: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


def check(
    *,
    environ: Mapping[str, str] | None = None,
    env_file: str | os.PathLike[str] | None = None,
    app: object = None,
    files: Iterable[str | os.PathLike[str]] = (),
    host: bool = False,
    url: str | None = None,
    pages: Iterable[str] = (),
    websocket: str | None = None,
    ca_file: str | os.PathLike[str] | None = None,
    body_limit: int | None = None,
    silence: Iterable[str] = (),
    baseline: str | os.PathLike[str] | None = None,
    lang: str = "en",
    clock: Clock | None = None,
) -> CheckReport:
    """Check settings, an application, files of a deployment, this host and a live site.

    Nothing is changed. Without arguments, the environment of the process is checked. It is also checked with ``app``,
    which runs in it, and with ``host``, but not with ``files`` or ``url`` alone.

    Args:
        environ: variables to check, instead of those of the process.
        env_file: file with variables to check instead, such as systemd's ``EnvironmentFile``.
        app: WSGI or ASGI application, or its name ``module:name``; a name that ends with ``()`` is called.
        files: files and folders of a deployment: nginx, gunicorn, systemd, logrotate, Redis, PostgreSQL, Dockerfile,
            compose files, deploy.toml.
        host: whether to check this machine: clock, permissions, versions, disk, processes, Redis and PostgreSQL.
        url: address of the live site; at most 80 requests that change nothing are sent to this host alone. Its front
            page and sign-in page are judged as a browser shows them.
        pages: paths of further pages to judge so.
        websocket: path of a WebSocket that must be reached.
        ca_file: certificates to trust for ``url`` instead of the system's.
        body_limit: size in bytes from which ``url`` promises a 413 response.
        silence: accepted checks, ``ID=REASON`` or ``ID=REASON,until=YYYY-MM-DD``.
        baseline: file with accepted findings.
        lang: language of the texts, ``en`` or ``ja``.
        clock: clock for dates of certificates and suppressions.

    Raises:
        ConfigurationError: an argument is invalid, or a silence or the baseline has an unknown id, no reason or no
            valid date.
    """
    language: Language = "ja" if choice(lang, ("en", "ja"), parameter="lang") == "ja" else "en"
    boolean(host, parameter="host")
    for name, path in (("env_file", env_file), ("ca_file", ca_file), ("baseline", baseline)):
        if path is not None:
            path_text(path, parameter=name)
    if url is not None:
        text_of(url, parameter="url", empty=False)
    paths = strings(pages, parameter="pages", of="paths")
    if websocket is not None:
        text_of(websocket, parameter="websocket", empty=False)
    if body_limit is not None:
        whole_number(body_limit, parameter="body_limit", minimum=1)
    if environ is not None:
        mapping(environ, parameter="environ", of="names to values")
        if env_file is not None:
            raise ConfigurationError("environ and env_file exclude each other", parameter="env_file")
    given_files = [path_text(path, parameter="files") for path in _several(files, parameter="files")]
    accepted = _accepted(strings(silence, parameter="silence"), baseline)
    now = given_clock(clock).time()

    from mks_check.production_check.sources import read_facts

    facts, failed = read_facts(
        environ=environ,
        env_file=None if env_file is None else os.fspath(env_file),
        app=app,
        files=given_files,
        host=host,
        url=url,
        pages=paths,
        websocket=websocket or "",
        ca_file=None if ca_file is None else os.fspath(ca_file),
        body_limit=body_limit,
        now=now,
    )
    return judge(facts, accepted=accepted, failed=failed, language=language, now=now)


def judge(
    facts: Facts,
    *,
    accepted: Sequence[Suppression] = (),
    failed: Sequence[str] = (),
    language: Language = "en",
    now: float = 0,
) -> CheckReport:
    """Return the report about facts.

    Args:
        facts: what was read.
        accepted: suppressions to apply.
        failed: what could not be read at all.
        language: language of the texts.
        now: Unix time, for the dates of suppressions.
    """
    names = ("settings", "application", "files", "live", "host")
    made = checks_reading(name for name in names if getattr(facts, name) is not None)
    found = [finding for definition in made for finding in _findings(definition, facts, language)]
    today = datetime.fromtimestamp(now, UTC).date()
    kept, silenced = _apply(found, accepted, today, language, {definition.id for definition in made})
    kept.sort(
        key=lambda finding: (LEVELS.index(finding.level), finding.id, finding.file, finding.line, finding.key)
    )
    return CheckReport(
        findings=tuple(kept),
        accepted=tuple(silenced),
        checked=tuple(definition.id for definition in made),
        failed=tuple(failed),
    )


def _findings(definition: CheckDefinition, facts: Facts, language: Language) -> Iterator[Finding]:
    seen = set[Evidence]()
    try:
        for evidence in definition.find(facts):
            if evidence in seen:
                continue
            seen.add(evidence)
            if len(seen) > _MOST_OF_ONE:
                yield _finding(definition, Evidence(text="…", key="more"), language)
                return
            yield _finding(definition, evidence, language)
    except Exception as error:  # noqa: BLE001 - a check that fails is reported; the others are still made
        text = f"{definition.id} could not be made ({type(error).__name__})"
        yield _finding(_definition("MKS-RUN-001"), Evidence(text=text, key=definition.id), language)


def _apply(
    found: Iterable[Finding],
    accepted: Sequence[Suppression],
    today: date,
    language: Language,
    made: set[str],
) -> tuple[list[Finding], list[Finding]]:
    kept: list[Finding] = []
    silenced: list[Finding] = []
    used = set[int]()
    for finding in found:
        covering = [index for index, each in enumerate(accepted) if each.covers(finding)]
        used.update(covering)
        valid = [accepted[index] for index in covering if not _is_expired(accepted[index], today)]
        if valid:
            silenced.append(replace(finding, reason=valid[0].reason))
        else:
            kept.append(finding)
    for index, each in enumerate(accepted):
        text = f"{each.id}: {each.reason}"
        key = f"{each.id} {each.fingerprint}"
        if _is_expired(each, today):
            evidence = Evidence(text=f"{text} (until {each.until})", key=key)
            kept.append(_finding(_definition("MKS-RUN-002"), evidence, language))
        elif index not in used and each.id in made:
            kept.append(_finding(_definition("MKS-RUN-003"), Evidence(text=text, key=key), language))
    return kept, silenced


def _is_expired(suppression: Suppression, today: date) -> bool:
    return suppression.until is not None and suppression.until < today


def _definition(identifier: str) -> CheckDefinition:
    return next(definition for definition in definitions() if definition.id == identifier)


def _finding(definition: CheckDefinition, evidence: Evidence, language: Language) -> Finding:
    return Finding(
        id=definition.id,
        level=evidence.level or definition.level,
        title=definition.title[language],
        evidence=_shown(evidence.text),
        fix=definition.fix[language],
        link=definition.link,
        key=_shown(evidence.key),
        file=_plain(evidence.file),
        line=evidence.line,
    )


def _shown(text: str) -> str:
    """Return text for a terminal or a page: without secrets and control characters, and not endless."""
    if _HARMLESS.fullmatch(text):
        return text
    from mks_hardening._core.redaction.redactor import default_redactor

    return _plain(default_redactor().redact_text(text[: 4 * _LONGEST]))


def _plain(text: str) -> str:
    readable = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text[: 4 * _LONGEST])
    return readable if len(readable) <= _LONGEST else readable[: _LONGEST - 1] + "…"


def _accepted(silence: Sequence[str], baseline: str | os.PathLike[str] | None) -> list[Suppression]:
    if not silence and baseline is None:
        return []
    from mks_check.production_check.suppressions import parse_silence, read_baseline

    known = {definition.id for definition in definitions()}
    accepted = [parse_silence(text, known) for text in silence]
    if baseline is not None:
        accepted += read_baseline(_text_of_file(baseline, parameter="baseline"), known)
    return accepted


def _several(value: Iterable[str | os.PathLike[str]], *, parameter: str) -> list[str | os.PathLike[str]]:
    given: object = value
    if isinstance(given, (str, bytes, os.PathLike)) or not isinstance(given, Iterable):
        raise ConfigurationError(
            f"{parameter} must be a list of paths, not {type(given).__name__}", parameter=parameter
        )
    return list(value)


def _text_of_file(path: str | os.PathLike[str], *, parameter: str) -> str:
    try:
        return Path(path).read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{parameter} must be a readable UTF-8 file ({type(error).__name__})", parameter=parameter
        ) from None

"""``mks-hardening check``: an audit of settings, application, files, host and live site."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from mks_hardening.cli._report_stream import report_stream
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from datetime import date

    from mks_check import CheckReport
    from mks_check.production_check.check_definition import Language

__all__ = ["add_arguments"]

_LEVELS: Final = ("error", "warning", "note")
_FORMATS: Final = ("text", "json", "sarif", "github")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add("--env-file", metavar="FILE", help="check the variables in this file, not those of this process")
    add(
        "--app", metavar="MODULE:NAME", help="import and check this WSGI or ASGI application; NAME() calls it"
    )
    add(
        "--files", nargs="+", default=[], metavar="PATH",
        help="check these files and folders of a deployment: nginx, gunicorn, systemd, logrotate, Redis, "
        "PostgreSQL, Dockerfile, compose files, deploy.toml",
    )  # fmt: skip
    add(
        "--host",
        action="store_true",
        help="check this machine: clock, permissions, versions, disk, processes",
    )
    add("--url", help="check the site at this address with at most 80 requests that change nothing")
    add(
        "--page", action="append", default=[], metavar="PATH",
        help="page of --url to open as a browser does, beside the front page and the sign-in page; may be repeated",
    )  # fmt: skip
    add("--websocket", metavar="PATH", help="WebSocket of --url that must be reached")
    add("--ca-file", metavar="FILE", help="certificates to trust for --url, instead of the system's")
    add("--body-limit", metavar="SIZE", help="size from which --url promises a 413 response, such as 8m")
    add("--format", choices=_FORMATS, default="text", help="how the report is written")
    add("--lang", choices=("en", "ja"), default="en", help="language of the report")
    add("--output", metavar="FILE", help="write the report to this file")
    add(
        "--fail-level", choices=_LEVELS, default="note",
        help="lowest level of a finding that makes the exit status 1",
    )  # fmt: skip
    add(
        "--silence", action="append", default=[], metavar="ID=REASON[,until=DATE]",
        help="accept the findings of a check; may be repeated",
    )  # fmt: skip
    add("--baseline", metavar="FILE", help="accept the findings in this file")
    add(
        "--write-baseline",
        metavar="FILE",
        help="accept all present findings in this file; needs the next three",
    )
    add("--reason", help="why they are accepted")
    add("--owner", help="who answers for that")
    add("--until", metavar="DATE", help="last day on which they are accepted")
    add("--explain", metavar="ID", help="print what a check means and how to fix its findings")
    add("--list", action="store_true", help="print the id, level and title of every check")
    parser.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    if parsed.explain is not None:
        return _explain(parsed.explain, parsed.lang)
    if parsed.list:
        return _list(parsed.lang)
    entries = _baseline_entries(parsed)
    if parsed.url is not None:
        print(f"sending at most 80 requests that change nothing to {_host(parsed.url)}", file=sys.stderr)
    with report_stream() as stdout:
        return _checked(parsed, entries, stdout)


def _checked(parsed: argparse.Namespace, entries: tuple[str, str, date] | None, stdout: TextIO) -> int:
    from mks_check import check, render_report

    report = check(
        env_file=parsed.env_file,
        app=parsed.app,
        files=parsed.files,
        host=parsed.host,
        url=parsed.url,
        pages=parsed.page,
        websocket=parsed.websocket,
        ca_file=parsed.ca_file,
        body_limit=_size(parsed.body_limit),
        silence=parsed.silence,
        baseline=parsed.baseline,
        lang=parsed.lang,
    )
    if entries is not None:
        from mks_check.production_check.suppressions import baseline_text

        reason, owner, until = entries
        _write(parsed.write_baseline, baseline_text(report.findings, reason=reason, owner=owner, until=until))
        return 3 if report.failed else 0
    anchor = next(
        (name for name in ("deploy.toml", "pyproject.toml") if Path(name).exists()), "pyproject.toml"
    )
    text = render_report(report, style=parsed.format, lang=parsed.lang, anchor=anchor)
    if parsed.output is None:
        stdout.write(text)
    else:
        _write(parsed.output, text)
    return _status(report, parsed.fail_level)


def _host(url: str) -> str:
    """Return the host of an address, without a password that it may contain by mistake."""
    return url.partition("://")[2].partition("/")[0].rpartition("@")[2][:200] or "the site"


def _status(report: CheckReport, fail_level: str) -> int:
    if report.failed:
        return 3
    failing = _LEVELS[: _LEVELS.index(fail_level) + 1]
    return int(any(finding.level in failing for finding in report.findings))


def _explain(identifier: str, lang: str) -> int:
    from mks_check import definitions

    found = {definition.id: definition for definition in definitions()}.get(identifier)
    if found is None:
        raise ConfigurationError(
            f"--explain must be the id of a check, not {identifier[:40]!r}; --list prints all of them",
            parameter="explain",
        )
    language: Language = "ja" if lang == "ja" else "en"
    print(f"{found.id} ({found.level})\n{found.title[language]}\n{found.fix[language]}\n{found.link}")
    return 0


def _list(lang: str) -> int:
    from mks_check import definitions

    language: Language = "ja" if lang == "ja" else "en"
    for definition in definitions():
        print(f"{definition.id}  {definition.level:7}  {definition.title[language]}")
    return 0


def _baseline_entries(parsed: argparse.Namespace) -> tuple[str, str, date] | None:
    if parsed.write_baseline is None:
        return None
    if not (parsed.reason and parsed.owner and parsed.until):
        raise ConfigurationError(
            "--write-baseline needs --reason, --owner and --until", parameter="write_baseline"
        )
    from datetime import date

    try:
        return parsed.reason, parsed.owner, date.fromisoformat(parsed.until)
    except ValueError:
        raise ConfigurationError(
            f"--until must be a date such as 2027-03-31, not {parsed.until[:40]!r}", parameter="until"
        ) from None


def _size(text: str | None) -> int | None:
    if text is None:
        return None
    from mks_check.production_check.values import size_of

    size = size_of(text)
    if not size:
        raise ConfigurationError(
            f"--body-limit must be a size such as 8m, not {text[:40]!r}", parameter="body_limit"
        )
    return size


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written ({error.strerror})", parameter="output") from None

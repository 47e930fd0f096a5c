"""``mks-hardening passwords``: convert lists of leaked passwords to the filter format."""

from __future__ import annotations

import argparse
from pathlib import Path

from mks_hardening.exceptions import ConfigurationError

__all__ = ["add_commands"]


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    build = commands.add_parser(
        "build-filter",
        help="write a compact filter of leaked passwords",
        description=(
            "SOURCE holds sorted SHA-1 digests in hexadecimal, one per line, with an optional colon and count (the "
            "format of 'Have I Been Pwned'), or, with --kind passwords, one password per line. TARGET is the file "
            "for BreachedPasswords."
        ),
    )
    build.add_argument("source", metavar="SOURCE", help="file to read")
    build.add_argument("target", metavar="TARGET", help="file to write")
    build.add_argument(
        "--kind", choices=("sha1", "passwords"), default="sha1", help="contents of SOURCE (sha1)"
    )
    build.add_argument("--min-count", type=int, default=1, help="skip passwords that leaked fewer times (1)")
    build.add_argument("--digest-bytes", type=int, default=6, help="bytes kept of each digest, 4 to 20 (6)")
    build.set_defaults(run=_build)


def _build(parsed: argparse.Namespace) -> int:
    from mks_hardening.cli._progress import Progress
    from mks_hardening.security import build_breach_filter

    target = Path(parsed.target)
    if (
        target.exists() and not target.is_file()
    ):  # written as a temporary file and renamed, which would replace a device
        raise ConfigurationError(f"{target} is not a file", parameter="target")
    try:
        progress = Progress(Path(parsed.source).stat().st_size, unit="bytes")
        number = build_breach_filter(
            parsed.source,
            parsed.target,
            kind=parsed.kind,
            min_count=parsed.min_count,
            digest_bytes=parsed.digest_bytes,
            progress=progress.show,
        )
    except OSError as error:
        raise ConfigurationError(
            f"{error.filename or parsed.target}: {error.strerror}", parameter="source"
        ) from None
    progress.end()
    print(f"passwords: {number}  bytes: {Path(parsed.target).stat().st_size}")
    return 0

"""Text of a new ``deploy.toml``: the detected values, each with its evidence as a comment."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Final

from mks_deploy.init.candidates import Candidate
from mks_deploy.init.detection import Fact
from mks_deploy.init.import_check import ImportResult

__all__ = ["settings_text", "site_name"]

_NOT_FOUND: Final = {
    "needs": 'nothing found; "postgresql" and "redis" are what a host can bring',
    "live": "no address for health found: / must answer 200; better declare /livez",
    "ready": "no address for health found: / must answer 200; better declare /readyz",
}
_WORDS: Final = re.compile(r"[^a-z0-9]+")


def site_name(text: str) -> str:
    """Return a name for units, account and folders, made of any text."""
    slug = _WORDS.sub("-", text.lower()).strip("-")[:24].strip("-")
    slug = slug if slug[:1].isalpha() else f"app-{slug}".strip("-")[:24].strip("-")
    return slug if len(slug) >= 3 else f"{slug}-app"


def settings_text(
    candidate: Candidate,
    imported: ImportResult | None,
    facts: Iterable[Fact],
    *,
    name: str,
    hosts: tuple[str, ...],
    mail: str,
    requirements: str,
) -> str:
    """Return the text.

    Args:
        candidate: the application.
        imported: what its import found out; ``None`` if it was not imported.
        facts: further values detected in the source.
        name: name of the site.
        hosts: names that are answered, the canonical one first.
        mail: address that alerts and the certificate's provider write to.
        requirements: file of locked requirements; empty if there is none.
    """
    kind = imported.kind if imported and imported.kind else candidate.kind
    proven = f"imported: {imported.type}" if imported else "not imported; see whether gunicorn can"
    lines = [
        "# Written by `mks-deploy init`; `mks-deploy example` explains every option.",
        "[site]",
        f"name = {_toml(name)}",
        f"hosts = {_toml(list(hosts))}",
        "",
        "[app]",
        f"kind = {_toml(kind)}",
        f"# {candidate.evidence}; {proven}",
        f"target = {_toml(candidate.target)}",
    ]
    if not (imported and imported.hardened):
        lines += ["# the import loads no mks_hardening" if imported else "# not known", "hardened = false"]
    tables: dict[str, list[Fact]] = {}
    lock = (Fact("image", "requirements", requirements, ""),) if requirements else ()
    for fact in (*facts, *lock):
        tables.setdefault(fact.table, []).append(fact)
    needs = [fact.value for fact in tables.get("app", ()) if fact.key == "needs"]
    if (
        imported
        and imported.hardened
        and not any("redis" in value for value in needs if isinstance(value, list))
    ):
        lines.append(
            '# with several workers, mks_hardening keeps sessions and limits in Redis: add "redis" to needs'
        )
    lines += _lines(tables.pop("app", []))
    lines += ["", "[tls]", f"email = {_toml(mail)}"]
    lines += ['# once https has worked for a week: "730d"', 'hsts_max_age = "5m"']
    lines += ["", "[upkeep]", f"alert_mail = {_toml(mail)}"]
    lines += ["# the mail server of the alerts; without it none are mailed", "# smtp_host ="]
    for table, found in tables.items():
        lines += ["", f"[{table}]", *_lines(found)]
    return "\n".join(lines) + "\n"


def _lines(facts: Iterable[Fact]) -> list[str]:
    lines = []
    for fact in facts:
        reason = fact.evidence or _NOT_FOUND.get(fact.key, "")
        lines += [f"# {reason}"] if reason else []
        lines.append(f"{'# ' * fact.is_open}{fact.key} = {_toml(fact.value)}")
    return lines


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)

"""Generate the reference pages from the code, in both languages: one function for each page.

With --check: list the pages that are not up to date, and change nothing. The text is English in both; a Japanese
page begins with a paragraph about its content. The pages use definition lists instead of wide tables, which phones
cannot show.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs" / "_extensions"))

from api_examples import full_name  # noqa: E402 - found through the line above
from public_names import MODULES  # noqa: E402 - found through the line above

LANGUAGES = ("en", "ja")


def main() -> None:
    """Write the pages, or check them."""
    words = tomllib.loads((ROOT / "docs" / "reference.toml").read_text("utf-8"))
    wanted = {
        ROOT / "docs" / language / "reference" / f"{name}.md": page(words[name][language], body())
        for name, body in PAGES.items()
        for language in LANGUAGES
    }
    wanted |= {
        ROOT / "docs" / language / "reference" / "api" / f"{module}.md": page(
            {"title": full_name(module), **words["module"][language]},
            [*overview(module, words["module"][language]), *names_of(module)],
        )
        for module in MODULES
        for language in LANGUAGES
    }
    wanted |= {
        ROOT / "docs" / language / "reference" / "glossary.md": page(
            words["glossary"][language], glossary(language)
        )
        for language in LANGUAGES
    }
    wanted |= {
        ROOT / "docs" / language / "reference" / "checks.md": page(
            words["checks"][language], checks(language)
        )
        for language in LANGUAGES
    }
    wanted |= {
        ROOT / "docs" / language / "reference" / "api" / "index.md": page(
            words["modules"][language], contents()
        )
        for language in LANGUAGES
    }
    stale = [file for file, text in wanted.items() if not file.exists() or file.read_text("utf-8") != text]
    if "--check" in sys.argv[1:]:
        for file in stale:
            print(f"{file.relative_to(ROOT)} is not up to date: make generated")
        sys.exit(bool(stale))
    for file in stale:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(wanted[file], encoding="utf-8")


def page(words: Mapping[str, str], body: Iterable[str]) -> str:
    """Return a whole page: title, introduction and generated text."""
    lines = [f"# {words['title']}", "", words["lead"].strip(), "", *body]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


# --- the pages


def environment() -> Iterator[str]:
    """List every environment variable."""
    from mks_hardening.settings import variables

    area = ""
    for variable in variables():
        if variable.area != area:
            area = variable.area
            yield from ("", f"({area}-variables)=", f"## {area}", "")
        # The search puts main entries of the index before pages that only mention a variable.
        yield from ("```{eval-rst}", f".. index:: ! {variable.name}", "```")
        default = f" · default `{variable.default_text}`" if variable.default_text else " · no default"
        secret = f" · secret, so that `{variable.name}_FILE` may name a file" if variable.secret else ""
        yield from _entry(
            variable.name, f"`{variable.name}`", variable.help, f"{variable.form}{default}{secret}"
        )


def events() -> Iterator[str]:
    """List every event with its fields."""
    module = importlib.import_module("mks_hardening.events")
    for name in module.__all__:
        item = getattr(module, name)
        if isinstance(item, type):
            fields = ", ".join(f"`{field}`" for field in getattr(item, "_fields", ()))
            yield from _entry(
                name, f"{{py:class}}`~mks_hardening.events.{name}`", _first(item), f"Fields: {fields}"
            )


def exceptions() -> Iterator[str]:
    """List every exception with its base class and attributes."""
    module = importlib.import_module("mks_hardening.exceptions")
    for name in sorted(module.__all__):
        item = getattr(module, name)
        parent = item.__mro__[1].__name__
        yield from _entry(
            name, f"{{py:exc}}`~mks_hardening.exceptions.{name}`", _first(item), f"A kind of `{parent}`."
        )


def command_line() -> Iterator[str]:
    """List every command of ``mks-hardening``."""
    from mks_hardening import cli

    yield from _commands(cli.parser(), level=2)


def log_fields() -> Iterator[str]:
    """List the canonical fields of each schema, and those of a request record."""
    from mks_hardening._edge.request_log import record_fields
    from mks_hardening.logging.formatting._schemas import SCHEMAS

    for name, schema in SCHEMAS.items():
        yield from ("", f"({name}-schema)=", f'## `schema="{name}"`', "")
        canonical = ("timestamp", "level", "logger", "message", "environment", "exception", "stack")
        yield from (f"- {what}: `{field}`" for what, field in zip(canonical, schema[:7], strict=True))
        yield from (f"- `{old}` becomes `{new}`" for old, new in schema.renames.items())
        yield from (f"- always `{field}`: `{value}`" for field, value in schema.constants.items())
    yield from ("", "(request-record-fields)=", "## The request record", "")
    for field, meaning in _argument_texts(inspect.getdoc(record_fields.record_fields) or "", "Returns"):
        yield f"- `{field}`: {meaning}"


def metrics() -> Iterator[str]:
    """List every metric of the Prometheus observer, and the events it counts."""
    from mks_hardening.contrib._metrics.metric_definitions import METRICS, RULES

    for metric in METRICS:
        events = {f"`{rule.event.__name__}`" for rule in RULES if metric in {rule.counted, rule.timed}}
        facts = ["gauge" if metric.kind == "level" else metric.kind]
        if metric.labels:
            facts.append(f"labels {', '.join(f'`{label}`' for label in metric.labels)}")
        if metric.buckets:
            facts.append(f"buckets {', '.join(f'{bound:g}' for bound in metric.buckets)} s")
        if events:
            facts.append(f"from {', '.join(sorted(events))}")
        yield from _entry(metric.name, f"`{metric.name}`", metric.help, " · ".join(facts))


def defaults() -> Iterator[str]:
    """List every numeric default: timeouts, limits, counts."""
    for name in MODULES:
        module = importlib.import_module(full_name(name))
        own = [item for item in module.__all__ if item not in _shared(name)]
        found = [(item, list(_numbers(getattr(module, item)))) for item in own]
        if not any(numbers for _, numbers in found):
            continue
        yield from ("", f"({_anchor(name)}-defaults)=", f"## {name}", "")
        for item, numbers in found:
            if numbers:
                lines = [
                    f"`{option}={value}`" + (f": {text}" if text else "") for option, value, text in numbers
                ]
                yield from _entry(f"{name}-{item}", f"`{item}`", *lines)


def glossary(language: str) -> Iterator[str]:
    """List every term with its Japanese word, its meaning, and the words to avoid."""
    words = tomllib.loads((ROOT / "docs" / "glossary.toml").read_text("utf-8"))
    for term, japanese in words["terms"].items():
        texts = [words["meanings"].get(term, {}).get(language, "")]
        if others := [other for other, word in words["avoided"].items() if word == japanese]:
            texts.append(
                f"Not used: {', '.join(others)}." if language == "en" else f"使わない語: {'、'.join(others)}"
            )
        first = f"**{term}**: {japanese}." if language == "en" else f"**{japanese}**\uff08{term}\uff09"
        yield f"- {' '.join(filter(None, [first, *texts]))}"


def checks(language: str) -> Iterator[str]:
    """Every check of ``mks-hardening check``, by what it reads."""
    from mks_check import definitions

    words = tomllib.loads((ROOT / "docs" / "reference.toml").read_text("utf-8"))["checks"][language]
    area = ""
    for check in definitions():
        if check.id[:-4] != area:
            area = check.id[:-4]
            yield from ("", f"({area.lower()}-checks)=", f"## {words['areas'][area]}", "")
        level = words["levels"][check.level]
        yield from _entry(
            check.id,
            f"`{check.id}` ({level})" if language == "en" else f"`{check.id}`\uff08{level}\uff09",
            check.title[language],
            check.fix[language],
            f"[{words['standard']}]({check.link})",
        )


def overview(module: str, words: Mapping[str, str]) -> Iterator[str]:
    """Return what is shown of an area before its names: the hand-written overview, and a table of its defaults.

    The table has the options of the names that the overview mentions.
    """
    written = ROOT / "docs" / "en" / "reference" / "overview" / f"{module}.md"
    if not written.exists():
        return
    rows: dict[tuple[str, str], tuple[list[str], str]] = {}
    for path in dict.fromkeys(re.findall(r"`~mks_hardening\.([\w.]+)`", written.read_text("utf-8"))):
        home, _, name = path.rpartition(".")
        for option, value, meaning in _defaults_of(
            getattr(importlib.import_module(f"mks_hardening.{home}"), name)
        ):
            rows.setdefault((option, value), ([], meaning))[0].append(f"`{name}`")
    yield from (f"```{{include}} ../overview/{module}.md", "```", "")
    yield from (f"(overview-{module}-defaults)=", f"## {words['defaults']}", "", words["defaults_lead"], "")
    yield from (f"| {words['option']} | {words['value']} | {words['meaning']} |", "|---|---|---|")
    for (option, value), (names, meaning) in rows.items():
        text = meaning.replace("|", "\\|").partition("; ")[0].rstrip(".")
        yield f"| `{option}` {words['of']} {', '.join(names)} | `{value}` | {text} |"
    yield from ("", f"(overview-{module}-names)=", f"## {words['names']}", "")


def names_of(module: str) -> Iterator[str]:
    """Return the page of a module's public names, from their docstrings."""
    yield from (
        "```{eval-rst}",
        f".. automodule:: {full_name(module)}",
        "   :members:",
        "   :imported-members:",
    )
    # The methods of TwoFactorManager and SignIn, and the rules of contract suites, are in private base classes.
    yield from ("   :inherited-members: str, tuple, Protocol",) if module in {"security", "testing"} else ()
    shared = _shared(module)
    if shared:
        yield f"   :exclude-members: {', '.join(shared)}"
        links = ", ".join(f":py:obj:`~{home}.{name}`" for name, home in shared.items())
        yield from ("", f"Also exported here: {links}.")
    for name, item in _data_of(module):
        if name in shared:
            continue
        yield from ("", f".. py:data:: {name}", f"   :module: {full_name(module)}")
        yield from (f"   :value: {item!r}",) if isinstance(item, str) else ()
        yield from ("", f"   {_DATA[name]}")
    yield "```"


def contents() -> Iterator[str]:
    """Return the list of modules."""
    yield from ("```{toctree}", ":maxdepth: 1", "", *MODULES, "```")


# --- their parts


def _data_texts() -> Iterator[tuple[str, str]]:
    """Return the module-level names with the docstrings below them."""
    for file in sorted(file for part in ("src", "check/src") for file in (ROOT / part).rglob("*.py")):
        for statement, below in pairwise(ast.parse(file.read_text("utf-8")).body):
            match statement, below:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    yield name, " ".join(text.split())


_DATA = dict(_data_texts())


def _data_of(module: str) -> Iterator[tuple[str, object]]:
    """Return a module's public names that are neither classes nor functions, which Sphinx does not find itself."""
    package = importlib.import_module(full_name(module))
    for name in package.__all__:
        item = getattr(package, name)
        if not isinstance(item, type) and not inspect.isroutine(item):
            yield name, item


def _shared(module: str) -> dict[str, str]:
    """Return names that a module re-exports, with the module that documents them."""
    package = importlib.import_module(full_name(module))
    homes: dict[str, list[str]] = getattr(package, "_SHARED", {})
    described = {name for names in homes.values() for name in names}
    documented = {name: full_name(home) for home in reversed(MODULES) for name in _names(home)}
    return {name: documented[name] for name in sorted(described)}


def _names(module: str) -> list[str]:
    package = importlib.import_module(full_name(module))
    shared = {name for names in getattr(package, "_SHARED", {}).values() for name in names}
    return [name for name in package.__all__ if name not in shared]


def _anchor(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _entry(anchor: str, term: str, *paragraphs: str) -> Iterator[str]:
    yield from (f"({_anchor(anchor)})=", term)
    for number, text in enumerate(paragraphs):
        yield f"{':' if not number else ' '} {text}"
        yield ""


def _first(item: object) -> str:
    """Return the first paragraph of a docstring as one line of Markdown."""
    return _markdown((inspect.getdoc(item) or "").partition("\n\n")[0])


def _markdown(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


def _commands(parser: argparse.ArgumentParser, *, level: int) -> Iterator[str]:
    for action in parser._actions:  # noqa: SLF001 - argparse offers no way to walk its commands
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - the same
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}  # noqa: SLF001 - the same
            for name, command in action.choices.items():
                yield from ("", f"({command.prog.replace(' ', '-')})=", f"{'#' * level} `{command.prog}`", "")
                yield from (helps[name][:1].upper() + helps[name][1:] + ".", "")
                if command.description:
                    yield from (command.description, "")
                yield from _options(command)
                yield from _commands(command, level=level + 1)


def _options(command: argparse.ArgumentParser) -> Iterator[str]:
    for action in command._actions:  # noqa: SLF001 - as above
        if isinstance(action, (argparse._HelpAction, argparse._SubParsersAction)):  # noqa: SLF001 - as above
            continue
        name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
        text = (action.help or "").replace("%(default)s", str(action.default))
        if action.choices:
            text += f"; one of {', '.join(action.choices)}"
        yield f"- `{name}`" + (f": {text}" if text else "")
    yield ""


def _numbers(item: Any) -> Iterator[tuple[str, str, str]]:
    """Return the options with numeric defaults, and their descriptions."""
    try:
        parameters = inspect.signature(item).parameters.values()
    except (TypeError, ValueError):
        return
    texts = dict(_argument_texts(inspect.getdoc(item) or "", "Args"))
    for parameter in parameters:
        default = parameter.default
        if isinstance(default, (int, float)) and not isinstance(default, bool):
            yield (
                parameter.name,
                f"{default:g}" if default < 1e6 else str(default),
                texts.get(parameter.name, ""),
            )


def _defaults_of(item: Any) -> Iterator[tuple[str, str, str]]:
    """Return the options that are set to a number, a word or ``True`` by default, and their descriptions."""
    try:
        parameters = inspect.signature(item).parameters.values()
    except (TypeError, ValueError):
        return
    texts = dict(_argument_texts(inspect.getdoc(item) or "", "Args"))
    numbers = {option: value for option, value, _ in _numbers(item)}
    for parameter in parameters:
        value = numbers.get(parameter.name, "")
        if parameter.default is True or (isinstance(parameter.default, str) and parameter.default):
            value = repr(parameter.default).replace("'", '"')
        if value and parameter.name in texts:
            yield parameter.name, value, texts[parameter.name]


def _argument_texts(doc: str, section: str) -> Iterator[tuple[str, str]]:
    """Return the entries of one section of a Google-style docstring."""
    block = re.search(rf"^{section}:\n((?:[ ]{{4}}.*\n?|\n)+)", doc, re.MULTILINE)
    for entry in re.split(r"\n(?=    \S)", f"\n{block[1].rstrip()}" if block else ""):
        name, colon, text = entry.strip().partition(": ")
        if colon:
            yield name.strip("`*"), _markdown(text)


def asvs() -> Iterator[str]:
    """List the requirements of ASVS 5.0 that named tests prove, by chapter, and what applications do themselves."""
    table = tomllib.loads((ROOT / "docs" / "asvs.toml").read_text("utf-8"))
    chapters = table.pop("chapters")
    proved: dict[str, dict[str, Any]] = {chapter: {} for chapter in chapters}
    for requirement, entry in table.items():
        proved[requirement.partition(".")[0]][requirement] = entry
    yield from ("| chapter | proved | proved in part |", "|---|---|---|")
    for chapter, (name, _) in chapters.items():
        shared = sum("application" in entry for entry in proved[chapter].values())
        yield f"| [V{chapter} {name}](#asvs-v{chapter}) | {len(proved[chapter]) - shared} | {shared} |"
    for chapter, (name, rest) in chapters.items():
        yield from (
            "",
            f"(asvs-v{chapter})=",
            f"## V{chapter} {name}",
            "",
            f"Left to the application: {rest}",
            "",
        )
        for requirement, entry in proved[chapter].items():
            tests = [re.sub(r"\[(.+)\]$", r" (\1)", test) for test in entry["tests"]]
            yield from _entry(
                f"asvs-{requirement.replace('.', '-')}",
                f"**{requirement}** (L{entry['level']}) {entry['text']}",
                "Proved by " + ", ".join(f"`{test}`" for test in tests) + ".",
                *([f"*The application:* {entry['application']}"] if "application" in entry else ()),
            )


def migration_rules() -> Iterator[str]:
    """Every rule of the migration linter."""
    from mks_check import MIGRATION_RULES

    for rule in MIGRATION_RULES.values():
        yield from ("", f"(rule-{rule.id})=", f"## {rule.id}: {rule.name}", "")
        yield from (f"Level: {rule.level}. {rule.reason}", "")
        yield from (f"{number}. {step}" for number, step in enumerate(rule.steps, 1))
        if rule.link:
            yield from ("", f"[PostgreSQL documentation]({rule.link})")


PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "environment": environment,
    "events": events,
    "exceptions": exceptions,
    "command-line": command_line,
    "log-fields": log_fields,
    "metrics": metrics,
    "defaults": defaults,
    "migration-rules": migration_rules,
    "asvs": asvs,
}


if __name__ == "__main__":
    main()

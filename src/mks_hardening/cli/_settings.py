"""``mks-hardening settings``: list and check environment variables, and print a template for them."""

from __future__ import annotations

import argparse
import sys
import warnings
from itertools import groupby
from typing import TYPE_CHECKING

from mks_hardening.cli._target import convert_errors, import_target
from mks_hardening.exceptions import ConfigurationError, SettingsWarning

if TYPE_CHECKING:
    from mks_hardening.settings import ApplicationSettings, Variable

__all__ = ["add_commands", "list_variables"]


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    listed = commands.add_parser("list", help="print every variable with its format, default and meaning")
    listed.set_defaults(run=list_variables)
    check = commands.add_parser("check", help="read the environment and print every error in it")
    check.set_defaults(run=_check)
    template = commands.add_parser("template", help="print a file for the environment, to be filled in")
    template.set_defaults(run=_template)
    for command in (listed, check, template):
        command.add_argument(
            "--target",
            metavar="MODULE:NAME",
            help="the ApplicationSettings class of an application, to include its variables",
        )


def list_variables(parsed: argparse.Namespace) -> int:
    """Print every variable."""
    for area, rows in groupby(_variables(parsed), key=lambda variable: variable.area):
        print(f"\n[{area}]")
        for variable in rows:
            secret = f"; secret: {variable.name}_FILE may point to a file instead" if variable.secret else ""
            print(f"{variable.name}\n    {variable.help}\n    {_format(variable)}{secret}")
    return 0


def _check(parsed: argparse.Namespace) -> int:
    from mks_hardening.settings import HardeningSettings

    kind = HardeningSettings if parsed.target is None else _class(parsed.target)
    with warnings.catch_warnings(record=True) as caught, convert_errors(parsed.target or "the environment"):
        warnings.simplefilter("always", SettingsWarning)
        kind.from_env()
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
    print("all settings are valid")
    return 0


def _template(parsed: argparse.Namespace) -> int:
    for area, rows in groupby(_variables(parsed), key=lambda variable: variable.area):
        print(f"# --- {area}\n")
        for variable in rows:
            print(f"# {variable.help}\n# {_format(variable)}")
            hidden = "" if variable.required else "#"
            name = f"{variable.name}_FILE" if variable.secret else variable.name
            print(f"{hidden}{name}={variable.default_text}\n")
    return 0


def _format(variable: Variable) -> str:
    needed = {"always": "; required", "production": "; required in production", "": ""}[variable.required]
    default = f"; default {variable.default_text}" if variable.default_text else ""
    return f"{variable.form}{default}{needed}"


def _variables(parsed: argparse.Namespace) -> list[Variable]:
    from mks_hardening.settings import variables

    own = [] if parsed.target is None else _class(parsed.target).variables()
    return [*variables(), *own]


def _class(target: str) -> type[ApplicationSettings]:
    from mks_hardening.settings import ApplicationSettings

    with convert_errors(target):
        found = import_target(target)
    if not (isinstance(found, type) and issubclass(found, ApplicationSettings)):
        raise ConfigurationError(
            f"{target} must be a class derived from ApplicationSettings",
            parameter="target",
        )
    return found

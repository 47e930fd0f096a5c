"""``mks-hardening maintenance``: turn maintenance mode on and off."""

from __future__ import annotations

import argparse

from mks_hardening.exceptions import ConfigurationError

__all__ = ["add_commands"]


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, text in (
        ("on", "respond with 503 to all requests except health probes and operators"),
        ("off", "serve requests again"),
        ("status", "print whether it is on; exit status 0 if it is, else 1"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("file", metavar="FILE", help="path given to MaintenanceSwitch")
        command.set_defaults(run=_run, action=name)


def _run(parsed: argparse.Namespace) -> int:
    from mks_hardening._edge.maintenance.maintenance_switch import MaintenanceSwitch

    switch = MaintenanceSwitch(parsed.file)
    try:
        if parsed.action == "on":
            switch.turn_on()
        elif parsed.action == "off":
            switch.turn_off()
    except OSError as error:
        raise ConfigurationError(f"{parsed.file}: {error.strerror}", parameter="file") from None
    on = switch.is_on()
    print(f"maintenance mode is {'on' if on else 'off'}")
    return 0 if on or parsed.action != "status" else 1

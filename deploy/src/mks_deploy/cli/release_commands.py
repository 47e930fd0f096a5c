"""Commands that release, go back, and show what runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from mks_deploy.cli.command_settings import DIFFERENT, DONE, WRONG, notes_on, with_slots
from mks_deploy.operations.host_steps import HostSteps, read_state, ready
from mks_deploy.operations.operation_log import (
    Locked,
    OperationLog,
    announce,
    is_held_by_shell,
    lock_file,
    locked,
    signals_as_exit,
)
from mks_deploy.operations.release import (
    ReleaseError,
    Slot,
    State,
    is_version_name,
    release,
    restart,
    rollback,
    unserved_release,
)
from mks_deploy.operations.schema_rollback import SchemaRollback
from mks_deploy.operations.version_folders import listed_versions, plan_prune, prune
from mks_deploy.settings.definitions import Settings

__all__ = [
    "maintenance_command",
    "number_kept",
    "release_command",
    "restart_command",
    "rollback_command",
    "status_command",
    "versions_command",
]

_LONGEST_NOTE: Final = 4000


def release_command(options: argparse.Namespace) -> int:
    """Release a version."""
    note = _note(options.note)

    def move(state: State, steps: HostSteps, trail: OperationLog) -> State:
        said = note if note is not None else _notes_of(steps.settings, options.version)
        return release(
            options.version, state, steps, trail, canary=options.canary, migrate=options.migrate, note=said
        )

    return _moved(options, move, observed=options.observe)


def _note(text: str | None) -> str | None:
    if text is not None and len(text) > _LONGEST_NOTE:
        raise ReleaseError(f"--note must have at most {_LONGEST_NOTE} characters")
    return text


def _notes_of(settings: Settings, version: str) -> str:
    """Return the notes that lie in the folder of a version; their beginning if they are long."""
    if not is_version_name(version):
        return ""  # refused by the release
    file = Path(settings.paths.releases) / "versions" / version / "RELEASE_NOTES"
    try:
        return file.read_text(encoding="utf-8", errors="replace")[:_LONGEST_NOTE].strip()
    except OSError:
        return ""


def rollback_command(options: argparse.Namespace) -> int:
    """Go back to the version before, on request with its schema."""

    def move(state: State, steps: HostSteps, trail: OperationLog) -> State:
        if not options.schema:
            return rollback(state, steps, trail)
        schema, left = SchemaRollback(steps.settings), unserved_release(state, trail) or state.newest
        revision = schema.planned(left)  # before anything is changed
        moved = rollback(state, steps, trail)
        facts = {"version": left, "revision": revision}
        try:
            schema.go_back(left, revision)
        except BaseException as error:
            trail.add("schema rollback", outcome="refused", **facts, reason=str(error))
            raise
        trail.add("schema rollback", outcome="done", **facts)
        return moved

    return _moved(options, move)


def restart_command(options: argparse.Namespace) -> int:
    """Stop the running version and start it again."""
    return _moved(options, restart)


def _moved(
    options: argparse.Namespace, move: Callable[[State, HostSteps, OperationLog], State], *, observed: int = 0
) -> int:
    settings = with_slots(options)
    releases = Path(settings.paths.releases)
    # Hardened hosts set root's umask to 027 or 077: nginx could not read the directories of static files.
    os.umask(0o022)
    try:
        with (
            signals_as_exit(),
            _host_lock(settings, doing=options.run.__name__.removesuffix("_command")),
        ):
            steps, trail = HostSteps(settings, observed=observed), OperationLog(releases / "trail.jsonl")
            state = move(read_state(settings), steps, trail)
            _announce(settings, state, trail)
            _prune_after(settings, state, trail)
    except Locked as error:
        sys.stderr.write(f"{error}\n")
        return DIFFERENT
    sys.stdout.write(f"{state.version} is in slot {state.active}\n")
    return DONE


@contextmanager
def _host_lock(settings: Settings, *, doing: str) -> Iterator[str]:
    """Hold the lock of the releases; after an operation that was killed, nginx loads the files that it wrote."""
    with locked(Path(settings.paths.releases) / ".lock", doing=f"mks-deploy {doing}") as left:
        if left:
            HostSteps(settings).load()
        yield left


def _announce(settings: Settings, state: State, trail: OperationLog) -> None:
    """Tell systemd's journal which version serves the requests, and its release note."""
    found = listed_versions(Path(settings.paths.releases), state, trail)
    note = next((each.note for each in found if each.name == state.version), "")
    announce(
        settings.name,
        f"version {state.version} gets the requests, after {state.before or 'none'}\n{note}".strip(),
        DEPLOY_VERSION=state.version,
        DEPLOY_PREVIOUS=state.before,
    )


def _prune_after(settings: Settings, state: State, trail: OperationLog) -> None:
    """Delete old versions after a release; a failure does not affect the release."""
    releases, keep = Path(settings.paths.releases), settings.release.keep
    if not keep:
        return
    try:
        deleted = prune(releases, _unneeded(settings, state, trail, keep))
    except OSError as error:
        sys.stderr.write(f"old versions were not deleted: {error.filename}: {error.strerror}\n")
        return
    if deleted:
        trail.add("prune", outcome="done", versions=deleted)
        sys.stdout.write(f"deleted {', '.join(deleted)}\n")


def _unneeded(settings: Settings, state: State, trail: OperationLog, keep: int) -> tuple[str, ...]:
    versions = listed_versions(Path(settings.paths.releases), state, trail)
    return plan_prune(versions, keep, building=is_held_by_shell(lock_file(settings)))


def number_kept(text: str) -> int:
    """Parse a number of versions to keep, as an argument."""
    if not text.isdecimal() or len(text) > 4:
        raise argparse.ArgumentTypeError("must be a whole number from 0 to 9999")
    return int(text)


def versions_command(options: argparse.Namespace) -> int:
    """List the versions on this host, or delete old ones."""
    settings = with_slots(options)
    releases = Path(settings.paths.releases)
    trail = OperationLog(releases / "trail.jsonl")
    if options.what == "list":
        for each in listed_versions(releases, read_state(settings), trail):
            first = each.note.partition("\n")[0]
            moved = (
                f"{each.moved[:16].replace('T', ' ')} {each.outcome}"
                if each.moved
                else each.outcome or "never released"
            )
            sys.stdout.write(
                f"{each.name:<24} {each.use or '-':<10} {moved:<28} {each.who} {first}".rstrip() + "\n"
            )
        return DONE
    keep = settings.release.keep if options.keep is None else options.keep
    if options.keep is None and not keep:
        sys.stderr.write("release.keep is 0, which keeps all versions: say how many with --keep\n")
        return WRONG
    try:
        with _host_lock(settings, doing="versions prune"):
            state = read_state(settings)
            chosen = _unneeded(settings, state, trail, keep)
            deleted = list(chosen) if options.plan else prune(releases, chosen)
            if deleted and not options.plan:
                trail.add("prune", outcome="done", versions=deleted)
    except Locked as error:
        sys.stderr.write(f"{error}\n")
        return DIFFERENT
    word = "would delete" if options.plan else "deleted"
    sys.stdout.write(f"{word} {', '.join(deleted) or 'nothing'}\n")
    return DONE


def status_command(options: argparse.Namespace) -> int:
    """Show which versions run."""
    settings = with_slots(options)
    releases = Path(settings.paths.releases)
    lock = releases / ".lock"
    if os.access(lock, os.W_OK) and lock.stat().st_size:  # of an operation that runs, or was killed
        with suppress(Locked, OSError), _host_lock(settings, doing="status") as left:
            sys.stdout.write(f"interrupted: {left}\n")
    state = read_state(settings)
    slots: tuple[Slot, ...] = ("blue", "green")
    for slot in slots:
        mark = "*" if slot == state.active else " "
        health = "ready" if ready(settings, slot) else "not ready"
        share = f", {state.weights.get(slot, 0)} % of the requests" if state.canary else ""
        sys.stdout.write(f"{mark} {slot:<6} {state.in_slot(slot) or '-':<24} {health}{share}\n")
    sys.stdout.write("".join(f"{line}\n" for line in OperationLog(releases / "trail.jsonl").last(5)))
    sys.stdout.write("".join(f"{note}\n" for note in notes_on(settings, Path(settings.paths.credentials))))
    return DONE if state.active and ready(settings, state.active) else DIFFERENT


def maintenance_command(options: argparse.Namespace) -> int:
    """Show or hide the maintenance page."""
    flag = Path(with_slots(options).paths.releases) / "maintenance.on"
    if options.what == "on":
        flag.touch()
    else:
        flag.unlink(missing_ok=True)
    return DONE

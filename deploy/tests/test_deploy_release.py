"""Release and rollback: the order of steps as a state machine, and both under load with real servers."""

from __future__ import annotations

import contextlib
import functools
import gzip
import json
import os
import re
import resource
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from deploy_host import Host, as_released
from deploy_interrupted import HostInFiles, run_until
from deploy_links import own_folder, plant
from deploy_settings import deployed
from mks_deploy.atomic_files import refuse_foreign_path, replace_file
from mks_deploy.cli import main, parser, release_commands
from mks_deploy.operations.canary import AccessLog, SlotStatistics, compare, served_by
from mks_deploy.operations.host_steps import HostSteps, read_state
from mks_deploy.operations.operation_log import Locked, OperationLog, announce, is_held_by_shell, locked
from mks_deploy.operations.release import Move, ReleaseError, Slot, State, release, restart, rollback
from mks_deploy.operations.static_files import link_uploads, publish
from mks_deploy.operations.unit_journal import last_start, masked
from mks_deploy.operations.version_folders import (
    BUILDING,
    VersionFolder,
    listed_versions,
    plan_prune,
    prune,
)
from mks_deploy.settings.settings_file import read_settings
from testbed.polling import wait_until
from testbed.services import program
from testbed.small_disk import small_disk

# --- the order of steps -----------------------------------------------------------------------

STEPS = (
    "run_hooks",
    "prepare",
    "migrate",
    "start",
    "wait_until_healthy",
    "observe",
    "route",
    "finish",
    "drain",
    "stop",
)


class Died(BaseException):
    """Nothing more is done, whatever is tried."""


class FakeSteps:
    """A host in memory; the step named ``fails`` is refused, once."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.dies = ""
        self.dead = False
        self.linked: dict[Slot, str] = {}
        self.running: dict[Slot, str] = {}
        self.done: list[str] = []
        self.state = State()
        self.migrated: list[str] = []

    def _step(self, name: str, *facts: object) -> None:
        if self.dead or name == self.dies:
            self.dead = True
            raise Died
        self.done.append(" ".join([name, *map(str, facts)]))
        if self.fails in {name, self.done[-1]}:
            self.fails = ""
            raise ReleaseError(name)

    def run_hooks(self, moment: str, move: Move) -> None:
        self._step("run_hooks", moment, move.version)

    def prepare(self, slot: Slot, version: str) -> None:
        assert slot not in self.state.weights, "a slot that gets requests must not be touched"
        self._step("prepare", slot, version)
        self.linked[slot] = version

    def migrate(self, version: str) -> None:
        self._step("migrate", version)
        self.migrated.append(version)

    def start(self, slot: Slot) -> None:
        self._step("start", slot)
        # As systemctl: what runs goes on as it is.
        self.running.setdefault(slot, self.linked[slot])

    def stop(self, slot: Slot) -> None:
        assert self.dead or slot not in self.state.weights, "a slot that gets requests must not be stopped"
        self._step("stop", slot)
        self.running.pop(slot, None)

    def wait_until_healthy(self, slot: Slot) -> None:
        self._step("wait_until_healthy", slot)

    def route(self, state: State) -> None:
        assert state.weights.keys() <= self.running.keys(), "requests must not go where nobody runs"
        self._step("route", state.weights)
        self.state = state

    def observe(self, slot: Slot, old: Slot) -> str:
        assert old in self.state.weights
        self._step("observe", slot)
        return "10 requests"

    def drain(self, slot: Slot) -> None:
        self._step("drain", slot)

    def finish(self, version: str) -> None:
        self._step("finish", version)


@pytest.fixture
def trail(tmp_path: Path) -> OperationLog:
    return OperationLog(tmp_path / "trail.jsonl")


def test_the_order_of_a_release(trail: OperationLog) -> None:
    steps = FakeSteps()
    first = release("1", State(), steps, trail)
    steps.done.clear()
    second = release("2", first, steps, trail, canary=10, migrate=True)
    assert steps.done == [
        "run_hooks before 2",
        "route {'blue': 100}",
        "prepare green 2",
        "migrate 2",
        "stop green",
        "start green",
        "wait_until_healthy green",
        "route {'blue': 90, 'green': 10}",
        "observe green",
        "route {'green': 100}",
        "finish 2",
        "drain blue",
        "stop blue",
        "run_hooks after 2",
    ]
    steps.done.clear()
    assert second == State(active="green", blue="1", green="2", before="1")
    back = rollback(second, steps, trail)
    assert back == State(active="blue", blue="1", green="2", before="2")
    assert steps.migrated == ["2"]
    # Whoever goes back must not wait for a check of the version that was good before.
    assert [step for step in steps.done if "hooks" in step] == ["run_hooks after 1"]
    lines = [json.loads(line) for line in trail.last(10)]
    assert [(line["action"], line["outcome"]) for line in lines] == [
        (action, outcome) for action in ("release", "release", "rollback") for outcome in ("begun", "done")
    ]
    assert all(line["who"] and line["time"] for line in lines)


@pytest.mark.parametrize(
    "fails", ["run_hooks", "prepare", "migrate", "start", "wait_until_healthy", "observe"]
)
def test_whatever_fails_before_the_switch_leaves_requests_where_they_were(
    trail: OperationLog, fails: str
) -> None:
    steps = FakeSteps()
    state = release("1", State(), steps, trail)
    steps.fails = fails
    with pytest.raises(ReleaseError, match=fails):
        release("2", state, steps, trail, canary=10, migrate=True)
    assert steps.running == {"blue": "1"}
    assert steps.state == state
    assert json.loads(trail.last(1)[0])["outcome"] == "refused"


@pytest.mark.parametrize("fails", ["finish 2", "drain blue", "stop blue", "run_hooks after 2"])
def test_whatever_fails_after_the_switch_is_told_and_remembered(trail: OperationLog, fails: str) -> None:
    steps = FakeSteps()
    state = release("1", State(), steps, trail)
    steps.fails = fails
    with pytest.raises(ReleaseError):
        release("2", state, steps, trail)
    assert steps.state.weights == {"green": 100}
    assert steps.state.version == "2"
    assert json.loads(trail.last(1)[0])["outcome"] == "unfinished"


def test_a_hook_that_fails_before_a_release_changes_nothing(trail: OperationLog) -> None:
    steps = FakeSteps()
    state = release("1", State(), steps, trail)
    steps.done.clear()
    steps.fails = "run_hooks before 2"
    with pytest.raises(ReleaseError):
        release("2", state, steps, trail, canary=10, migrate=True, note="New search.")
    assert steps.done == ["run_hooks before 2"]
    assert json.loads(trail.last(1)[0])["note"] == "New search."


@pytest.mark.parametrize(
    ("version", "canary", "error"),
    [
        ("1", 0, "gets the requests already"),
        ("../1", 0, "is named by"),
        ("", 0, "is named by"),
        ("-rf", 0, "is named by"),
        ("2", 51, "from 0 to 50"),
        ("2", -1, "from 0 to 50"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_done(
    trail: OperationLog, version: str, canary: int, error: str
) -> None:
    steps = FakeSteps()
    with pytest.raises(ReleaseError, match=error):
        release(version, State(active="blue", blue="1"), steps, trail, canary=canary)
    assert steps.done == []


def test_a_restart_moves_the_same_version_to_the_other_slot(trail: OperationLog) -> None:
    steps = FakeSteps()
    state = release("2", release("1", State(), steps, trail), steps, trail)
    steps.done.clear()
    again = restart(state, steps, trail)
    assert again == State(
        active="blue", blue="2", green="2", before="1"
    )  # a rollback goes where it went before
    assert not [step for step in steps.done if "hooks" in step or "migrate" in step]
    steps.fails = "wait_until_healthy"
    with pytest.raises(ReleaseError):
        restart(again, steps, trail)
    assert steps.state.weights == {"blue": 100}
    assert rollback(again, steps, trail).version == "1"
    with pytest.raises(ReleaseError, match="no version to restart"):
        restart(State(), steps, trail)


def test_there_must_be_something_to_go_back_to(trail: OperationLog) -> None:
    with pytest.raises(ReleaseError, match="no version to go back to"):
        rollback(State(active="blue", blue="1"), FakeSteps(), trail)


class Releases(RuleBasedStateMachine):
    """Any order of releases, rollbacks and failures: requests always go to what runs and is remembered."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = FakeSteps()
        self.trail: Any = _Trail(self.steps)

    @rule(
        version=st.sampled_from("123"), fails=st.sampled_from(("", *STEPS)), canary=st.sampled_from((0, 20))
    )
    def move(self, version: str, fails: str, canary: int) -> None:
        self.steps.fails = fails
        with contextlib.suppress(ReleaseError):
            release(version, self.steps.state, self.steps, self.trail, canary=canary, migrate=True)
        self.steps.fails = ""

    @rule(version=st.sampled_from("123"), dies=st.sampled_from(STEPS))
    def die(self, version: str, dies: str) -> None:
        """The machine goes down in the middle: nothing is taken back, and only what nginx reads is known."""
        self.steps.dies = dies
        with contextlib.suppress(Died, ReleaseError):
            release(version, self.steps.state, self.steps, self.trail, canary=20)
        self.steps.dies = ""
        self.steps.dead = False

    @rule(fails=st.sampled_from(("", *STEPS)))
    def again(self, fails: str) -> None:
        self.steps.fails = fails
        with contextlib.suppress(ReleaseError):
            restart(self.steps.state, self.steps, self.trail)
        self.steps.fails = ""

    @rule(fails=st.sampled_from(("", *STEPS)))
    def back(self, fails: str) -> None:
        self.steps.fails, before = fails, self.steps.state
        with contextlib.suppress(ReleaseError):
            killed, routed = self.trail.begun, {before.version, before.newest}
            moved = rollback(before, self.steps, self.trail)
            if killed and killed not in routed and not before.canary:
                assert moved == before
            else:
                assert (
                    moved.version == before.previous == (before.version if before.canary else before.before)
                )
        self.steps.fails = ""

    @invariant()
    def requests_go_where_it_is_remembered(self) -> None:
        state = self.steps.state
        if state.active is not None:
            assert state.weights[state.active] >= 80
            assert self.steps.running[state.active] == state.version


class _Trail:
    """Keeps the last line; nothing is written once the machine is down."""

    def __init__(self, steps: FakeSteps) -> None:
        self._steps, self._last = steps, dict[str, object]()

    def add(self, action: str, **facts: object) -> None:
        if not self._steps.dead:
            self._last = {"action": action, **facts}

    def last_move(self) -> dict[str, object]:
        return self._last

    @property
    def begun(self) -> object:
        """The version whose release has no end."""
        known = (self._last.get("action"), self._last.get("outcome")) == ("release", "begun")
        return self._last["version"] if known else None


TestReleases = Releases.TestCase
TestReleases.settings = settings(
    max_examples=60, stateful_step_count=15, suppress_health_check=[HealthCheck.too_slow]
)


# --- lock, trail, state -----------------------------------------------------------------------


def test_one_at_a_time_and_the_holder_is_named(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    with locked(file, doing="release 2"), pytest.raises(Locked, match=r"release 2 by .+ since"):
        locked(file, doing="release 3").__enter__()
    with locked(file, doing="release 3"):
        pass


def test_the_lock_of_a_process_that_died_is_free(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    code = "import sys, os, pathlib\nfrom mks_deploy.operations.operation_log import locked\n"
    code += "locked(pathlib.Path(sys.argv[1]), doing='x').__enter__()\nos._exit(1)"
    subprocess.run([sys.executable, "-c", code, file], check=False)
    with locked(file, doing="release 3"):
        assert "release 3" in file.read_text()


def test_the_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    paths = "".join(f'{name} = "{tmp_path / name}"\n' for name in ("releases", "nginx"))
    site = read_settings(deployed(f"[paths]\n{paths}"))
    assert read_state(site) == State()
    for state in (
        State("blue", "1"),
        State("green", "1", "2", "1"),
        State("green", "3", "2", before="1", canary=10),
    ):
        as_released(site, state)
        assert read_state(site) == state


@pytest.mark.parametrize(
    "content",
    ["", "# state: {", "# state: []", '# state: {"active": "blue", "colour": "red"}', "# state: null"],
)
def test_a_damaged_state_is_told_and_not_guessed(tmp_path: Path, content: str) -> None:
    site = read_settings(deployed(f'[paths]\nnginx = "{tmp_path}"'))
    upstream = tmp_path / site.name / "upstream.conf"
    upstream.parent.mkdir()
    upstream.write_text(content)
    with pytest.raises(ReleaseError, match=r"upstream\.conf is damaged; .*trail\.jsonl lists"):
        read_state(site)


# A test run in the background of a shell has Ctrl-C ignored, and hands that down.
IN_THE_MIDDLE = """
import signal
import sys
from mks_deploy import cli
from mks_deploy.operations import host_steps

host_steps._run = lambda words: 0
host_steps.ready = lambda *_: True
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(cli.main(["release", "2", "--canary", "10", "--observe", "600", "--settings", sys.argv[1]]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_release_that_is_ended_in_the_middle_takes_its_canary_back(tmp_path: Path, number: int) -> None:
    """A lost terminal, a kill, Ctrl-C."""
    host = Host()
    try:
        host.render()
        (tmp_path / "deploy.toml").write_text(host.settings_text())
        releases = host.path("releases")
        program = releases / "versions/2/venv/bin/gunicorn"
        program.parent.mkdir(parents=True)
        program.touch()
        settings = read_settings(host.settings_text())
        as_released(settings, State(active="blue", blue="1"))
        upstream = host.path("nginx") / "knowledge-system/upstream.conf"
        process = subprocess.Popen(
            [sys.executable, "-c", IN_THE_MIDDLE, tmp_path / "deploy.toml"], stderr=subprocess.DEVNULL
        )
        try:
            wait_until(lambda: "green.sock weight=10" in upstream.read_text(), timeout=60)
            process.send_signal(number)
            assert process.wait(30) != 0
        finally:
            process.kill()
            process.wait()
        assert "green" not in upstream.read_text()
        assert json.loads(OperationLog(releases / "trail.jsonl").last(1)[0])["outcome"] == "refused"
        assert read_state(settings).version == "1"
    finally:
        host.stop()


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """The kernel refuses to write beyond this many bytes of any file, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "state.json"
    replace_file(target, "old", mode=0o600)
    with files_end_at(4), pytest.raises(OSError, match="File too large"):
        replace_file(target, "new and longer")
    assert target.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["state.json"]
    replace_file(target, "new and longer", mode=0o640)
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("new and longer", 0o640)


def test_two_who_replace_a_file_at_once_leave_one_of_theirs(tmp_path: Path) -> None:
    target, contents = tmp_path / "host.prom", [letter * 200_000 for letter in "abcd"]
    with ThreadPoolExecutor() as pool:
        for _ in range(20):
            list(pool.map(lambda content: replace_file(target, content), contents))
            assert target.read_text() in contents


@pytest.mark.parametrize(
    ("secret", "text", "shown"),
    [
        ("k-0123456789\n", "KeyError: k-0123456789", "KeyError: [REDACTED]"),
        ("newest=,oldest=", "no key oldest= here", "no key [REDACTED] here"),
        ("postgresql://a:p%40ss-word@h/d", 'FATAL: "p@ss-word" is wrong', 'FATAL: "[REDACTED]" is wrong'),
        ("AWS_A=first-one\nAWS_B=second-one", "second-one", "[REDACTED]"),
        ("abc", "abcdef", "abcdef"),
        ("http://[", "http://[", "[REDACTED]"),
        ("", "password=hunter2 of nobody", "password=[REDACTED] of nobody"),
    ],
)
def test_a_journal_is_shown_without_secrets(secret: str, text: str, shown: str) -> None:
    assert masked(text, [secret]) == shown


def test_the_journal_is_shown_from_the_last_start_that_ended() -> None:
    raised = {
        "type": "KeyError",
        "text": "Traceback (most recent call last):\n  frames\n  File x\n  y\nKeyError: 'price'",
    }
    start = [
        "Starting shop.service - shop...",
        json.dumps({"level": "INFO", "message": "Booting worker"}),
        json.dumps({"level": "ERROR", "message": "Exception in worker", "exception": raised}),
        '{"level": "ERROR"}',
        "{not JSON",
        *[f"halting {number}" for number in range(40)],
        "shop.service: Failed with result 'exit-code'.",
    ]
    shown = [
        "Starting shop.service - shop...",
        *["ERROR Exception in worker", "  File x", "  y", "KeyError: 'price'"],
        '{"level": "ERROR"}',
        "{not JSON",
        *[f"halting {number}" for number in range(13)],
        "... 8 lines ...",
        *[f"halting {number}" for number in range(21, 40)],
        "shop.service: Failed with result 'exit-code'.",
    ]
    assert last_start("shop.service", [*start, *start, "Starting shop.service - shop..."]) == shown
    assert last_start("shop.service", ["the rest", *start]) == shown
    assert last_start("shop.service", ["no start", "in sight"]) == ["no start", "in sight"]
    assert last_start("shop.service", []) == []


def test_a_trail_keeps_no_half_line(tmp_path: Path) -> None:
    file = tmp_path / "trail.jsonl"
    trail = OperationLog(file)
    trail.add("release", outcome="begun")
    with files_end_at(file.stat().st_size + 10), pytest.raises(OSError, match="File too large"):
        trail.add("release", outcome="done")
    trail.add("rollback", outcome="begun")
    assert [json.loads(line)["action"] for line in trail.last(5)] == ["release", "rollback"]
    # The power failed in the middle of a line: the next one is whole.
    with file.open("a") as stream:
        stream.write('{"action": "rel')
    trail.add("rollback", outcome="done")
    assert json.loads(trail.last(1)[0])["outcome"] == "done"


# --- interrupted ------------------------------------------------------------------------------


def _is_told_and_goes_back_by_one(host: HostInFiles, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever became of the release of 3: ``status`` says what runs, and ``rollback`` goes back to before it."""
    capsys.readouterr()
    host.command("status")
    out = capsys.readouterr().out
    said = re.findall(r"(?m)^([* ]) (\w+) +(\d) ", out)
    most = max(host.served, key=lambda version: host.served[version])
    assert [version for mark, _, version in said if mark == "*"] == [most], (out, host.served)
    assert host.running.items() <= {slot: version for _, slot, version in said}.items(), (out, host.running)
    last = "".join(OperationLog(host.disk / "releases/trail.jsonl").last(1))
    killed = '"begun"' in last and "3" not in host.served
    (host.disk / "filler").unlink(missing_ok=True)
    for before in ("2", "1") if killed else ("2",) if "3" in host.served else ("1",):
        assert host.command("rollback") == 0, capsys.readouterr().err
        assert host.served == {before: 100}
        assert read_state(host.settings).version == before


def _interrupted_at(host: HostInFiles, step: int, capsys: pytest.CaptureFixture[str], *, fills: bool) -> bool:
    """Return whether the release had a step of this number."""
    host.make()
    done = run_until(host, step, "release", "3", "--canary", "10", fills=fills)
    assert fills or done.returncode in {0, -signal.SIGKILL}, done.stderr
    happened = (host.disk / "filler").exists() if fills else done.returncode != 0
    _is_told_and_goes_back_by_one(host, capsys)
    return happened


EACH_STEP = pytest.mark.parametrize(
    "steps",
    [
        pytest.param((9, 13, 17), id="before, during and after the canary"),
        pytest.param(range(1, 100), id="each", marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    ],
)


@EACH_STEP
def test_a_release_that_is_killed_is_told_and_goes_back_by_one(
    steps: Sequence[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in steps:
        if not _interrupted_at(HostInFiles(tmp_path / str(step)), step, capsys, fills=False):
            assert step > 20
            break


@EACH_STEP
def test_a_release_whose_disk_is_full_is_told_and_goes_back_by_one(
    steps: Sequence[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in steps:
        with small_disk(tmp_path / f"disk{step}", "size=1m") as disk:
            if not _interrupted_at(HostInFiles(tmp_path / str(step), disk), step, capsys, fills=True):
                assert step > 20
                break


# --- hooks and versions -----------------------------------------------------------------------


def hooked(host: Host, *, before: str, seconds: int = 60) -> HostSteps:
    """Steps of a host whose version 2 has a Python, and one command before a release."""
    program = host.path("releases") / "versions/2/venv/bin/python"
    program.parent.mkdir(parents=True)
    program.symlink_to(sys.executable)
    (program.parents[2] / "hook.py").write_text(before)
    host.render()
    secrets = host.path("credentials")
    secrets.mkdir()
    for name in ("secret_keys", "database_url", "redis_url"):
        (secrets / name).write_text("x")
    for folder in (host.folder, *host.folder.rglob("*")):
        folder.chmod(0o755)
    text = f'[release]\nbefore = [["python", "hook.py"]]\nhook_timeout = "{seconds}s"'
    return HostSteps(read_settings(host.settings_text(text)))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; assert os.environ['DEPLOY_VERSION'] + os.environ['DEPLOY_PREVIOUS'] == '21'", ""),
        ("import os; assert os.environ['DEPLOY_ACTION'] == 'release' and os.environ['MKS_ENV']", ""),
        ("raise SystemExit(3)", "release.before: python hook.py ended with 3"),
        ("import time; time.sleep(600)", "release.before: python hook.py: python took longer than 1 s"),
    ],
)
def test_a_hook_is_a_command_of_the_version(code: str, reason: str) -> None:
    host = Host()
    try:
        steps = hooked(host, before=code, seconds=1 if "took" in reason else 60)
        move = Move("release", "2", "1")
        steps.run_hooks("after", move)  # there is none
        if reason:
            with pytest.raises(ReleaseError) as error:
                steps.run_hooks("before", move)
            assert str(error.value) == reason
        else:
            steps.run_hooks("before", move)
    finally:
        host.stop()


def test_a_hook_whose_program_is_not_there_is_refused() -> None:
    host = Host()
    try:
        steps = hooked(host, before="")
        (host.path("releases") / "versions/2/venv/bin/python").unlink()
        with pytest.raises(ReleaseError, match=r"release.before: python hook.py: No such file"):
            steps.run_hooks("before", Move("release", "2", "1"))
    finally:
        host.stop()


def version(name: str, use: str = "", moved: str = "", outcome: str = "") -> VersionFolder:
    return VersionFolder(name, use, moved, outcome)  # type: ignore[arg-type] # each row names one of the uses


@pytest.mark.parametrize(
    ("versions", "keep", "deleted"),
    [
        ([], 0, ()),
        ([version("1", "running", "09")], 0, ()),
        ([version("1", "previous", "08"), version("2", "running", "09")], 0, ()),
        ([version("1", "", "07"), version("2", "pinned", "06"), version("3", "", "05")], 0, ("3", "1")),
        ([version("1", "", "07"), version("2", "", "06"), version("3", "", "05")], 1, ("3", "2")),
        ([version("1", "", "07"), version("2", "", "06")], 5, ()),
        # A build that failed is of no use, unless the version runs all the same.
        ([version("1", "running", outcome="not built"), version("2", outcome="not built")], 5, ("2",)),
        # Never released: somebody may be preparing it.
        (
            [version("4"), version("1", "", "07"), version("2", "in a slot"), version("3", "current")],
            0,
            ("1",),
        ),
    ],
)
def test_what_is_pruned(versions: list[VersionFolder], keep: int, deleted: tuple[str, ...]) -> None:
    assert plan_prune(versions, keep) == deleted


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "running", "previous", "pinned"]), st.sampled_from(["", "1", "2", "3"])
        ),
        max_size=12,
    ),
    st.integers(0, 6),
)
def test_nothing_in_use_is_ever_pruned(rows: list[tuple[str, str]], keep: int) -> None:
    versions = [version(str(number), use, moved) for number, (use, moved) in enumerate(rows)]
    deleted = set(plan_prune(versions, keep))
    unused = {each.name for each in versions if not each.use and each.moved}
    assert deleted <= unused
    assert len(unused - deleted) == min(keep, len(unused))


def test_a_version_that_is_being_built_is_not_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host, lock = HostInFiles(tmp_path), tmp_path / "lock"
    host.make()
    built = host.disk / "releases/versions/4"
    built.mkdir()
    (built / BUILDING).touch()
    monkeypatch.setattr(release_commands, "lock_file", lambda _: lock)
    # As mks-deploy up runs pip on the host.
    work = subprocess.Popen([program("flock"), lock, "cat"], stdin=subprocess.PIPE)
    try:
        wait_until(lambda: is_held_by_shell(lock), what="the lock")
        assert host.command("versions", "prune") == 0
        assert built.exists()
    finally:
        work.communicate()
    # mks-deploy apply, which has the lock, releases what was built.
    with locked(lock, doing="mks-deploy apply"):
        assert host.command("versions", "prune") == 0
    assert not built.exists()


def test_versions_are_listed_with_what_became_of_them(tmp_path: Path, trail: OperationLog) -> None:
    for name in ("1", "2", "3", "4", "failed", "never"):
        (tmp_path / "versions" / name).mkdir(parents=True)
    for name in ("1", "failed"):
        (tmp_path / "versions" / name / ".building").touch()
    (tmp_path / "versions/1/.built").touch()
    (tmp_path / "versions/1/.keep").touch()
    state, steps = State(), FakeSteps()
    for name in "123":
        state = release(name, state, steps, trail, note=f"notes of {name}")
    steps.fails = "prepare"
    with pytest.raises(ReleaseError):
        release("4", state, steps, trail)
    found = {each.name: each for each in listed_versions(tmp_path, state, trail)}
    assert list(found) == ["4", "3", "2", "1", "failed", "never"]
    assert [(each.use, each.outcome) for each in found.values()] == [
        ("", "refused"),
        ("running", "done"),
        ("previous", "done"),
        ("pinned", "done"),
        ("", "not built"),
        ("", ""),
    ]
    assert found["3"].note == "notes of 3"
    assert plan_prune(found.values(), 0) == ("failed", "4")
    # Half deleted by somebody whose machine went down.
    for name in ("0", "4"):
        (tmp_path / f"versions/.{name}.deleting/venv").mkdir(parents=True)
    assert prune(tmp_path, ["4"]) == ["4"]
    assert sorted(path.name for path in (tmp_path / "versions").iterdir()) == [
        "1",
        "2",
        "3",
        "failed",
        "never",
    ]


def test_the_journal_gets_every_field_whole(tmp_path: Path) -> None:
    address = str(tmp_path / "journal")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(address)
        announce("shop", "version 2\nPRIORITY=0\x1b[2J", journal=address, DEPLOY_VERSION="2")
        datagram = journal.recv(4096)
    fields, rest = {}, datagram
    while rest:
        name, _, rest = rest.partition(b"\n")
        size = int.from_bytes(rest[:8], "little")
        fields[name], rest = rest[8 : 8 + size], rest[9 + size :]
    assert fields[b"MESSAGE"].decode() == "version 2\nPRIORITY=0\ufffd[2J"
    assert (fields[b"PRIORITY"], fields[b"DEPLOY_VERSION"]) == (b"5", b"2")
    announce("shop", "nobody listens", journal=str(tmp_path / "absent"))


PAGE = Path(__file__).parents[2] / "docs" / "en" / "how-to" / "releases.md"


@pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not part of the wheel")
def test_the_page_names_commands_and_settings_that_exist() -> None:
    blocks = dict[str, list[str]]()
    for kind, text in re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        blocks.setdefault(kind, []).append(text)
    lines = [line for text in blocks["sh"] for line in text.splitlines() if line.startswith("mks-deploy ")]
    assert len(lines) == 12
    for line in lines:
        parser().parse_args(shlex.split(line)[1:])
    assert read_settings(deployed(*blocks["toml"])).release.after == (("python", "manage.py", "clear_cache"),)


# --- static files -----------------------------------------------------------------------------


def test_the_address_of_a_page_names_the_digest_under_which_the_file_lies(tmp_path: Path) -> None:
    from knowledge_system import web
    from knowledge_system.web.rendering import _digest

    source = Path(str(web.__file__)).parent.parent / "static"
    assert publish(source, tmp_path, version=source) >= 3
    assert publish(source, tmp_path, version=source) == 0
    for name in ("app.css", "session.js", "logo.svg"):
        published = tmp_path / "by-digest" / _digest(name) / "static" / name
        assert published.read_bytes() == (source / name).read_bytes()
    assert (tmp_path / "static/app.css.gz").exists()


def test_files_of_both_versions_lie_side_by_side(tmp_path: Path) -> None:
    for content in ("old " * 500, "new " * 500):
        (tmp_path / "source").mkdir(exist_ok=True)
        (tmp_path / "source/app.css").write_text(content)
        publish(tmp_path / "source", tmp_path / "public", version=tmp_path)
    assert len(list((tmp_path / "public/by-digest").iterdir())) == 2
    assert (tmp_path / "public/static/app.css").read_text().startswith("new")


def test_a_compressed_file_never_holds_another_content_than_the_file(tmp_path: Path) -> None:
    """nginx serves it in place of the file: one that a former version or an interrupted run left is replaced."""
    source, packed = tmp_path / "source/app.css", tmp_path / "public/static/app.css.gz"
    source.parent.mkdir()
    source.write_text("old " * 500)
    publish(source.parent, tmp_path / "public", version=tmp_path)
    packed.write_bytes(gzip.compress(b"new " * 500))
    publish(source.parent, tmp_path / "public", version=tmp_path)
    assert gzip.decompress(packed.read_bytes()) == source.read_bytes()
    source.write_text("short")
    publish(source.parent, tmp_path / "public", version=tmp_path)
    assert not packed.exists()
    # One that the application has itself stays.
    (source.parent / "app.css.gz").write_bytes(gzip.compress(b"short"))
    assert publish(source.parent, tmp_path / "public", version=tmp_path) == 1
    assert publish(source.parent, tmp_path / "public", version=tmp_path) == 0
    assert packed.exists()


def test_a_link_is_published_unless_it_leads_out_of_the_version(tmp_path: Path) -> None:
    """`collectstatic --link` makes links to packages; someone could commit one to a file of the host."""
    version, public = tmp_path / "1", tmp_path / "public"
    (version / "static").mkdir(parents=True)
    (version / "package.css").write_text("p {}")
    (version / "static/package.css").symlink_to(version / "package.css")
    publish(version / "static", public, version=version)
    (tmp_path / "key").write_text("secret")
    (version / "static/z.css").symlink_to(tmp_path / "key")
    with pytest.raises(PermissionError, match="leads out of"):
        publish(version / "static", public, version=version)
    assert "secret" not in {file.read_text() for file in public.rglob("*.css")}


def test_the_folder_of_uploads_is_a_folder_of_the_version(tmp_path: Path) -> None:
    version, elsewhere = tmp_path / "1", tmp_path / "elsewhere"
    version.mkdir()
    elsewhere.mkdir()
    (version / "shop").symlink_to(elsewhere)
    with pytest.raises(PermissionError, match="leads out of"):
        link_uploads(version / "shop/media", tmp_path / "uploads", version=version)
    assert list(elsewhere.iterdir()) == []


# --- links of the account ---------------------------------------------------------------------


@pytest.fixture
def linked() -> Iterator[tuple[Host, Path]]:
    """A host whose account has put links to a folder of root's into its own."""
    host = Host()
    host.render()
    victim = host.folder / "victim"
    victim.mkdir()
    state = own_folder(host.path("state"))
    for name in ("maintenance.on", "public", "static", "metrics", "mail-sink", "log-buffer"):
        plant(state / name, victim / "made" if name == "maintenance.on" else victim)
    (host.folder / "deploy.toml").write_text(host.settings_text('[app]\nstatic = "static"'))
    yield host, victim
    host.stop()


def test_maintenance_and_static_files_follow_no_link_of_the_account(linked: tuple[Host, Path]) -> None:
    host, victim = linked
    words = ["--settings", str(host.folder / "deploy.toml")]
    assert main(["maintenance", "on", *words]) == 0
    folder = host.path("releases") / "versions/1"
    for name in ("venv/bin/gunicorn", "static/app.css"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(name)
    steps = HostSteps(read_settings((host.folder / "deploy.toml").read_text()), command=lambda _: 0)
    steps.prepare("blue", "1")
    assert list(victim.iterdir()) == []
    assert (host.path("releases") / "public/static/app.css").read_text() == "static/app.css"


def test_a_file_that_the_account_chooses_is_not_published(linked: tuple[Host, Path]) -> None:
    """Root's own link leads to a folder of the account, which puts another one there."""
    host, victim = linked
    (victim / "secret").write_text("secret")
    source = host.path("releases") / "versions/1/static"
    source.mkdir(parents=True)
    (source / "app.css").symlink_to(host.path("state") / "static/secret")
    with pytest.raises(PermissionError, match="root follows no link that another account can make"):
        publish(source, host.path("releases") / "public", version=source)
    assert not list((host.path("releases") / "public").rglob("app.css"))


def _make_links(folder: Path) -> None:
    """Make folders and links, of root and of another account."""
    own = own_folder(folder / "own")
    (folder / "shared").mkdir()
    (folder / "shared").chmod(0o777)
    (folder / "sticky").mkdir()
    (folder / "sticky").chmod(0o1777)
    (folder / "sticky/mine").mkdir()
    for name in ("archived", "grouped"):
        (folder / name).mkdir()
        (folder / name).chmod(0o775)
    shutil.chown(folder / "grouped", group=1)
    plant(own / "link", folder)
    (folder / "roots").symlink_to(folder / "sticky/mine")
    (folder / "theirs").symlink_to(own / "link")


@pytest.mark.parametrize(
    ("path", "refused"),
    [
        ("new", False),
        ("new/below", False),
        ("sticky/mine/new", False),
        ("roots/new", False),
        ("roots/../mine/new", False),
        ("archived/new", False),  # as git archive makes folders: root's group may write
        ("grouped/new", True),
        ("own/new", True),
        ("own/link/new", True),
        ("theirs/new", True),
        ("theirs", True),
        ("shared/new", True),
        ("sticky/new", True),  # another account can make it first
    ],
)
def test_where_another_account_can_put_a_link_root_does_not_go(
    path: str,
    refused: bool,  # noqa: FBT001 - a row of the table
    tmp_path: Path,
) -> None:
    _make_links(tmp_path)
    if refused:
        with pytest.raises(PermissionError, match="root follows no link that another account can make"):
            refuse_foreign_path(tmp_path / path)
    else:
        refuse_foreign_path(tmp_path / path)


@pytest.mark.parametrize("words", ["watch --record", "sink"])
def test_what_a_unit_of_the_account_writes_is_not_written_by_root(
    words: str, linked: tuple[Host, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    host, victim = linked
    file = host.folder / "deploy.toml"
    staging = '[site]\nenvironment = "staging"\n[upkeep]\nmail_sink = true\n'
    file.write_text(host.settings_text(staging if words == "sink" else ""))
    assert main([*words.split(), "--settings", str(file)]) == 2
    assert "root follows no link that another account can make" in capsys.readouterr().err
    assert list(victim.iterdir()) == []


# --- the canary -------------------------------------------------------------------------------


def served(requests: int, *, errors: int = 0, seconds: float = 0.02) -> SlotStatistics:
    return SlotStatistics(errors, [seconds] * requests)


@pytest.mark.parametrize(
    ("canary", "old", "reason"),
    [
        (served(0), served(0), ""),
        (served(10, errors=2), served(100), ""),  # too few to say anything
        (served(10, errors=3), served(100), "has more errors"),
        (served(1000, errors=9), served(1000), ""),
        (served(1000, errors=11), served(1000), "has more errors"),
        # The database is away: both are as bad as each other.
        (served(100, errors=60), served(900, errors=500), ""),
        (served(49, seconds=9), served(1000), ""),
        (served(50, seconds=0.2), served(1000), "is slower"),
        (served(50, seconds=0.2), served(49), ""),
        (served(50, seconds=0.12), served(1000), ""),
        (served(50, seconds=3), served(1000, seconds=2.5), ""),
    ],
)
def test_a_canary_is_compared_with_the_old_version(
    canary: SlotStatistics, old: SlotStatistics, reason: str
) -> None:
    assert compare(canary, old).startswith(reason)
    assert bool(compare(canary, old)) is bool(reason)


def test_each_attempt_of_nginx_counts_for_the_slot_that_made_it() -> None:
    lines = [
        '{"upstream":"unix:/run/blue.sock","upstream_status":"200","upstream_seconds":"0.010"}',
        '{"upstream":"unix:/g.sock, unix:/run/blue.sock","upstream_status":"502, 200","upstream_seconds":"0, .02"}',
        '{"upstream":"unix:/g.sock","upstream_status":"-","upstream_seconds":"-","status":502}',
        '{"upstream":"unix:/g.sock","upstream_status":"-","upstream_seconds":"9","status":499}',
        '{"upstream":"","upstream_status":"","upstream_seconds":""}',
        "{",
    ]
    blue, green = SlotStatistics(), SlotStatistics()
    served_by(lines, {"/run/blue.sock": blue, "/g.sock": green})
    assert (blue.requests, blue.errors, blue.p95) == (2, 0, 0.02)
    assert (green.requests, green.errors) == (2, 2)


def test_the_log_is_followed_over_a_rotation(tmp_path: Path) -> None:
    file = tmp_path / "access.log"
    file.write_text("before\n")
    log = AccessLog(file)
    with contextlib.closing(log), file.open("a") as old:
        old.write("1\n2")
        old.flush()
        assert list(log.added()) == ["1"]
        file.rename(tmp_path / "access.log-1")
        old.write("\n3\n")
        old.flush()
        file.write_text("4\n")
        assert list(log.added()) == ["2", "3", "4"]
        assert list(log.added()) == []


# --- on a host --------------------------------------------------------------------------------


def _short(seconds: float) -> None:
    time.sleep(seconds / 4)


class Site:
    """nginx, two slots, and a stand-in for systemctl that starts and stops what units would."""

    def __init__(self, certificates: Any) -> None:
        self.host = Host(certificates)
        self.host.render()
        self.settings = read_settings(self.host.settings_text())
        for version in ("1", "2", "3", "broken", "fails", "slow"):
            program = self.host.path("releases") / "versions" / version / "venv/bin/gunicorn"
            program.parent.mkdir(parents=True)
            program.touch()
        self.slots: dict[str, Any] = {}
        self.calls: list[str] = []
        self.steps = HostSteps(
            self.settings, command=self.command, observed=1, drained=2, patience=8, pause=_short
        )
        self.trail = OperationLog(self.host.folder / "trail.jsonl")
        self.nginx = self.host.start_nginx()

    def command(self, words: Sequence[str]) -> int:
        self.calls.append(" ".join(words))
        if words[0] == "nginx":
            return subprocess.run(
                self.host.nginx_command(*words[1:3]), check=False, capture_output=True
            ).returncode
        slot = next((slot for slot in ("blue", "green") if f"@{slot}." in self.calls[-1]), "")
        if words[1] in {"start", "enable"}:
            link = self.host.path("releases") / "slots" / slot
            broken = link.resolve().name == "broken"
            self.slots[slot] = self.host.start_application(
                slot, ECHO_READY="no" if broken else "yes", ECHO_VERSION=link.resolve().name
            )
        elif words[1] in {"stop", "disable"} and slot in self.slots:
            self.slots.pop(slot).stop()
        elif words[1] == "reload":
            return subprocess.run(
                self.host.nginx_command("-s", "reload"), check=False, capture_output=True
            ).returncode
        return 0


@pytest.fixture
def site(certificates: Any) -> Iterator[Site]:
    site = Site(certificates)
    yield site
    site.host.stop()


class Load:
    """Clients that ask all the time, each on a new connection; what came back is counted."""

    def __init__(self, host: Host) -> None:
        self.seen: Counter[str] = Counter()
        self._host = host
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._ended.is_set():
            answer = self._host.ask("/")
            word = "nothing" if answer is None else str(answer.status)
            if answer is not None and answer.status == 200:
                word = "version " + answer.json()["version"]
            self.seen[word] += 1
            self._ended.wait(0.05)  # below the rate that nginx lets one address have


@pytest.mark.nginx
def test_release_and_rollback_under_load_lose_no_request(site: Site) -> None:
    state = release("1", State(), site.steps, site.trail)
    with Load(site.host) as load:
        state = release("2", state, site.steps, site.trail, canary=20)
        state = rollback(state, site.steps, site.trail)
    assert load.seen.keys() == {"version 1", "version 2"}, load.seen
    assert min(load.seen.values()) > 10
    assert state.version == "1"
    assert site.slots.keys() == {"blue"}


@pytest.mark.nginx
def test_while_there_is_a_canary_a_visitor_stays_on_one_version(site: Site) -> None:
    release("1", State(), site.steps, site.trail)
    site.steps.prepare("green", "2")
    site.steps.start("green")
    site.steps.wait_until_healthy("green")
    first = site.host.ask("/")
    assert first is not None
    assert first.all("Set-Cookie") == []  # no canary, no cookie
    site.steps.route(State("blue", canary=50))
    seen = Counter[str]()
    # For a moment after a reload, a former worker of nginx may still accept connections.
    wait_until(
        lambda: all(site.host.ask("/").all("Set-Cookie") for _ in range(20)), timeout=20, what="the canary"
    )
    for _ in range(12):
        answer = site.host.ask("/")
        assert answer is not None
        cookie = answer.one("Set-Cookie")
        assert cookie.startswith("__Host-knowledge-system-canary=")
        assert cookie.endswith("; Path=/; Max-Age=86400; Secure; HttpOnly; SameSite=Lax")
        named = cookie.partition(";")[0]
        again = [site.host.ask("/", fields={"Cookie": f"other=1; {named}; more=2"}) for _ in range(4)]
        assert {each.json()["version"] for each in again} == {answer.json()["version"]}
        assert [each.all("Set-Cookie") for each in again] == [[]] * 4
        seen[answer.json()["version"]] += 1
    assert seen.keys() == {"1", "2"}, seen
    # A made-up cookie is replaced, and nginx's own pages and files set none.
    odd = site.host.ask("/", fields={"Cookie": "__Host-knowledge-system-canary=green"})
    assert odd is not None
    assert odd.one("Set-Cookie")
    assert site.host.ask("/static/none.css").all("Set-Cookie") == []
    site.steps.route(State("green"))
    wait_until(lambda: not site.host.ask("/").all("Set-Cookie"), timeout=10, what="the end of the canary")


@pytest.mark.nginx
@pytest.mark.slow
def test_a_version_that_is_not_healthy_never_gets_a_request(site: Site) -> None:
    state = release("1", State(), site.steps, site.trail)
    with Load(site.host) as load, pytest.raises(ReleaseError, match="within 8 s: /readyz responded with 503"):
        release("broken", state, site.steps, site.trail)
    assert load.seen.keys() == {"version 1"}
    assert read_state(site.settings).version == "1"


@pytest.mark.nginx
@pytest.mark.parametrize(
    ("error", "reason"),
    [("fails", "has more errors than the old version"), ("slow", "is slower than the old version")],
)
def test_a_canary_that_is_worse_than_the_old_version_is_taken_back(
    site: Site, error: str, reason: str
) -> None:
    """It is healthy, as far as ``/readyz`` knows."""
    state = release("1", State(), site.steps, site.trail)
    steps = HostSteps(site.settings, command=site.command, observed=100, drained=2, patience=8, pause=_short)
    with Load(site.host) as load, pytest.raises(ReleaseError, match=reason):
        release(error, state, steps, site.trail, canary=50)
    assert load.seen["version 1"] > 0
    assert site.slots.keys() == {"blue"}
    assert "green" not in (site.host.path("nginx") / "knowledge-system/upstream.conf").read_text()
    assert reason in site.trail.last(1)[0]


# What it would run is written to its output; the code is read from its input.
ASKING = """
import json, sys
from mks_deploy import cli
from mks_deploy.operations import host_steps

def ask(words):
    print(json.dumps(words), flush=True)
    return int(sys.stdin.readline())

host_steps._run = ask
sys.exit(cli.main(sys.argv[1:]))
"""


def _kill_at_the_second_reload(site: Site, *words: str, after: bool) -> None:
    """The first one takes back what an interrupted release may have left; the second one moves requests."""
    command = [sys.executable, "-c", ASKING, *words]
    reloads = 0
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in process.stdout:
            asked = json.loads(line)
            reloads += asked[1] == "reload"
            if reloads == 2 and not after:
                process.kill()
                break
            code = site.command(asked)
            if reloads == 2:
                process.kill()
                break
            process.stdin.write(f"{code}\n")
            process.stdin.flush()
    assert (process.returncode, reloads) == (-signal.SIGKILL, 2)


@pytest.mark.nginx
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nginx_sends_requests_where_status_says_after_a_killed_release(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = functools.partial(HostSteps, command=site.command, drained=2, patience=20, pause=_short)
    monkeypatch.setattr("mks_deploy.cli.release_commands.HostSteps", steps)
    release("2", release("1", State(), site.steps, site.trail), site.steps, site.trail)
    file = site.host.folder / "deploy.toml"
    file.write_text(site.host.settings_text())
    given = ("--settings", str(file))

    def versions() -> set[str]:
        answers = [site.host.ask("/") for _ in range(40)]
        return {answer.json()["version"] for answer in answers if answer and answer.status == 200}

    for canary, after in ((50, False), (50, True), (0, False), (0, True)):
        words = ("release", "3", "--canary", str(canary), "--observe", "600", *given)
        _kill_at_the_second_reload(site, *words, after=after)
        assert main(["status", *given]) == 0
        said = dict(re.findall(r"(?m)^([* ]) \w+ +(\d) +ready", capsys.readouterr().out))
        served = {"2", "3"} if canary else {"3"}
        # For a moment after a reload, a former worker of nginx may still accept connections.
        wait_until(lambda now=served: versions() == now, timeout=20, what=str(served))  # type: ignore[misc] # bound now
        assert said == ({"*": "2", " ": "3"} if canary else {"*": "3", " ": "2"})
        assert main(["rollback", *given]) == 0
        wait_until(lambda: versions() == {"2"}, timeout=20, what="the version before")


@pytest.mark.nginx
def test_what_nginx_does_not_take_is_taken_back(site: Site) -> None:
    state = release("1", State(), site.steps, site.trail)
    upstream = site.host.path("nginx") / "knowledge-system/upstream.conf"
    before = upstream.read_text()
    broken = site.host.path("nginx") / "sites-enabled/broken.conf"
    broken.write_text("nonsense;")
    with pytest.raises(ReleaseError, match="requests go where they went"):
        site.steps.route(State("green", before="1"))
    assert upstream.read_text() == before
    assert [path.name for path in upstream.parent.iterdir() if "upstream" in path.name] == ["upstream.conf"]
    broken.unlink()
    assert state.active == "blue"


@pytest.mark.parametrize(
    ("age", "refused"),
    [(None, True), (27 * 3600, True), (3600, False)],
    ids=["no backup", "old backup", "fresh backup"],
)
def test_migrations_want_a_fresh_backup(age: int | None, refused: bool) -> None:  # noqa: FBT001 - a row of the table
    host = Host()
    try:
        calls: list[str] = []
        settings = read_settings(host.settings_text())
        steps = HostSteps(settings, command=lambda words: calls.append(" ".join(words)) or 0)
        if age is not None:
            mark = host.path("backups") / "20261101T000000Z/complete"
            mark.parent.mkdir(parents=True)
            mark.touch()
            os.utime(mark, (time.time() - age,) * 2)
        if refused:
            with pytest.raises(ReleaseError, match=r"systemctl start knowledge-system-backup\.service"):
                steps.migrate("2")
        else:
            steps.migrate("2")
        assert calls == ([] if refused else ["systemctl start knowledge-system-migrate@2.service"])
    finally:
        host.stop()


def test_a_folder_without_a_program_is_no_version() -> None:
    host = Host()
    try:
        with pytest.raises(ReleaseError, match="is not a version"):
            HostSteps(read_settings(host.settings_text())).prepare("blue", "3")
    finally:
        host.stop()


@pytest.mark.parametrize(
    ("there", "refused"),
    [((), False), ((".gitkeep",), False), (("logo.png",), True)],
    ids=["no folder", "an empty one", "files of the version"],
)
def test_what_users_hand_in_outlives_a_version(there: tuple[str, ...], refused: bool) -> None:  # noqa: FBT001
    host = Host()
    try:
        steps = HostSteps(read_settings(host.settings_text() + '[media]\nfolder = "shop/media"\n'))
        for version in ("1", "2"):
            program = host.path("releases") / "versions" / version / "venv/bin/gunicorn"
            program.parent.mkdir(parents=True)
            program.touch()
        uploads, folder = host.path("state") / "uploads", host.path("releases") / "versions/1/shop/media"
        uploads.mkdir(exist_ok=True)
        for name in there:
            folder.mkdir(parents=True)
            (folder / name).touch()
        if refused:
            with pytest.raises(ReleaseError, match=r"shop/media has files of the version"):
                steps.prepare("blue", "1")
            return
        steps.prepare("blue", "1")
        (folder / "photo.jpg").write_text("photo")
        steps.prepare("green", "2")
        steps.prepare("blue", "1")  # going back
        assert (folder.parents[2] / "2/shop/media/photo.jpg").read_text() == "photo"
        assert (uploads / "photo.jpg").exists()
    finally:
        host.stop()


@pytest.mark.parametrize("committed", [True, False])
def test_the_database_of_sqlite_outlives_a_version(committed: bool) -> None:  # noqa: FBT001
    host = Host()
    try:
        steps = HostSteps(read_settings(host.settings_text('[stores]\nsqlite = "instance/shop.db"\n')))
        files = {each: host.path("releases") / "versions" / each / "instance/shop.db" for each in ("1", "2")}
        for file in files.values():
            program = file.parents[1] / "venv/bin/gunicorn"
            program.parent.mkdir(parents=True)
            program.touch()
            if committed:
                file.parent.mkdir()
                file.write_text("of a laptop")
        kept = host.path("state") / "uploads/private/database/shop.db"
        kept.parent.mkdir(parents=True)
        steps.prepare("blue", "1")
        with contextlib.closing(sqlite3.connect(files["1"])) as database, database:
            database.execute("CREATE TABLE article (title text)")
        steps.prepare("green", "2")
        steps.prepare("blue", "1")  # going back
        with contextlib.closing(sqlite3.connect(files["2"])) as database:
            assert database.execute("SELECT name FROM sqlite_schema").fetchall() == [("article",)]
        assert kept.is_file()
        elsewhere = host.folder / "elsewhere"
        elsewhere.mkdir()
        files["1"].unlink()
        files["1"].parent.rmdir()
        files["1"].parent.symlink_to(elsewhere)
        with pytest.raises(ReleaseError, match="leads out of"):
            steps.prepare("blue", "1")
        assert list(elsewhere.iterdir()) == []
    finally:
        host.stop()


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    host = Host()
    try:
        file = tmp_path / "deploy.toml"
        file.write_text(host.settings_text())
        releases = host.path("releases")
        words = ["--settings", str(file)]
        assert main(["rollback", *words]) == 1
        assert "no version to go back to" in capsys.readouterr().err
        assert main(["release", "3", *words]) == 1
        assert "is not a version" in capsys.readouterr().err
        with locked(releases / ".lock", doing="release 2"):
            assert main(["release", "3", *words]) == 1
        assert "locked: release 2 by" in capsys.readouterr().err
        as_released(read_settings(file.read_text()), State(active="blue", blue="1"))
        assert main(["status", *words]) == 1
        out = capsys.readouterr().out
        assert out.startswith("* blue   1                        not ready\n  green  -")
        assert '"outcome": "refused"' in out
        assert main(["maintenance", "on", *words]) == 0
        assert (host.path("releases") / "maintenance.on").exists()
        assert main(["maintenance", "off", *words]) == main(["maintenance", "off", *words]) == 0
        assert not (host.path("releases") / "maintenance.on").exists()
        for name in ("0", "1"):
            (releases / "versions" / name).mkdir(parents=True)
        OperationLog(releases / "trail.jsonl").add(
            "release", outcome="refused", version="0", note="Faster.\nx"
        )
        assert main(["versions", "list", *words]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert re.fullmatch(r"0 +- +\d{4}-\d\d-\d\d \d\d:\d\d refused +\S+ Faster\.", lines[0])
        assert re.fullmatch(r"1 +running +never released", lines[1])
        assert main(["versions", "prune", "--keep", "0", "--plan", *words]) == 0
        assert capsys.readouterr().out == "would delete 0\n"
        assert main(["versions", "prune", *words]) == 0
        assert capsys.readouterr().out == "deleted nothing\n"
        assert main(["versions", "prune", "--keep", "0", *words]) == 0
        assert capsys.readouterr().out == "deleted 0\n"
        assert [path.name for path in (releases / "versions").iterdir()] == ["1"]
        with pytest.raises(SystemExit, match="2"):
            main(["versions", "prune", "--keep", "-1", *words])
    finally:
        host.stop()

"""The commands of the tree: which Python they take, what they say when something is missing, what stays."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from testbed import package_map

TOOLS = package_map.ROOT / "tools"


def _tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tool_{name}", TOOLS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOLS)  # tools import each other
        spec.loader.exec_module(module)
    return module


def _program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


# --- tools/python


def _tools_python(path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(TOOLS / "python"), "-c", "print('ran')"],
        env={"PATH": str(path), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


REAL = f'exec {sys.executable} "$@"'
OLD = "exit 1"
SHIM = "echo 'not installed' >&2; exit 127"


@pytest.mark.parametrize(
    "programs",
    [
        {"python3": REAL},
        {"python3": OLD, "python3.12": REAL},
        {"python3": SHIM, "python3.13": SHIM, "python3.11": REAL},
    ],
)
def test_the_first_fitting_python_is_taken(tmp_path: Path, programs: dict[str, str]) -> None:
    for name, text in programs.items():
        _program(tmp_path, name, text)
    assert _tools_python(tmp_path).stdout == "ran\n"


def test_without_a_python_it_says_what_to_install(tmp_path: Path) -> None:
    _program(tmp_path, "python3", OLD)
    done = _tools_python(tmp_path)
    assert done.returncode == 1
    assert "apt-get install python3 python3-venv" in done.stderr


def test_a_named_python_wins_and_must_fit(tmp_path: Path) -> None:
    _program(tmp_path, "python3", REAL)
    assert _tools_python(tmp_path, MKS_PYTHON=sys.executable).stdout == "ran\n"
    refused = _tools_python(tmp_path, MKS_PYTHON="/no/such/python")
    assert refused.returncode == 1
    assert "/no/such/python is not a Python 3.11 or newer" in refused.stderr


# --- tools/setup_venv.py


@pytest.mark.parametrize("absent", ["venv", "ensurepip"])
def test_a_python_without_venv_gets_the_line_for_apt(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = _tool("setup_venv")
    monkeypatch.setattr(tool.importlib.util, "find_spec", lambda name: None if name == absent else object())
    with pytest.raises(SystemExit) as ended:
        tool.make_venv()
    assert "ensurepip is not available" in str(ended.value)
    assert "apt-get install -y python3-venv" in str(ended.value)


@pytest.mark.parametrize("state", ["absent", "broken", "works"])
def test_a_broken_environment_is_noticed(tmp_path: Path, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = _tool("setup_venv")
    python = tmp_path / "python"
    if state != "absent":
        _program(tmp_path, "python", "exit 0" if state == "works" else "exit 127")
    monkeypatch.setattr(tool, "PYTHON", python)
    assert tool.venv_works() is (state == "works")


def test_pip_that_fails_shows_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = _tool("setup_venv")
    _program(tmp_path, "pip", "echo 'Collecting nothing'; echo 'ERROR: no route to host'; exit 7")
    monkeypatch.setattr(tool, "PIP", [str(tmp_path / "pip")])
    monkeypatch.setattr(tool, "UV", tmp_path / "absent")
    with pytest.raises(SystemExit) as ended:
        tool.install([], count=1)
    assert "ERROR: no route to host" in str(ended.value)
    assert "exit 7" in str(ended.value)


@pytest.mark.parametrize(
    ("uv", "installed_by"), [("exit 0", ["uv"]), ("exit 2", ["uv", "pip"]), ("", ["pip"])], ids=str
)
def test_pip_is_used_if_uv_fails_or_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uv: str, installed_by: list[str]
) -> None:
    tool, calls = _tool("setup_venv"), tmp_path / "calls"
    _program(tmp_path, "pip", f"echo pip $* >> {calls}")
    if uv:
        _program(tmp_path, "uv", f"echo uv $* >> {calls}; {uv}")
    monkeypatch.setattr(tool, "PIP", [str(tmp_path / "pip")])
    monkeypatch.setattr(tool, "UV", tmp_path / "uv")
    tool.install(["--require-hashes", "-r", "lock.txt"], count=1)
    lines = calls.read_text().splitlines()
    assert [line.split()[0] for line in lines] == installed_by
    assert all(line.endswith("--require-hashes -r lock.txt") for line in lines)


@pytest.mark.parametrize(
    ("settings", "uses_uv"),
    [("global.cert='/etc/ca.crt'", True), ("", True), ("global.index-url='https://index.example/'", False)],
)
def test_pip_is_used_if_it_has_a_custom_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str, *, uses_uv: bool
) -> None:
    tool = _tool("setup_venv")
    _program(tmp_path, "pip", f'echo "{settings}"')
    monkeypatch.setattr(tool, "PIP", [str(tmp_path / "pip")])
    assert tool.pip_has_custom_index() is not uses_uv


def test_without_its_pinned_version_uv_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = _tool("setup_venv")
    _program(tmp_path, "pip", "exit 1")
    _program(tmp_path, "uv", "exit 0")
    monkeypatch.setattr(tool, "PIP", [str(tmp_path / "pip")])
    monkeypatch.setattr(tool, "UV", tmp_path / "uv")
    tool.install_uv()
    assert not tool.UV.exists()


# --- tools/get_servers.py


def test_missing_servers_are_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = _tool("get_servers")
    monkeypatch.setattr(tool.shutil, "which", lambda name, path=None: None)
    assert {"redis-server", "nginx", "chromium"} <= set(tool.missing_packages())


@pytest.mark.parametrize(("user", "apt"), [(1000, "/usr/bin/apt-get"), (0, None)])
def test_who_may_not_install_is_told_the_line(
    user: int, apt: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = _tool("get_servers")
    monkeypatch.setattr(tool, "LOCKED", {})  # packages of npm need no root
    monkeypatch.setattr(tool, "missing_packages", lambda: ["redis-server", "nginx"])
    monkeypatch.setattr(tool.os, "geteuid", lambda: user)
    monkeypatch.setattr(tool.shutil, "which", lambda name, path=None: apt)
    monkeypatch.setattr(tool.subprocess, "run", lambda *arguments, **options: pytest.fail("must not install"))
    tool.main()
    assert "apt-get install -y --no-install-recommends redis-server nginx" in capsys.readouterr().out


def test_services_are_kept_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = _tool("get_servers")
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(tool, "POLICY", policy)
    with tool.no_autostart():
        assert subprocess.run([policy], check=False).returncode == 101
    assert not policy.exists()
    policy.write_text("the administrator's own")
    with tool.no_autostart():
        pass
    assert policy.read_text() == "the administrator's own"


# --- tools/run_tests.py


FLAKY = """
from pathlib import Path
def test_second_try():
    again = Path(__file__).with_name("again")
    assert again.exists() or again.touch()
def test_never():
    assert {passes}
"""


@pytest.mark.parametrize(("passes", "status", "listed"), [(True, 0, 1), (False, 1, 0)])
def test_what_passes_at_the_second_try_is_listed(
    tmp_path: Path, passes: bool, status: int, listed: int
) -> None:
    (tmp_path / "test_it.py").write_text(FLAKY.format(passes=passes))
    flaky = tmp_path / "flaky"
    environment = {**os.environ, "CI": "true", "FLAKY_TESTS": str(flaky)}
    command = [sys.executable, TOOLS / "run_tests.py", "-q", "-n", "0", "test_it.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert flaky.exists() is bool(listed)
    if listed:
        assert flaky.read_text() == "test_it.py::test_second_try\n"


def test_coverage_is_written_before_a_worker_can_be_killed(tmp_path: Path) -> None:
    pytest.importorskip("coverage", minversion="7.10", reason="has no `patch`, which measures the workers")
    (tmp_path / "covered.py").write_text("def five():\n    return 5\n")
    (tmp_path / ".coveragerc").write_text(
        "[run]\nparallel = true\npatch = subprocess\ninclude = covered.py\n"
    )
    (tmp_path / "conftest.py").write_text("pytest_plugins = ['testbed.fixtures']\n")
    (tmp_path / "test_it.py").write_text(
        "import atexit, os\n"
        "from covered import five\n"
        "def test_it():\n"
        "    atexit.register(os._exit, 0)  # first of all, as if it was killed while it ended\n"
        "    assert five() == 5\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    environment["PYTHONPATH"] = os.pathsep.join([str(package_map.ROOT / "tests" / "support"), str(tmp_path)])

    def coverage(*arguments: str) -> str:
        command = [sys.executable, "-m", "coverage", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        ).stdout

    assert "1 passed" in coverage("run", "-m", "pytest", "-n", "1", "-p", "no:cacheprovider", "test_it.py")
    coverage("combine", "-q")
    assert coverage("report", "--format=total") == "100\n"


# --- tools/test_full.py


@pytest.mark.parametrize(
    ("mine", "at_hand", "whole"),
    [
        ((3, 11), ["3.11", "3.13"], "3.13"),
        ((3, 13), ["3.11", "3.13"], "3.11"),
        ((3, 11), ["3.11", "3.12", "3.13", "3.14"], "3.14"),
        ((3, 12), ["3.12"], "3.12"),
    ],
)
def test_the_whole_suite_runs_on_another_python(
    mine: tuple[int, int], at_hand: list[str], whole: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = _tool("test_full")
    monkeypatch.setattr(tool.sys, "version_info", mine)
    assert tool.whole_suite_version(dict.fromkeys(at_hand, "python")) == whole


def test_a_required_python_that_is_missing_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    tool = _tool("test_full")
    monkeypatch.setattr(tool, "find_python", lambda version: None if version == "3.13" else "python")
    monkeypatch.setenv("REQUIRE_SERVICES", "1")
    with pytest.raises(SystemExit, match=r"Python 3\.13 must be tested"):
        tool.find_pythons()
    monkeypatch.delenv("REQUIRE_SERVICES")
    assert set(tool.find_pythons()) == {"3.11", "3.12", "3.14"}


def test_a_shim_that_cannot_run_is_no_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = _tool("test_full")
    _program(tmp_path / "shims", "python3.99", SHIM)
    _program(tmp_path / "real", "python3.99", 'echo "(3, 99)"')
    monkeypatch.setenv("PATH", f"{tmp_path}/shims{os.pathsep}{tmp_path}/real")
    assert tool.find_python("3.99") == str(tmp_path / "real" / "python3.99")
    assert tool.find_python("3.98") is None


def test_every_quick_test_runs_on_another_python_and_units_leave_processors_to_slow_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = _tool("test_full")
    runs: list[tuple[str, set[str], bool]] = []

    def run_tests(
        python: Path, tree: Path, *arguments: str, output: object = None, nice: bool = False
    ) -> None:
        runs.append((python.name, set(arguments), nice))

    monkeypatch.setattr(tool.sys, "version_info", (3, 11))
    monkeypatch.setattr(tool, "find_pythons", lambda: {"3.11": "old", "3.12": "middle", "3.13": "new"})
    monkeypatch.setattr(tool, "build_wheels", lambda folder: ["library.whl"])
    monkeypatch.setattr(tool, "make_environment", lambda folder, python, **options: Path(python))
    monkeypatch.setattr(tool, "run_tests", run_tests)
    monkeypatch.setattr(tool, "import_all_areas", lambda python: None)
    monkeypatch.setattr(tool.shutil, "copytree", lambda source, tree, **options: Path(tree).mkdir())
    tool.main()
    quick, units = {"not slow and not chromium and not compatibility"}, set(tool.UNITS)
    assert [(python, nice) for python, words, nice in runs if units <= words] == [
        ("middle", False),
        ("old", True),
        ("new", True),
    ]
    (rest,) = (words for _, words, _ in runs if {f"--ignore={folder}" for folder in units} <= words)
    assert quick <= rest
    assert all(not Path(word).is_dir() for word in rest)  # or it would be that folder alone
    for once in ("slow", "tests/compatibility"):
        assert [python for python, words, _ in runs if once in words] == ["new"]
    assert runs[-1][0] == "old"
    assert {*quick, "tests/integration", "tests/docs"} <= runs[-1][1]


@pytest.mark.parametrize("verified", [False, True])
def test_slow_tests_are_looked_for_where_they_are(*, verified: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = _tool("test_full")
    monkeypatch.setenv("DEPLOY_VERIFIED", "1" if verified else "0")
    found = tool.slow_files(package_map.ROOT)
    assert "tests/integration/tasks/test_tasks_celery.py" in found
    assert "examples/knowledge_system/tests/test_deploy_dashboard.py" in found
    assert ("deploy/tests/test_deploy_images.py" in found) is not verified
    assert "tests/unit/package/test_package_tree.py" not in found


# --- the page of what the deployment kit promises


def test_what_was_not_measured_now_stays_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    page = importlib.import_module("deploy_page")
    measured = page.page(
        {"readers": page.Row("readers", True, "480 requests/s", "2026-11-01, 1a2b3c4")}, "en"
    )
    found = page.merged([page.Row("test_deploy_render", False, "3 / 4", "2026-11-28, 5d6e7f8")], measured)
    assert found.keys() == {"readers", "test_deploy_render"}
    for language in page.PAGES:
        text = page.page(found, language)
        assert "| ✓ | 480 requests/s | 2026-11-01, 1a2b3c4 |" in text
        assert "| ✗ | 3 / 4 | 2026-11-28, 5d6e7f8 |" in text
        assert text.count("| ? |") == len(page.TESTED) + len(page.LOADS) - 2


def test_every_file_of_tests_has_a_promise_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    keys = [promise.key for promise in importlib.import_module("deploy_page").TESTED]
    files = [file.stem for file in (TOOLS.parent / "deploy" / "tests").glob("test_deploy_*.py")]
    assert [file for file in files if not any(key in file for key in keys)] == []
    assert [key for key in keys if not any(key in file for file in files)] == []


# --- the figures of make bench


def test_the_published_figures_are_those_of_the_last_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    page = importlib.import_module("bench_page")
    for path, content in page.files(page.read()).items():
        assert path.read_text("utf-8") == content, f"{path}: run python tools/bench_page.py"


@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_table_has_every_measured_ratio_of_both_runs(
    monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    page = importlib.import_module("bench_page")
    faster, slower, never = page.ROWS[0], page.ROWS[3], page.ROWS[4]
    runs = [
        {
            f"{faster.title} x": {faster.ours: ours, faster.peer: 10.0},
            slower.title: {slower.ours: 4, slower.peer: 8},
        }
        for ours in (5.0, 2.5)
    ]
    kept = {
        "date": "2026-11-29",
        "commit": "1a2b3c4d",
        "machine": "2 x CPU",
        "python": "3.11.7",
        "versions": {"a": "1"},
    }
    files = page.files({**kept, "runs": runs})
    text = files[page.DOCS / language / "explanation" / "comparison.inc"]
    what = faster.en if language == "en" else faster.ja
    assert f"| {what[0]} | {what[1]} | 0.25–0.50 |  |" in text
    assert f"| 2.00 | {'slower' if language == 'en' else '遅い'} |" in text
    assert (never.en if language == "en" else never.ja)[0] not in text
    assert f"{never.title}: {never.ours}, {never.peer}" in page.unmeasured(runs)
    assert "2026-11-29" in text


# --- Makefile and .ci/run


def test_help_lists_every_target() -> None:
    text = (package_map.ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    listed = re.findall(r"^([a-z-]+):.*## \S", text, re.MULTILINE)
    assert sorted(phony.split()) == sorted(listed)
    assert {"demo", "test", "test-full", "lint", "types", "bench", "walkthrough", "lock", "clean"} <= set(
        listed
    )


def test_the_deciding_script_fails_fast_and_asks_nothing() -> None:
    script = package_map.ROOT / ".ci" / "run"
    text = script.read_text()
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in text
    assert "</dev/null" in text
    assert "CI=true REQUIRE_SERVICES=1" in text
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0


@pytest.mark.parametrize("failing", ["test", "types", "verify-deploy", "test-full", "nothing"])
def test_the_deciding_script_stops_at_the_first_part_that_fails(failing: str, tmp_path: Path) -> None:
    parts = ["test", "verify-deploy", "test-full"]
    _program(tmp_path / "bin", "make", f'echo "$*" >>"$LOG"; case " $* " in *" {failing} "*) exit 7;; esac')
    (tmp_path / ".ci").mkdir()
    script = shutil.copy(package_map.ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    log = tmp_path / "log"
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "LOG": str(log)}
    done = subprocess.run([script], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is (failing == "nothing")
    assert ("passed in" in done.stdout) is (failing == "nothing")
    ran = [part for line in log.read_text().splitlines() for part in parts if part in line.split()]
    last = {"types": "verify-deploy", "nothing": "test-full"}.get(failing, failing)
    assert ran == parts[: parts.index(last) + 1]

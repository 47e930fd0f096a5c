"""``make release-check``: a error of each kind is planted, and found."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from testbed import package_map

ROOT = package_map.ROOT


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    package_map.needs_source_tree()
    spec = importlib.util.spec_from_file_location("release_check", ROOT / "tools" / "release_check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def project() -> Any:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def said(findings: Iterator[Any]) -> list[tuple[str, bool]]:
    return [(finding.text, finding.error) for finding in findings]


def answer(stdout: str = "", stderr: str = "", code: int = 0) -> Callable[[list[str]], Any]:
    return lambda command: subprocess.CompletedProcess(command, code, stdout, stderr)


# --- two builds


def _wheel(path: Path, **members: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return path


def test_a_build_that_is_another_each_time_is_found(tool: ModuleType, tmp_path: Path) -> None:
    first = _wheel(tmp_path / "a" / "p-1-py3-none-any.whl", module="x = 1", stamp="10:00")
    second = _wheel(tmp_path / "b" / "p-1-py3-none-any.whl", module="x = 1", stamp="10:01")
    assert said(tool.differences([first], [second])) == [
        (f"{first.name} differs in its second build: stamp", True)
    ]
    assert said(tool.differences([first], [])) == [(f"{first.name} was built only once of two times", True)]
    assert said(tool.differences([first], [first])) == []


# --- dependencies


@pytest.mark.parametrize(
    ("lock", "error"),
    [
        ("redis==7.3.1 \\\n", None),
        ("Redis==7.3.1 \\\nredis==7.2 ; python_version < '3'\n", None),
        ("", "redis of extra cache is not in requirements/dev.txt: make lock"),
        ("redis==6.0 \\\n", "requirements/dev.txt has redis 6.0, extra cache wants >=7.3: make lock"),
    ],
)
def test_an_extra_that_the_lock_does_not_hold_is_found(
    tool: ModuleType, lock: str, error: str | None
) -> None:
    extras = {"name": "p", "optional-dependencies": {"cache": ["redis>=7.3"], "all": ["p[cache]"]}}
    found = said(tool.extras_in_lock(extras, lock, name="dev"))
    assert found == ([] if error is None else [(error, True)])


def test_an_extra_that_names_no_extra_is_found(tool: ModuleType) -> None:
    extras = {"name": "p", "optional-dependencies": {"all": ["p[shop]"]}}
    assert said(tool.extras_in_lock(extras, "", name="dev")) == [
        ("extra all names shop, which is no extra", True)
    ]


@pytest.mark.parametrize("name", ["dev", "lowest"])
def test_the_locks_hold_every_extra(tool: ModuleType, name: str) -> None:
    lock = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8")
    assert said(tool.extras_in_lock(project(), lock, name=name)) == []


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ([("License-Expression", "MIT AND (BSD-3-Clause OR Apache-2.0)")], None),
        ([("Classifier", "License :: OSI Approved :: MIT License"), ("License", "whatever")], None),
        ([("License", "BSD-3-Clause")], None),
        ([("License-Expression", "AGPL-3.0-only")], "p stands under AGPL-3.0-only, which is not in the list"),
        ([("License", "Commons Clause")], "p stands under Commons Clause, which is not in the list"),
        ([], "p does not say under which licence it stands"),
    ],
)
def test_a_licence_that_is_not_in_the_list_is_found(
    tool: ModuleType, fields: list[tuple[str, str]], error: str | None
) -> None:
    metadata = Message()
    for field, value in [("Name", "p"), *fields]:
        metadata[field] = value
    found = said(tool.licences({"p": SimpleNamespace(metadata=metadata)}))
    assert found == ([] if error is None else [(error, True)])


def test_what_is_handed_on_has_licences_of_the_list(tool: ModuleType) -> None:
    packages = tool.handed_on(project())
    assert {"redis", "sqlalchemy", "cffi", "pypng"} <= packages.keys()  # cffi comes with cryptography
    assert not {"mks-hardening", "sphinx", "psycopg"} & packages.keys()
    assert said(tool.licences(packages)) == []


# --- other programs


def test_a_page_that_twine_refuses_is_found(tool: ModuleType) -> None:
    bad = answer("Checking p.whl: FAILED\nERROR `long_description` has syntax errors", code=1)
    assert said(tool.page_of_the_package([Path("p.whl")], run=bad)) == [
        ("twine check: ERROR `long_description` has syntax errors", True)
    ]
    assert said(tool.page_of_the_package([Path("p.whl")], run=answer("PASSED"))) == []


def test_a_bill_of_materials_that_lacks_a_package_is_found(tool: ModuleType, tmp_path: Path) -> None:
    target = tmp_path / "sbom.json"
    target.write_text(json.dumps({"components": [{"name": "Redis"}]}))
    bill = tool.bill_of_materials
    assert said(bill(tmp_path, target, ["redis"], run=answer())) == []
    assert said(bill(tmp_path, target, ["redis", "lupa"], run=answer())) == [
        ("the bill of materials lacks lupa", True)
    ]
    assert said(bill(tmp_path, target, ["redis"], run=answer(stderr="no such file", code=2))) == [
        ("cyclonedx-py: no such file", True)
    ]


def test_a_known_weakness_is_a_fault_and_no_data_is_a_note(tool: ModuleType) -> None:
    weak = {"name": "redis", "version": "7.3", "vulns": [{"id": "PYSEC-1", "fix_versions": ["7.4"]}]}
    fine = {"name": "lupa", "version": "2.8", "vulns": []}
    skipped = {"name": "odd", "skip_reason": "not found"}
    found = answer(json.dumps({"dependencies": [weak, fine, skipped]}), code=1)
    assert said(tool.known_weaknesses(Path("lock"), run=found)) == [
        ("redis 7.3 has PYSEC-1, fixed in 7.4", True),
        ("odd was not audited: not found", False),
    ]
    offline = answer(stderr="Traceback\nConnectionError: no route to host", code=1)
    assert said(tool.known_weaknesses(Path("lock"), run=offline)) == [
        ("not audited, as pip-audit got no data: ConnectionError: no route to host", False)
    ]


@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        ("Name: p\nProject-URL: Source, https://code.example\n\n[a](https://code.example)", []),
        ("Name: p\n\n[a](#part)", [("no project URLs: build with PROJECT_URL and PROJECT_FILES_URL", False)]),
        (
            "Name: p\nProject-URL: Source, https://code.example\n\n[a](docs/a.md)",
            [("the page of the package links docs/a.md, which does not work there", True)],
        ),
    ],
)
def test_a_link_that_leads_nowhere_is_found(
    tool: ModuleType, tmp_path: Path, metadata: str, found: list[tuple[str, bool]]
) -> None:
    wheel = _wheel(tmp_path / "p-1-py3-none-any.whl", **{"p-1.dist-info/METADATA": metadata})
    assert said(tool.addresses([wheel])) == found


# --- version and changelog


@pytest.mark.parametrize(
    ("changelog", "fragments", "found"),
    [
        ("## 1.1.0 (2026-11-26)\n\n## 1.0.0 (2026-01-01)\n", [], []),
        (
            "## 1.0.0 (2026-01-01)\n",
            ["a.fixed.md"],
            [("1 changes wait for `make changelog VERSION=1.1.0`", False)],
        ),
        ("## 1.0.0 (2026-01-01)\n", [], [("CHANGELOG.md does not list 1.1.0", True)]),
        (
            "## 1.1.0 (2026-11-26)\n",
            ["a.fixed.md"],
            [("CHANGELOG.md lists 1.1.0 already, and 1 changes came after it: raise the version", True)],
        ),
        (
            "## 1.2.0 (2026-12-01)\n\n## 1.1.0 (2026-11-26)\n",
            [],
            [("the newest release in CHANGELOG.md is 1.2.0, the version is 1.1.0", True)],
        ),
    ],
)
def test_version_and_changelog_agree(
    tool: ModuleType, changelog: str, fragments: list[str], found: list[tuple[str, bool]]
) -> None:
    assert said(tool.version_and_changelog("1.1.0", changelog, fragments)) == found


def test_a_policy_for_another_version_is_found(tool: ModuleType) -> None:
    policy = (ROOT / "SECURITY.md").read_text("utf-8")
    assert said(tool.supported_version(project()["version"], policy)) == []
    assert said(tool.supported_version("9.3.1", policy)) == [
        ("SECURITY.md does not name 9.3 as the supported version", True)
    ]
    for promise in ("two minor versions and twelve months", "three working", "DeprecationWarning"):
        assert promise in policy


def test_a_contact_that_nobody_reads_blocks_a_strict_release(tool: ModuleType) -> None:
    assert said(tool.placeholders({"A.md": "write to ops@example.jp", "B.md": "to CONTACT_ADDRESS"})) == [
        ("B.md: replace CONTACT_ADDRESS by an address that is read", False)
    ]


def test_the_citation_has_the_version(tool: ModuleType) -> None:
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert said(tool.cited_version(project()["version"], citation)) == []
    assert said(tool.cited_version("9.3.1", citation)) == [("CITATION.cff does not have version 9.3.1", True)]


def test_a_file_of_another_version_is_found(tool: ModuleType) -> None:
    files = [Path("p-1.0-py3-none-any.whl"), Path("p-1.1.tar.gz"), Path("p-1.1-py3-none-any.whl")]
    assert said(tool.versions_of_files("1.1", files)) == [
        ("p-1.0-py3-none-any.whl is not of version 1.1", True)
    ]


def test_every_fragment_has_a_kind_that_a_release_lists(tool: ModuleType) -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["towncrier"]
    kinds = {kind["directory"] for kind in config["type"]}
    files = {file.name for file in (ROOT / "changelog.d").iterdir()} - {"README.md", "template.md.jinja"}
    assert [
        name for name in sorted(files) if name.split(".")[1:2] == [] or name.split(".")[1] not in kinds
    ] == []
    assert config["start_string"] in (ROOT / "CHANGELOG.md").read_text("utf-8")

"""Check everything that a release requires: ``make release-check``.

Builds wheel and source archive twice, from two copies of the tree, and compares them; checks licences, lock files
and changelog; runs twine on the package page, cyclonedx-bom to write a bill of materials into ``dist``, and
pip-audit to find known vulnerabilities. The exit status is 1 after an error. A check that could not run (pip-audit
without network access) is reported as a note; ``--strict`` turns notes into errors, for the day of the release.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
OURS = {"mks-check"}  # released together with the library, from this tree
LOCKS = ("dev", "lowest")
DOCUMENTS = ("SECURITY.md", "CODE_OF_CONDUCT.md")
PLACEHOLDER = "CONTACT_ADDRESS"
# For dependencies of the package; development tools are not distributed.
ALLOWED = frozenset(
    {
        *(
            "MIT",
            "MIT-0",
            "0BSD",
            "BSD",
            "BSD-2-Clause",
            "BSD-3-Clause",
            "Apache-2.0",
            "ISC",
            "PSF-2.0",
            "Python-2.0",
        ),
        *("MPL-2.0", "HPND", "MIT-CMU", "Unlicense", "ZPL-2.1", "OpenLDAP"),
    }
)
# Spellings from before licence expressions (PEP 639), as found in our dependencies.
SPELLINGS = {
    "apache software license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "bsd license": "BSD",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
    "the unlicense (unlicense)": "Unlicense",
    "zope public license": "ZPL-2.1",
    "historical permission notice and disclaimer (hpnd)": "HPND",
}

# Packages with contradictory or invalid metadata; the licences are from their licence files.
READ_BY_HAND = {"lupa": "MIT", "qrcode": "BSD-3-Clause"}

Run = Callable[[list[str]], subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Finding:
    """Result of a check.

    Attributes:
        text: one sentence.
        error: whether it blocks the release; otherwise it is a note.
    """

    text: str
    error: bool = True


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a program from the environment of this interpreter."""
    program = Path(sys.executable).with_name(command[0])
    return subprocess.run(
        [str(program), *command[1:]], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )


# --- the files of a release


def build(tree: Path, target: Path) -> list[Path]:
    """Build the wheel and the source archive of a tree."""
    code = (
        "import sys; from hatchling.build import build_sdist, build_wheel; build_wheel(sys.argv[1]); "
        "build_sdist(sys.argv[1])"
    )
    target.mkdir(parents=True)
    subprocess.run([sys.executable, "-c", code, str(target)], cwd=tree, check=True, capture_output=True)
    return sorted(target.iterdir())


def copy_of(tree: Path, target: Path) -> Path:
    """Copy the sources, with modification times that differ from the original."""
    left_out = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "var", "node_modules")
    return Path(shutil.copytree(tree, target, ignore=left_out, copy_function=shutil.copyfile))


def differences(first: Iterable[Path], second: Iterable[Path]) -> Iterator[Finding]:
    """Check that two builds of one tree are identical, byte by byte."""
    ours, theirs = ({file.name: file for file in files} for files in (first, second))
    for name in sorted(ours.keys() ^ theirs.keys()):
        yield Finding(f"{name} was built only once of two times")
    for name in sorted(ours.keys() & theirs.keys()):
        if _digest(ours[name].read_bytes()) == _digest(theirs[name].read_bytes()):
            continue
        one, other = _members(ours[name]), _members(theirs[name])
        changed = sorted(path for path in one.keys() | other.keys() if one.get(path) != other.get(path))
        yield Finding(
            f"{name} differs in its second build: {', '.join(changed[:5]) or 'times or order of its members'}"
        )


def _members(archive: Path) -> dict[str, str]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {name: _digest(wheel.read(name)) for name in wheel.namelist()}
    with tarfile.open(archive) as source:
        opened = ((member.name, source.extractfile(member)) for member in source)
        return {name: _digest(file.read()) for name, file in opened if file is not None}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- dependencies


def locked(lock: str) -> dict[str, str]:
    """Return names and versions of a lock file; of several versions of a package, the newest."""
    found: dict[str, str] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", lock, re.MULTILINE):
        known = found.get(canonicalize_name(name))
        if known is None or Version(known) < Version(version):
            found[canonicalize_name(name)] = version
    return found


def extras_in_lock(project: dict[str, Any], lock: str, *, name: str) -> Iterator[Finding]:
    """Check that the lock file has every package that an extra requires, in a version that it accepts."""
    versions = locked(lock)
    for extra, lines in project["optional-dependencies"].items():
        for requirement in map(Requirement, lines):
            package = canonicalize_name(requirement.name)
            if package == canonicalize_name(project["name"]):
                unknown = requirement.extras - project["optional-dependencies"].keys()
                yield from (
                    Finding(f"extra {extra} names {one}, which is no extra") for one in sorted(unknown)
                )
            elif package in OURS:
                continue
            elif package not in versions:
                yield Finding(f"{package} of extra {extra} is not in requirements/{name}.txt: make lock")
            elif not requirement.specifier.contains(versions[package], prereleases=True):
                yield Finding(
                    f"requirements/{name}.txt has {package} {versions[package]}, "
                    f"extra {extra} wants {requirement.specifier}: make lock"
                )


def handed_on(
    project: dict[str, Any], find: Callable[[str], Distribution] = distribution
) -> dict[str, Distribution]:
    """Return all packages that any extra installs, by name, as installed here."""
    waiting = [line for lines in project["optional-dependencies"].values() for line in lines]
    found: dict[str, Distribution] = {}
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        wanted = {"extra": ""}
        if name in {canonicalize_name(project["name"]), *OURS} or (name in found and not requirement.extras):
            continue
        if requirement.marker is not None and not requirement.marker.evaluate(wanted):
            continue
        found[name] = find(name)
        for line in found[name].requires or ():
            inner = Requirement(line)
            extras = [{"extra": extra} for extra in requirement.extras] or [wanted]
            if inner.marker is None or any(inner.marker.evaluate(extra) for extra in extras):
                inner.marker = None
                if canonicalize_name(inner.name) not in found:
                    waiting.append(str(inner))
    return found


def licences(packages: dict[str, Distribution]) -> Iterator[Finding]:
    """Check that the licence of every package that users install is on the list of accepted ones."""
    for name, package in sorted(packages.items()):
        said = licences_of(package)
        if not said:
            yield Finding(f"{name} does not say under which licence it stands")
        elif not said <= ALLOWED:
            yield Finding(
                f"{name} stands under {', '.join(sorted(said - ALLOWED))}, which is not in the list"
            )


def licences_of(package: Distribution) -> set[str]:
    """Return the licences of a package: from its licence expression, else its classifiers, else its field."""
    metadata: Any = package.metadata
    if by_hand := READ_BY_HAND.get(canonicalize_name(metadata["Name"])):
        return {by_hand}
    if expression := metadata.get("License-Expression"):
        # Of alternative licences, all must be on the list, although one would suffice.
        return {part for part in re.split(r"[()\s]+", expression) if part not in {"", "AND", "OR"}}
    classified = [
        line.rpartition(" :: ")[2]
        for line in metadata.get_all("Classifier") or ()
        if line.startswith("License :: ") and line != "License :: OSI Approved"
    ]
    said = classified or [metadata.get("License") or ""]
    return {SPELLINGS.get(text.strip().lower(), text.strip()) for text in said if 0 < len(text.strip()) < 80}


# --- other programs


def page_of_the_package(files: Iterable[Path], *, run: Run = run) -> Iterator[Finding]:
    """Check with twine that the package index accepts the metadata."""
    done = run(["twine", "check", "--strict", *map(str, files)])
    if done.returncode:
        yield Finding(f"twine check: {_last_line(done)}")


def addresses(files: Iterable[Path]) -> Iterator[Finding]:
    """Check that the package page has project URLs; an unpublished tree has none."""
    for file in files:
        if file.suffix == ".whl":
            with zipfile.ZipFile(file) as wheel:
                (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
                head, _, page = wheel.read(name).decode().partition("\n\n")
            if "\nProject-URL: " not in head:
                yield Finding("no project URLs: build with PROJECT_URL and PROJECT_FILES_URL", error=False)
            for link in re.findall(r"\]\((?!https?:|#)([^)]+)\)", page):
                yield Finding(f"the page of the package links {link}, which does not work there")


def bill_of_materials(
    lock: Path, target: Path, packages: Iterable[str], *, run: Run = run
) -> Iterator[Finding]:
    """Write the bill of materials with cyclonedx-bom: everything that users install, with versions and hashes."""
    done = run(["cyclonedx-py", "requirements", "--output-reproducible", "-o", str(target), str(lock)])
    if done.returncode:
        yield Finding(f"cyclonedx-py: {_last_line(done)}")
        return
    listed = {
        canonicalize_name(part["name"])
        for part in json.loads(target.read_text("utf-8")).get("components", ())
    }
    for name in sorted(set(packages) - listed):
        yield Finding(f"the bill of materials lacks {name}")


def known_weaknesses(lock: Path, *, run: Run = run) -> Iterator[Finding]:
    """Find known vulnerabilities with pip-audit; if it gets no data, report a note."""
    done = run(
        [
            "pip-audit",
            "--progress-spinner",
            "off",
            "--format",
            "json",
            "--require-hashes",
            "--disable-pip",
            "-r",
            str(lock),
        ]
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        yield Finding(f"not audited, as pip-audit got no data: {_last_line(done)}", error=False)
        return
    for package in answer["dependencies"]:
        if reason := package.get("skip_reason"):
            yield Finding(f"{package['name']} was not audited: {reason}", error=False)
        for weakness in package.get("vulns", ()):
            fixed = ", ".join(weakness["fix_versions"]) or "no version yet"
            yield Finding(f"{package['name']} {package['version']} has {weakness['id']}, fixed in {fixed}")


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
    return lines[-1] if lines else f"exit {done.returncode} without output"


# --- version and changelog


def version_and_changelog(version: str, changelog: str, fragments: Iterable[str]) -> Iterator[Finding]:
    """Check that the newest release in the changelog is this version, and that no fragment is left."""
    waiting = sorted(fragments)
    releases = re.findall(r"^## (\S+)", changelog, re.MULTILINE)
    listed = version in releases
    if listed and waiting:
        yield Finding(
            f"CHANGELOG.md lists {version} already, and {len(waiting)} changes came after it: raise the version"
        )
    elif waiting:
        yield Finding(f"{len(waiting)} changes wait for `make changelog VERSION={version}`", error=False)
    elif not listed:
        yield Finding(f"CHANGELOG.md does not list {version}")
    elif releases[0] != version:
        yield Finding(f"the newest release in CHANGELOG.md is {releases[0]}, the version is {version}")


def supported_version(version: str, policy: str) -> Iterator[Finding]:
    """Check that SECURITY.md names the supported minor version."""
    minor = ".".join(version.split(".")[:2])
    if f"(now {minor})" not in policy:
        yield Finding(f"SECURITY.md does not name {minor} as the supported version")


def placeholders(documents: Mapping[str, str]) -> Iterator[Finding]:
    """Check that no document still has a placeholder that the publisher must replace."""
    for name, text in documents.items():
        if PLACEHOLDER in text:
            yield Finding(f"{name}: replace {PLACEHOLDER} by an address that is read", error=False)


def cited_version(version: str, citation: str) -> Iterator[Finding]:
    """Check that CITATION.cff has the version."""
    if f"\nversion: {version}\n" not in citation:
        yield Finding(f"CITATION.cff does not have version {version}")


def versions_of_files(version: str, files: Iterable[Path]) -> Iterator[Finding]:
    """Check that the built files carry the version."""
    for file in files:
        if f"-{version}-" not in file.name and not file.name.endswith(f"-{version}.tar.gz"):
            yield Finding(f"{file.name} is not of version {version}")


# --- all checks


def part_of(lock: str, packages: Iterable[str]) -> str:
    """Return the lines of a lock file for these packages."""
    blocks = re.split(r"^(?=\S+==)", lock, flags=re.MULTILINE)
    wanted = set(packages)
    return "".join(
        block
        for block in blocks
        if (name := re.match(r"(\S+)==", block)) and canonicalize_name(name[1]) in wanted
    )


def checks(work: Path) -> Iterator[tuple[str, Iterator[Finding]]]:
    """Yield every check with its name, in the order of execution."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    version = project["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    fragments = [file.name for file in (ROOT / "changelog.d").glob("*.*.md")]
    yield "version and changelog", version_and_changelog(version, changelog, fragments)
    yield "supported version", supported_version(version, (ROOT / "SECURITY.md").read_text("utf-8"))
    yield "cited version", cited_version(version, (ROOT / "CITATION.cff").read_text("utf-8"))
    yield "contact", placeholders({name: (ROOT / name).read_text("utf-8") for name in DOCUMENTS})
    for name in LOCKS:
        lock = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8")
        yield f"extras in requirements/{name}.txt", extras_in_lock(project, lock, name=name)
    packages = handed_on(project)
    yield f"licences of {len(packages)} packages", licences(packages)
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    files = build(copy_of(ROOT, work / "one"), dist)
    again = build(copy_of(ROOT, work / "another" / "place"), work / "again")
    yield "two builds are identical", differences(files, again)
    yield "versions of the files", versions_of_files(version, files)
    yield "page of the package (twine)", page_of_the_package(files)
    yield "addresses", addresses(files)
    lock = work / "requirements.txt"
    lock.write_text(
        part_of((ROOT / "requirements" / "dev.txt").read_text("utf-8"), packages), encoding="utf-8"
    )
    sbom = dist / f"mks_hardening-{version}.cdx.json"
    yield "bill of materials (cyclonedx-bom)", bill_of_materials(lock, sbom, packages)
    yield "known weaknesses (pip-audit)", known_weaknesses(lock)


def main() -> None:
    """Run all checks and print their findings."""
    strict = "--strict" in sys.argv[1:]
    errors = 0
    try:
        with tempfile.TemporaryDirectory(prefix="mks-release-") as folder:
            for name, found in checks(Path(folder)):
                findings = list(found)
                errors += sum(finding.error or strict for finding in findings)
                print(f"{'ok   ' if not findings else 'see  '} {name}", flush=True)
                for finding in findings:
                    print(
                        f"      {'ERROR' if finding.error or strict else 'note '} {finding.text}", flush=True
                    )
    except PackageNotFoundError as error:
        sys.exit(f"{error.name} is not installed here: make .venv/dev.stamp")
    print(f"{errors} errors" if errors else "ready, but for the notes above")
    sys.exit(bool(errors))


if __name__ == "__main__":
    main()

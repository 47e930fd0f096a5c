"""The wheel: what is in it, what it asks for, and that every area imports where no extra is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.parser import Parser
from importlib.metadata import version
from pathlib import Path

import pytest

from testbed import package_map
from testbed.run_python import run_python

VERSION = version("mks-hardening")

EXTRAS = {
    "logging": {"python-json-logger", "orjson"},
    "cache": {"redis", "hiredis", "msgspec"},
    "security": {"pyotp", "limits", "cryptography", "werkzeug"},
    "argon2": {"argon2-cffi"},
    "bcrypt": {"bcrypt"},
    "passkeys": {"webauthn"},
    "qr": {"qrcode[png]"},
    "db": {"sqlalchemy[asyncio]"},
    "alembic": {"alembic"},
    "tasks": {"sqlalchemy"},
    "notify": {"requests", "urllib3"},
    "flask": {"flask"},
    "django": {"django"},
    "fastapi": {"fastapi"},
    "celery": {"celery"},
    "prometheus": {"prometheus-client"},
    "opentelemetry": {"opentelemetry-api"},
    "sentry": {"sentry-sdk"},
    "check": {"mks-check==0.1.0"},
    "testing": {"pytest", "hypothesis", "fakeredis[lua]"},
}
# One framework, queue or monitoring system among several, and what only a move from another system needs.
A_CHOICE = {
    *(
        "alembic",
        "bcrypt",
        "check",
        "django",
        "fastapi",
        "celery",
        "prometheus",
        "opentelemetry",
        "sentry",
        "testing",
    ),
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    package_map.needs_source_tree()
    folder = tmp_path_factory.mktemp("dist")
    code = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    return folder / run_python(code, str(folder), cwd=package_map.ROOT).stdout.strip()


@pytest.fixture(scope="module")
def bare_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter whose only package is the wheel."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    site = run_python("import sysconfig; print(sysconfig.get_path('purelib'))", python=python).stdout.strip()
    shutil.unpack_archive(wheel, site, "zip")
    return python


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"mks_hardening", f"mks_hardening-{VERSION}.dist-info"}
    assert "mks_hardening/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert [name for name in names if "/test_" in name or "/tests/" in name or "__pycache__" in name] == []
    assert set(names) >= {
        f"mks_hardening/{file.relative_to(package_map.PACKAGE)}" for file in package_map.PACKAGE.rglob("*.py")
    }
    assert wheel.stat().st_size <= 1600 * 1024, f"{wheel.stat().st_size / 1024:.0f} KiB"


def test_wheel_needs_nothing_and_offers_the_extras(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    needed = metadata.get_all("Requires-Dist") or []
    assert [line for line in needed if "extra ==" not in line] == []
    assert set(metadata.get_all("Provides-Extra") or []) == {*EXTRAS, "asgi", "wsgi", "all"}
    assert "limits[" not in " ".join(needed)
    assert metadata["License-Expression"] == "MIT"


def test_all_is_for_running_an_application_and_brings_no_test_tools(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    lines = [line for line in metadata.get_all("Requires-Dist") or [] if "extra == 'all'" in line]
    brought = {line.partition(">")[0].lower() for line in lines}  # the build writes out what the extras bring
    assert brought == set().union(*(names for extra, names in EXTRAS.items() if extra not in A_CHOICE))


def test_source_archive_holds_what_the_readme_links_and_no_more(tmp_path: Path) -> None:
    package_map.needs_source_tree()
    code = "import sys; from hatchling.build import build_sdist; print(build_sdist(sys.argv[1]))"
    archive = tmp_path / run_python(code, str(tmp_path), cwd=package_map.ROOT).stdout.strip()
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    readme = (package_map.ROOT / "README.md").read_text(encoding="utf-8")
    linked = {link for link in re.findall(r"\]\(([^)#:]+)\)", readme) if not link.startswith("examples/")}
    assert linked <= names
    tops = {name.partition("/")[0] for name in names}
    assert tops == {
        *("src", "tests", "docs", "tools", "README.md", "README.ja.md", "CHANGELOG.md", "CONTRIBUTING.md"),
        *("SECURITY.md", "LICENSE", "pyproject.toml", "PKG-INFO", ".gitignore"),
    }
    assert {name for name in names if name.startswith("tools/")} == {"tools/package_page.py"}


@pytest.mark.parametrize("files", ["", "https://code.example/mks_hardening/blob/v1"])
def test_no_link_on_the_page_of_the_package_leads_nowhere(
    tmp_path: Path, files: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package_map.needs_source_tree()
    monkeypatch.setenv("PROJECT_FILES_URL", files)
    monkeypatch.setenv("PROJECT_URL", files.partition("/blob")[0])
    code = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    built = tmp_path / run_python(code, str(tmp_path), cwd=package_map.ROOT).stdout.strip()
    with zipfile.ZipFile(built) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    page = str(metadata.get_payload())
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert all(link.startswith("https://") for link in links)
    urls = dict(line.split(", ") for line in metadata.get_all("Project-URL") or [])
    if files:
        assert f"{files}/SECURITY.md" in links
        assert set(urls) == {"Homepage", "Source", "Documentation", "Changelog", "Security"}
    else:
        assert (links, urls) == ([], {})
        assert "`SECURITY.md`" in page


@pytest.mark.parametrize("extra", EXTRAS)
def test_each_extra_brings_what_it_should(extra: str) -> None:
    found = {requirement.partition(">")[0].lower() for requirement in package_map.extras()[extra]}
    assert found == EXTRAS[extra]


@pytest.mark.parametrize("module", [*package_map.AREAS, "settings", "testing", "compose", "cli"])
def test_every_area_imports_without_any_extra(bare_python: Path, module: str) -> None:
    code = f"""
    import sys
    import mks_hardening.{module}
    known = {{*sys.stdlib_module_names, 'mks_hardening', '__main__', 'sitecustomize'}}
    print(sorted({{name.split('.')[0] for name in sys.modules if name[0] != '_'}} - known))
    """
    assert run_python(code, python=bare_python).stdout.strip() == "[]"


def test_the_command_works_without_any_extra(bare_python: Path) -> None:
    done = subprocess.run(
        [bare_python, "-I", "-m", "mks_hardening", "version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"mks-hardening {VERSION} ")
    assert sys.version.split()[0] in done.stdout

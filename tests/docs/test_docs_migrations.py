"""Pages for whoever comes from another library: both codes, option by option, what is moved and what is lost."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from django_project import configure
from mks_hardening.contrib.flask_app import Hardening, limit
from mks_hardening.settings import HardeningSettings

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "en" / "how-to" / "migrate").glob("*.md"))
SNIPPETS = ROOT / "docs" / "snippets" / "migrate"

pytestmark = pytest.mark.skipif(not PAGES, reason="the documentation is not part of the wheel")


def test_there_is_a_page_for_each_library_and_code_for_each_page() -> None:
    assert {page.stem for page in PAGES} == {
        *(
            "asgi-correlation-id",
            "fastapi-guard",
            "secure",
            "slowapi",
            "starlette",
            "starsessions",
            "flask-talisman",
            "flask-caching",
            "flask-limiter",
            "flask-session",
            "flask-seasurf",
            "flask-debugtoolbar",
            "celery-beat",
            "django-csp",
            "django-axes",
            "django-otp",
            "django-ratelimit",
            "django-redis",
            "structlog",
            "python-json-logger",
        )
    }
    assert {folder.name for folder in SNIPPETS.iterdir()} == {page.stem.replace("-", "_") for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_shows_both_codes_each_option_and_what_is_lost(page: Path) -> None:
    text = page.read_text("utf-8")
    for part in ("both", "options", "lost", "see-it"):
        assert f"({page.stem}-{part})=" in text
    folder = page.stem.replace("-", "_")
    shown = re.findall(rf"snippets/migrate/{folder}/(\w+\.py)", text)
    assert shown == ["before.py", "after.py", "compare.py"]
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("|---")]
    assert len(rows) > 8
    assert {line.replace("\\|", "").count("|") for line in rows} == {4}
    # What the last command prints is compared by the test of all pages.
    assert text.rstrip().endswith("```")
    assert "compare.py" in text[text.rindex("```console") :]


@pytest.mark.parametrize(
    ("name", "differing"),
    [
        *((name, 4) for name in ("asgi-correlation-id", "fastapi-guard", "secure", "slowapi")),
        *((name, 4) for name in ("starlette", "starsessions", "flask-seasurf", "django-csp", "structlog")),
        *(("django-axes", 4), ("django-ratelimit", 3), ("django-redis", 2)),
        *(("flask-debugtoolbar", 4), ("celery-beat", 4)),
    ],
)
def test_a_comparison_shows_what_stays_the_same_and_what_differs(name: str, differing: int) -> None:
    """The test of all pages runs the program and compares these lines."""
    text = next(page for page in PAGES if page.stem == name).read_text("utf-8")
    lines = text[text.rindex("```console") :].splitlines()[2:-1]
    sides = [line.partition(": ")[2].split(" | ") for line in lines]
    assert sum(before == after for before, after in sides) >= 5
    assert sum(before != after for before, after in sides) >= differing
    assert "differ on purpose" in " ".join(text.split())


def test_limits_of_a_whole_application_count_each_client_for_itself() -> None:
    """Row ``application_limits``: one client must not lock out all others, there or here."""
    import flask_limiter

    before = Flask("before")
    flask_limiter.Limiter(
        flask_limiter.util.get_remote_address,
        app=before,
        application_limits=["3 per minute"],
        storage_uri="memory://",
    )
    after = Flask("after")
    settings = HardeningSettings.from_env(environ={"MKS_ENV": "development"})
    Hardening(after, settings, groups={"group": "3 per minute"})
    limit("group")(after)
    for app in (before, after):
        for path in ("/one", "/other"):
            app.add_url_rule(path, path, lambda: "")
        client = app.test_client()
        statuses = [
            client.get(path, environ_base={"REMOTE_ADDR": address}).status_code
            for address in ("192.0.2.1", "192.0.2.2")
            for path in ("/one", "/other", "/one", "/other")
        ]
        assert statuses == 2 * [200, 200, 200, 429]
    for page in PAGES:
        if page.stem == "flask-limiter":
            row = next(
                line for line in page.read_text("utf-8").splitlines() if "`application_limits=`" in line
            )
            assert row.split("|")[2].strip() == '`limit("group")(app)`'


def test_passwords_that_django_stored_go_on() -> None:
    configure()
    from django.contrib.auth import hashers

    after: dict[str, Any] = runpy.run_path(str(SNIPPETS / "django_otp" / "after.py"))
    quick = {"iterations": 1000}
    for hasher, options in (
        (hashers.PBKDF2PasswordHasher(), quick),
        (hashers.PBKDF2SHA1PasswordHasher(), quick),
        (hashers.ScryptPasswordHasher(), {}),
        (hashers.Argon2PasswordHasher(), {}),
    ):
        form = after["password_form"](hasher.encode("坂の上の足場", hasher.salt(), **options))
        # Without the work that hides which accounts are old.
        assert after["hasher"]._scheme_of(form).check(form, "坂の上の足場"), form


def test_what_cannot_be_carried_over_is_named() -> None:
    after: dict[str, Any] = runpy.run_path(str(SNIPPETS / "django_otp" / "after.py"))
    with pytest.raises(ValueError, match="md5"):
        after["password_form"]("md5$salt$digest")

    class Device:
        step, t0, digits, user_id, last_t, bin_key = 60, 0, 6, 7, -1, b"k" * 20

    assert after["move"]([Device()]) == [7]

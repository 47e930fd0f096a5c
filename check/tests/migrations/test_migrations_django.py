"""``manage.py lint_migrations``: migrations of Django, judged without a database."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import override_settings

from django_project import configure

pytest.importorskip("psycopg")
configure()

FIRST = """
from django.db import migrations, models

class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            "Order",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("day", models.DateField()),
                ("note", models.TextField(null=True)),
            ],
        ),
        migrations.AddIndex("Order", models.Index(fields=["day"], name="first_day")),
    ]
"""
HEAD = """
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models

def change(apps, schema_editor):
    apps.get_model("shop", "Order").objects.update(note="")

class Migration(migrations.Migration):
    dependencies = [("shop", "0001_first")]
"""


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: ())
    with pytest.raises(CommandError, match=r"pip install 'mks-hardening\[check\]'") as caught:
        call_command("lint_migrations", "--server-version", "16")
    assert caught.value.returncode == 2


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Returns a function that writes the second migration of an app, and returns the findings."""
    folder = tmp_path / "shop" / "migrations"
    folder.mkdir(parents=True)
    for package in (folder, folder.parent):
        (package / "__init__.py").write_text("")
    (folder / "0001_first.py").write_text(FIRST)
    monkeypatch.syspath_prepend(str(tmp_path))

    def lint(body: str, *, comment: str = "", version: str = "16") -> list[tuple[str, str, int]]:
        (folder / "0002_second.py").write_text(f"{comment}{HEAD}    {body}\n")
        for name in [name for name in sys.modules if name.split(".")[0] == "shop"]:
            del sys.modules[name]
        output = io.StringIO()
        options = ["--server-version", version, "--lock-timeout-set", "--format", "json"]
        with suppress(CommandError):
            call_command("lint_migrations", "shop", *options, stdout=output)
        report = json.loads(output.getvalue())
        assert report["migrations"] == ["shop.0001_first", "shop.0002_second"]
        return [
            (one["rule_id"], one["subject"] or one["detail"], one["line"])
            for one in report["findings"]
            if not one["waiver"] and one["level"] != "note"
        ]

    with override_settings(INSTALLED_APPS=["shop", "mks_hardening.contrib.django_app"]):
        yield lint


@pytest.mark.parametrize(
    ("operation", "rules"),
    [
        ('migrations.AddField("Order", "paid", models.BooleanField(null=True))', set()),
        ('migrations.AddField("Order", "paid", models.BooleanField(db_default=False))', set()),
        ('migrations.AddField("Order", "paid", models.BooleanField(default=False))', {"MG602"}),
        ('migrations.AlterField("Order", "note", models.TextField(default=""))', {"MG102", "MG106", "MG205"}),
        ('migrations.RemoveField("Order", "note")', {"MG210"}),
        ('migrations.RenameField("Order", "note", "text")', {"MG212"}),
        ('migrations.RenameModel("Order", "Purchase")', {"MG213"}),
        ('migrations.AddIndex("Order", models.Index(fields=["note"], name="by_note"))', {"MG301"}),
        ('migrations.RunSQL("DROP TABLE x")', {"MG210"}),
        ("migrations.RunPython(change)", {"MG802"}),
        ("migrations.RunPython(migrations.RunPython.noop)", set()),
        ("migrations.SeparateDatabaseAndState([migrations.RunPython(change)])", {"MG802"}),
    ],
)
def test_an_operation_violates_these_rules(shop: Any, operation: str, rules: set[str]) -> None:
    if "db_default" in operation and __import__("django").VERSION < (5, 0):
        pytest.skip("Django 4.2 has no db_default")
    found = shop(f"operations = [\n        {operation}]")
    assert {rule for rule, _, _ in found} == rules
    assert {line for _, _, line in found} <= {11}


def test_a_concurrent_index_needs_a_migration_without_transaction(shop: Any) -> None:
    index = 'AddIndexConcurrently("Order", models.Index(fields=["note"], name="by_note"))'
    assert [rule for rule, *_ in shop(f"operations = [{index}]")] == ["MG104"]
    assert shop(f"atomic = False\n    operations = [{index}]") == []


def test_a_comment_accepts_with_a_reason(shop: Any) -> None:
    assert shop("operations = [migrations.RunPython(change)]", comment="# mks: allow MG802 ten rows\n") == []


def test_no_database_is_connected_to(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    connected: list[object] = []
    monkeypatch.setattr(BaseDatabaseWrapper, "connect", connected.append)
    field = "models.DateTimeField()"
    assert shop(f'operations = [migrations.AlterField("Order", "day", {field})]') == [
        ("MG207", "shop_order.day", 10)
    ]
    assert connected == []


def test_a_wrong_option_is_status_2(shop: Any) -> None:
    shop("operations = []")
    for arguments in (["--server-version", "3"], ["none", "--server-version", "16"]):
        with pytest.raises(CommandError) as caught:
            call_command("lint_migrations", *arguments)
        assert caught.value.returncode == 2

"""Revisions of Alembic: run without a database, so that loops and helpers are seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from mks_check import MigrationLinter, MigrationReport
from mks_hardening.cli import main
from mks_hardening.exceptions import ConfigurationError

pytest.importorskip("alembic")

HEAD = """
import sqlalchemy as sa
from alembic import op
revision = "{revision}"
down_revision = {down!r}
"""


class Revisions:
    """A folder of revisions, each after the one before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._last: str | None = None
        (folder / "versions").mkdir(parents=True)

    def add(self, body: str, *, comment: str = "") -> str:
        revision = f"{len(list((self.folder / 'versions').iterdir())) + 1:04}"
        indented = body.strip().replace("\n", "\n    ")
        text = f"{HEAD.format(revision=revision, down=self._last)}{comment}\ndef upgrade():\n    {indented}\n"
        (self.folder / "versions" / f"r{revision}.py").write_text(text, encoding="utf-8")
        self._last = revision
        return revision

    def lint(self, *, since: str | None = None) -> MigrationReport:
        linter = MigrationLinter(server_version=17, has_lock_timeout=True)
        return linter.lint_alembic(self.folder, since=since)


@pytest.fixture
def revisions(tmp_path: Path) -> Revisions:
    return Revisions(tmp_path / "migrations")


def _found(report: MigrationReport) -> list[tuple[str, str]]:
    return [(found.rule_id, found.subject) for found in report.failures()]


def test_operations_are_judged_with_their_lines(revisions: Revisions) -> None:
    revisions.add('op.create_table("t", sa.Column("a", sa.String(10)))\nop.create_index("i", "t", ["a"])')
    revisions.add('op.create_index("j", "t", ["a"])\nop.drop_column("t", "a")')
    report = revisions.lint()
    assert _found(report) == [("MG301", "t"), ("MG210", "t.a")]
    assert [(Path(one.path).name, one.line) for one in report.findings] == [("r0002.py", 8), ("r0002.py", 9)]


def test_loops_helpers_and_computed_names_are_seen(revisions: Revisions) -> None:
    revisions.add(
        'def drop(table):\n    op.execute(f"ALTER TABLE {table} DROP c")\n'
        'for name in ("a", "b"):\n    drop("table_" + name)'
    )
    assert [one for one in _found(revisions.lint()) if one[0] == "MG210"] == [
        ("MG210", "table_a.c"),
        ("MG210", "table_b.c"),
    ]


def test_a_column_with_index_and_foreign_key_is_three_operations(revisions: Revisions) -> None:
    revisions.add('op.add_column("t", sa.Column("u", sa.Integer, sa.ForeignKey("u.id"), index=True))')
    assert {rule for rule, _ in _found(revisions.lint())} >= {"MG301"} | {"MG305"}


def test_an_autocommit_block_is_outside_of_the_transaction(revisions: Revisions) -> None:
    body = 'op.create_index("i", "t", ["a"], postgresql_concurrently=True)'
    revisions.add(f"with op.get_context().autocommit_block():\n    {body}")
    revisions.add(body)
    report = revisions.lint()
    assert [(one.rule_id, one.migration) for one in report.findings] == [("MG104", "0002")]


def test_types_of_earlier_revisions_are_known(revisions: Revisions) -> None:
    revisions.add('op.create_table("t", sa.Column("a", sa.String(10)))')
    revisions.add('op.alter_column("t", "a", type_=sa.Text())')
    revisions.add('op.alter_column("t", "a", type_=sa.String(5))')
    assert [one.migration for one in revisions.lint().failures("warning")] == ["0003"]


@pytest.mark.parametrize(
    ("existing", "new", "options", "found"),
    [
        ("sa.String(10)", "sa.Text()", "", []),
        ("sa.String(10)", "sa.Text()", ', schema="s"', []),
        ("sa.String", "sa.Text", "", []),
        ("sa.Numeric(10, 2)", "sa.Numeric(12, 2)", "", []),
        ("sa.Integer()", "sa.BigInteger()", "", [("error", "from integer to bigint")]),
        ("sa.String(20)", "sa.String(10)", "", [("error", "from varchar(20) to varchar(10)")]),
        ("sa.types.NullType()", "sa.Text()", "", [("warning", "the old type is unknown")]),
        ("None", "sa.Text()", "", [("warning", "the old type is unknown")]),
    ],
)
def test_the_type_that_a_revision_states_is_believed(
    revisions: Revisions, existing: str, new: str, options: str, found: list[tuple[str, str]]
) -> None:
    revisions.add(f'op.alter_column("t", "a", existing_type={existing}, type_={new}{options})')
    report = revisions.lint()
    assert [(one.rule_id, one.level) for one in report.findings] == [("MG207", level) for level, _ in found]
    assert all(text in one.message for one, (_, text) in zip(report.findings, found, strict=True))


def test_what_earlier_revisions_tell_comes_before_what_a_revision_states(revisions: Revisions) -> None:
    revisions.add('op.create_table("t", sa.Column("a", sa.String(20)))')
    body = 'op.alter_column("a", existing_type=sa.String(5), type_=sa.String(10))'
    revisions.add(f'with op.batch_alter_table("t") as batch:\n    {body.replace("op.", "batch.")}')
    assert _found(revisions.lint()) == [("MG207", "t.a")]


def test_data_steps_are_seen_and_rows_are_a_finding(revisions: Revisions) -> None:
    revisions.add('op.get_bind().execute(sa.text("UPDATE t SET a = :a"), {"a": 1})')
    revisions.add(
        'for row in op.get_bind().execute(sa.text("SELECT id FROM t")):\n    op.execute("DROP TABLE u")\n'
        'op.drop_column("t", "a")'
    )
    assert _found(revisions.lint()) == [("MG505", "t"), ("MG802", ""), ("MG210", "t.a")]


@pytest.mark.parametrize(
    "body",
    [
        "sa.inspect(op.get_bind())",
        "op.get_bind().scalars(sa.text('SELECT 1')).one()",
        "1 / 0",
        "open('/none')",
    ],
)
def test_a_revision_that_stops_is_a_finding(revisions: Revisions, body: str) -> None:
    revisions.add(f'{body}\nop.drop_table("t")')
    (found,) = revisions.lint().findings
    assert (found.rule_id, found.line) == ("MG802", 8)


def test_a_waiver_in_the_file_accepts(revisions: Revisions) -> None:
    revisions.add('op.drop_table("t")', comment="# mks: allow MG210 no release since 3.1 reads it\n")
    assert revisions.lint().failures("note") == ()


def test_only_new_revisions_are_reported(revisions: Revisions) -> None:
    first = revisions.add('op.create_table("t", sa.Column("a", sa.String(10)))\nop.drop_table("u")')
    revisions.add('op.alter_column("t", "a", type_=sa.Text())')
    report = revisions.lint(since=first)
    assert (report.migrations, report.findings) == (("0002",), ())
    with pytest.raises(ConfigurationError, match="since"):
        revisions.lint(since="none")


def test_a_revision_that_cannot_be_imported_is_an_error(revisions: Revisions, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no revisions"):
        revisions.lint()
    revisions.add("def")
    with pytest.raises(ConfigurationError, match="SyntaxError"):
        revisions.lint()
    with pytest.raises(ConfigurationError, match="there is no"):
        MigrationLinter(server_version=17).lint_alembic(tmp_path / "none")


def test_the_command_reads_revisions(revisions: Revisions, capsys: pytest.CaptureFixture[str]) -> None:
    first = revisions.add('op.drop_table("t")')
    command = [
        "migrations",
        "lint",
        "--alembic",
        str(revisions.folder),
        "--server-version",
        "17",
        "--lock-timeout-set",
    ]
    assert main(command) == 1
    assert "MG210" in capsys.readouterr().out
    assert main([*command, "--since", first]) == 0
    assert main([*command, "--since", "none"]) == 2
    assert main([*command, "file.sql"]) == 2

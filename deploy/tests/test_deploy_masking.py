"""``mks-deploy mask`` on PostgreSQL: declared columns are masked; a doubt stops it, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from deploy_settings import deployed
from mks_deploy.cli import main
from mks_deploy.operations.masking import MaskError, mark_staging, mask, read_mask_table
from mks_deploy.settings.settings_file import read_settings

STAGING = read_settings(deployed('[site]\nenvironment = "staging"'))
PRODUCTION = read_settings(deployed())

SCHEMA = """
CREATE TABLE people (id int PRIMARY KEY, email text UNIQUE NOT NULL, full_name varchar(40), phone text, born date,
    seen inet, password_hash text, plan text NOT NULL, "note" jsonb, photo bytea,
    upper_plan text GENERATED ALWAYS AS (upper(plan)) STORED);
CREATE TABLE orders (id int PRIMARY KEY, customer text REFERENCES people (email) ON UPDATE NO ACTION DEFERRABLE,
    remark text);
CREATE SCHEMA audit;
CREATE TABLE audit.entries (at timestamptz DEFAULT now(), actor_name text, detail text);
INSERT INTO people VALUES
    (1, 'tanaka@example.jp', '田中', '03-1234-5678', '1980-05-06', '203.0.113.9', 'pbkdf2', 'gold', '{"a":1}',
        '\\x00'),
    (2, 'sato@example.jp', NULL, NULL, NULL, NULL, NULL, 'free', NULL, NULL);
INSERT INTO orders VALUES (1, 'tanaka@example.jp', 'call tanaka@example.jp'), (2, 'sato@example.jp', '');
INSERT INTO audit.entries (actor_name, detail) VALUES ('田中', 'x');
"""
TABLE = """
[people]
email = "email"
full_name = "name"
phone = "phone"
born = "birthday"
seen = "address"
password_hash = "null"
note = "null"
photo = "null"
[orders]
customer = "email"
remark = "text"
[audit.entries]
rows = "delete"
"""


@pytest.fixture
def database(postgres_url: str) -> Iterator[Any]:
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection:
        connection.execute(SCHEMA)
        connection.commit()
        mark_staging(connection, STAGING, connection.info.dbname)
        yield connection


def rows(connection: Any, query: str) -> list[tuple[Any, ...]]:
    found = connection.execute(query).fetchall()
    connection.commit()
    return list(found)


EVERYTHING = "SELECT people::text FROM people UNION ALL SELECT orders::text FROM orders"

pytestmark = pytest.mark.postgres


def test_declared_columns_are_masked_and_references_stay(database: Any) -> None:
    assert mask(database, STAGING, read_mask_table(TABLE)) == {"audit.entries": 1, "orders": 2, "people": 2}
    (first, second) = rows(
        database,
        "SELECT email, full_name, phone, born::text, host(seen), password_hash, plan FROM people ORDER BY id",
    )
    assert first[0].startswith("user-")
    assert first[0].endswith("@masked.invalid")
    assert first[0] != second[0]
    assert first[1].startswith("Person ")
    assert first[2].startswith("000-")
    assert first[3] == "1980-01-01"
    assert first[4].startswith("192.0.2.")
    assert first[5:] == (None, "gold")
    assert second[1:] == (None, None, None, None, None, "free")
    joined = "SELECT o.id, o.remark FROM orders o JOIN people p ON p.email = o.customer ORDER BY o.id"
    assert rows(database, joined) == [(1, "masked masked masked m"), (2, "")]
    assert rows(database, "SELECT count(*) FROM audit.entries") == [(0,)]
    assert "example.jp" not in str(rows(database, EVERYTHING))


def test_two_runs_have_nothing_in_common(database: Any) -> None:
    seen = set[str]()
    for _ in range(2):
        mask(database, STAGING, read_mask_table(TABLE))
        seen |= {email for (email,) in rows(database, "SELECT email FROM people")}
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('email = "email"\n', ""), "people.email holds mail addresses"),
        (('full_name = "name"\n', ""), "people.full_name looks like personal data"),
        (('photo = "null"\n', ""), "people.photo looks like personal data"),
        (('seen = "address"\n', ""), "people.seen looks like personal data"),
        (('born = "birthday"\n', ""), "people.born looks like personal data"),
        (('remark = "text"\n', ""), "orders.remark holds mail addresses"),
        (("[orders]\n", '[orders]\ncolour = "null"\n'), "orders.colour is no column"),
        (("[audit.entries]", "[audit.gone]"), "audit.gone is no table"),
        (('email = "email"', 'email = "null"'), "nothing was changed: null value in column"),
        (('born = "birthday"', 'born = "text"'), "nothing was changed: .* is of type date"),
    ],
)
def test_whatever_is_doubtful_changes_nothing(database: Any, change: tuple[str, str], said: str) -> None:
    before = rows(database, EVERYTHING)
    with pytest.raises(MaskError, match=said) as refused:
        mask(database, STAGING, read_mask_table(TABLE.replace(*change)))
    assert rows(database, EVERYTHING) == before
    assert "tanaka@" not in str(refused.value)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("CREATE TABLE calls (id int, phone_number bigint)", "calls.phone_number looks like personal data"),
        ("CREATE TABLE pay (salary numeric, born_at timestamp)", "pay.salary looks like personal data"),
        ("CREATE TABLE guests (birthday date)", "guests.birthday looks like personal data"),
        ("CREATE TABLE words (found tsvector)", "words.found looks like personal data"),
        ("CREATE TABLE scans (id int, file oid)", "scans.file looks like personal data"),
    ],
)
def test_numbers_words_and_large_objects_have_to_be_declared(database: Any, more: str, said: str) -> None:
    database.execute(more)
    database.commit()
    with pytest.raises(MaskError, match=said):
        mask(database, STAGING, read_mask_table(TABLE))


def test_a_view_that_holds_rows_holds_masked_ones(database: Any) -> None:
    database.execute("CREATE MATERIALIZED VIEW one AS SELECT email FROM people")
    database.execute("CREATE MATERIALIZED VIEW another AS SELECT email FROM one")
    database.commit()
    mask(database, STAGING, read_mask_table(TABLE), rehearse=True)
    assert "example.jp" in str(rows(database, "SELECT * FROM another"))
    mask(database, STAGING, read_mask_table(TABLE))
    kept = rows(database, "SELECT email FROM one UNION ALL SELECT email FROM another")
    assert len(kept) == 4
    assert "example.jp" not in str(kept)


def test_a_trigger_does_not_bring_the_values_back(database: Any) -> None:
    database.execute(
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO audit.entries (detail) "
        "VALUES (OLD.email); RETURN NEW; END $$; "
        "CREATE TRIGGER note AFTER UPDATE ON people FOR EACH ROW EXECUTE FUNCTION note()"
    )
    database.commit()
    mask(database, STAGING, read_mask_table(TABLE))
    assert rows(database, "SELECT count(*) FROM audit.entries") == [(0,)]
    database.execute("INSERT INTO audit.entries (detail) VALUES ('x')")
    database.commit()
    masked = TABLE.replace('rows = "delete"', 'actor_name = "name"\ndetail = "text"')
    with pytest.raises(MaskError, match=r"audit\.entries got rows from a trigger"):
        mask(database, STAGING, read_mask_table(masked))


CHILDREN = """
CREATE TABLE visits (id int PRIMARY KEY, entry int);
CREATE TABLE pages (id int PRIMARY KEY, visit int REFERENCES visits {on_delete}, colour text);
CREATE TABLE clicks (id int PRIMARY KEY, page int REFERENCES pages ON DELETE CASCADE);
INSERT INTO visits VALUES (1), (2);
INSERT INTO pages VALUES (1, 1, 'red'), (2, 1, 'blue'), (3, NULL, 'green');
INSERT INTO clicks VALUES (1, 1), (2, 3);
"""
VISITS = f'{TABLE}[visits]\nrows = "delete"\n'


def test_rows_that_a_foreign_key_would_delete_are_said(database: Any) -> None:
    database.execute(CHILDREN.format(on_delete="ON DELETE CASCADE"))
    database.commit()
    with pytest.raises(MaskError) as refused:
        mask(database, STAGING, read_mask_table(VISITS))
    assert [line.partition(" rows")[0] for line in str(refused.value).splitlines()] == [
        "clicks would lose 1",
        "pages would lose 2",
    ]
    assert rows(database, "SELECT count(*) FROM pages") == [(3,)]
    # The second rule comes after the foreign key, and its rows are counted all the same.
    allowed = VISITS + '[clicks]\nrows = "cascade"\n[pages]\nrows = "cascade"\ncolour = "token"\n'
    changed = mask(database, STAGING, read_mask_table(allowed))
    assert (changed["visits"], changed["pages"], changed["clicks"]) == (2, 2, 1)
    assert rows(database, "SELECT id FROM clicks") == [(2,)]
    database.execute("INSERT INTO visits VALUES (1); INSERT INTO pages VALUES (4, 1)")
    database.commit()
    alone = VISITS.replace("[visits]", "[clicks]\nrows = 'delete'\n[pages]\nrows = 'delete'\n[visits]")
    assert mask(database, STAGING, read_mask_table(alone))["pages"] == 2


def test_a_table_of_cascades_is_judged_by_its_columns(database: Any) -> None:
    database.execute("CREATE TABLE letters (id int, recipient_name text)")
    database.commit()
    with pytest.raises(MaskError, match=r"letters\.recipient_name looks like personal data"):
        mask(database, STAGING, read_mask_table(f'{TABLE}[letters]\nrows = "cascade"\n'))


def test_rows_that_stay_without_what_they_refer_to_are_counted(database: Any) -> None:
    database.execute(CHILDREN.format(on_delete="ON DELETE SET NULL"))
    database.commit()
    assert mask(database, STAGING, read_mask_table(VISITS))["pages"] == 2


def test_a_trigger_that_deletes_and_a_table_that_inherits_are_found_too(database: Any) -> None:
    database.execute("CREATE TABLE visits (id int); CREATE TABLE late_visits () INHERITS (visits)")
    database.execute("INSERT INTO late_visits VALUES (1)")
    database.commit()
    with pytest.raises(MaskError, match="late_visits would lose 1 rows"):
        mask(database, STAGING, read_mask_table(VISITS))
    database.execute(
        "CREATE FUNCTION clean() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM late_visits; RETURN NEW; "
        "END $$; CREATE TRIGGER clean AFTER UPDATE ON people FOR EACH STATEMENT EXECUTE FUNCTION clean()"
    )
    database.commit()
    with pytest.raises(MaskError, match="late_visits would lose 1 rows"):
        mask(database, STAGING, read_mask_table(TABLE))


def test_without_counts_nothing_is_masked(database: Any) -> None:
    database.execute("SET track_counts = off")
    database.commit()
    with pytest.raises(MaskError, match="track_counts of PostgreSQL is off"):
        mask(database, STAGING, read_mask_table(TABLE))


def test_a_table_in_parts_is_masked_once(database: Any) -> None:
    database.execute(
        "CREATE TABLE mails (id int, recipient text) PARTITION BY RANGE (id); "
        "CREATE TABLE mails_1 PARTITION OF mails FOR VALUES FROM (0) TO (10); "
        "INSERT INTO mails VALUES (1, 'tanaka@example.jp')"
    )
    database.commit()
    mask(database, STAGING, read_mask_table(f'{TABLE}[mails]\nrecipient = "email"\n'))
    assert rows(database, "SELECT p.id FROM people p JOIN mails m ON m.recipient = p.email") == [(1,)]
    parts = ";".join(
        f"CREATE TABLE m{part} PARTITION OF by_mail FOR VALUES WITH (MODULUS 4, REMAINDER {part})"
        for part in range(4)
    )
    database.execute(f"CREATE TABLE by_mail (email text) PARTITION BY HASH (email); {parts}")
    database.execute("INSERT INTO by_mail SELECT i || '@example.jp' FROM generate_series(1, 20) i")
    database.commit()
    moving = f'{TABLE}[mails]\nrecipient = "email"\n[by_mail]\nemail = "email"\n'
    assert mask(database, STAGING, read_mask_table(moving))["by_mail"] == 20


def test_what_was_kept_deliberately_is_kept(database: Any) -> None:
    mask(database, STAGING, read_mask_table(TABLE.replace('remark = "text"', 'remark = "keep"')))
    assert rows(database, "SELECT remark FROM orders WHERE id = 1") == [("call tanaka@example.jp",)]


def test_production_is_never_masked(database: Any, postgres_url: str) -> None:
    with pytest.raises(MaskError, match=r"site\.environment"):
        mask(database, PRODUCTION, read_mask_table(TABLE))
    with pytest.raises(MaskError, match=r"site\.environment"):
        mark_staging(database, PRODUCTION, database.info.dbname)
    with pytest.raises(MaskError, match="must repeat the name"):
        mark_staging(database, STAGING, "another")
    database.execute(f'ALTER DATABASE "{database.info.dbname}" RESET mks.environment')
    database.commit()
    with (
        psycopg.connect(
            postgres_url.replace("+psycopg", ""), options="-c mks.environment=staging"
        ) as another,
        pytest.raises(MaskError, match="is not marked as staging"),
    ):
        mask(another, STAGING, read_mask_table(TABLE))
    assert "tanaka@example.jp" in str(rows(database, EVERYTHING))


def test_the_command(database: Any, postgres_url: str, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    monkeypatch.delenv("DATABASE_URL_FILE", raising=False)
    (tmp_path / "deploy.toml").write_text(deployed('[site]\nenvironment = "staging"'))
    (tmp_path / "mask.toml").write_text(TABLE)
    words = ["mask", "--settings", str(tmp_path / "deploy.toml")]
    assert main([*words, "--mark", "another"]) == 1
    assert main([*words, "--mark", database.info.dbname]) == 0
    assert main([*words, "--columns", str(tmp_path / "mask.toml"), "--plan"]) == 0
    assert "tanaka@example.jp" in str(rows(database, EVERYTHING))
    assert main([*words, "--columns", str(tmp_path / "mask.toml")]) == 0
    assert "         2 people\n" in capsys.readouterr().out
    database.execute(CHILDREN.format(on_delete="ON DELETE SET NULL"))
    database.commit()
    (tmp_path / "visits.toml").write_text(VISITS)
    assert main([*words, "--columns", str(tmp_path / "visits.toml")]) == 0
    assert "         2 pages (by a foreign key or a trigger)\n" in capsys.readouterr().out
    assert main([*words, "--columns", str(tmp_path / "mask.toml"), "--mark", "x"]) == 2
    (tmp_path / "deploy.toml").write_text(deployed())
    assert main([*words, "--columns", str(tmp_path / "mask.toml")]) == 1


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "people = 1",
        '[people]\nemail = "scramble"',
        "[people]\nemail = 1",
        '[people]\nrows = "drop"',
        "['a b']",
    ],
)
def test_a_bad_table_is_refused(text: str) -> None:
    with pytest.raises(MaskError, match=r"must be|is not TOML"):
        read_mask_table(text)

"""Capacity on paper: tables of sizes by hand, properties of the model, and the command."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mks_deploy.cli import main
from mks_deploy.operations.capacity import (
    CapacityError,
    Costs,
    Load,
    Machine,
    Size,
    limits_of,
    read_costs,
    reference_costs,
    size_for,
)

DOCS = Path(__file__).parents[2] / "docs"
needs_docs = pytest.mark.skipif(not DOCS.exists(), reason="the documentation is not part of the wheel")
PLAIN = Costs(application_ms=6, nginx_ms=0)
WHOLE = Costs(
    application_ms=3,
    nginx_ms=1,
    postgresql_ms=0.5,
    redis_ms=0.1,
    statements=1,
    redis_commands=3,
    redis_bytes=12_500,
    log_bytes=1024,
    response_bytes=12_500,
    session_bytes=1000,
    cached_bytes=0,
)


# --- by hand ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("load", "costs", "size"),
    [
        # 1000 x 0.1 / 10 s = 10 requests/s; 10 x 6 ms / 0.6 = a tenth of a core.
        (Load(users=1000, pause=10), PLAIN, {"requests": 10, "workers": 2, "web_hosts": 1, "connections": 0}),
        # 1000 requests/s x 6 ms / 0.6 = 10 cores, on hosts of 8.
        (Load(users=100_000, pause=10), PLAIN, {"workers": 10, "web_hosts": 2, "redis_mib": 0, "shards": 1}),
        # 1000 requests/s: 5 workers; 4 ms make 6.7 cores; 0.5 ms in PostgreSQL make 0.83 of a core.
        (Load(users=100_000, pause=10), WHOLE, {"workers": 5, "web_hosts": 1, "database_cores": 1}),
        # Five workers of 16 threads twice, and 13; 1.5 x 1000 x (0.5 + 0.5) ms = 1.5, rounded up, 2 and 13.
        (Load(users=100_000, pause=10), WHOLE, {"connections": 173, "pooled": 17}),
        # 1.5 x 100,000 x 1000 bytes, and 10,000 active with four counters of 117 bytes.
        (Load(users=100_000, pause=10, cached=0), WHOLE, {"redis_mib": 150, "shards": 1}),
        # 1000 requests/s x 3600 x 5 hours x 1 KiB.
        (Load(users=100_000, pause=10), WHOLE, {"log_gib": 1000 * 3600 * 5 / 2**20}),
        # 10,000 requests/s x 0.1 ms = a whole core, of which 0.6 may be busy.
        (Load(users=1_000_000, pause=10), WHOLE, {"shards": 2}),
    ],
)
def test_a_size_is_what_is_computed_by_hand(load: Load, costs: Costs, size: dict[str, float]) -> None:
    found = size_for(costs, load)
    assert {name: getattr(found, name) for name in size} == pytest.approx(size)


def test_the_first_limit_is_the_one_that_is_used_up_first() -> None:
    found = {limit.name: limit.requests for limit in limits_of(WHOLE, Load(users=1, pause=10, cached=0))}
    assert found == pytest.approx(
        {
            # (200 - 13) // 32 = 5 workers, each 0.6 of a core, at 3 ms.
            "connections to PostgreSQL without PgBouncer": 1000,
            "cores of one web host": 8 * 0.6 / 0.004,
            # 4 GiB / 1.5 / (1000 + 0.1 x 468) bytes of a user, of whom 100 send one request a second.
            "memory of one Redis server": 4 * 2**30 / 1.5 / 1046.8 / 100,
            "disk of a day's logs": 20 * 2**30 / 1024 / 18_000,
            "the core of one Redis server": 6000,
            "cores of the database host": 8 * 0.6 / 0.0005,
            "network of one Redis server": 10_000,
            "network of one web host": 10_000,
            "connections to PostgreSQL with PgBouncer": 185 / 1.5 / 0.001,
        }
    )
    assert list(found.values()) == sorted(found.values())
    assert [limit.name for limit in limits_of(PLAIN, Load(users=1))] == ["cores of one web host"]


# --- properties -------------------------------------------------------------------------------

amounts = st.floats(0, 1000)
costs = st.builds(Costs, **{field.name: amounts for field in fields(Costs)})
loads = st.builds(
    Load,
    users=st.integers(1, 10**7),
    active=st.floats(0.01, 1),
    pause=st.floats(0.1, 3600),
    cached=st.integers(0, 10**6),
)


def as_numbers(size: Size) -> list[float]:
    return [getattr(size, field.name) for field in fields(size)]


@given(costs, loads, st.integers(0, 10**7))
def test_more_users_never_need_less(cost: Costs, load: Load, more: int) -> None:
    few, many = size_for(cost, load), size_for(cost, replace(load, users=load.users + more))
    assert all(one <= other for one, other in zip(as_numbers(few), as_numbers(many), strict=True))


@given(costs, loads, st.sampled_from([field.name for field in fields(Costs)]), amounts)
def test_a_more_expensive_request_never_needs_less(cost: Costs, load: Load, name: str, more: float) -> None:
    dearer = replace(cost, **{name: getattr(cost, name) + more})
    pairs = zip(as_numbers(size_for(cost, load)), as_numbers(size_for(dearer, load)), strict=True)
    assert all(one <= other for one, other in pairs)


@given(costs, loads)
def test_no_processor_is_planned_busier_than_allowed(cost: Costs, load: Load) -> None:
    size = size_for(cost, load)
    assert load.requests * cost.application_ms / 1000 <= size.workers * 0.6 * (1 + 1e-6) + 1e-6
    assert load.requests * cost.redis_ms / 1000 <= size.shards * 0.6 * (1 + 1e-6) + 1e-6


@given(costs, loads, st.integers(1, 64))
def test_a_larger_machine_has_no_lower_limit(cost: Costs, load: Load, more: int) -> None:
    small = Machine()
    large = Machine(
        cores=8 + more,
        connections=200 + more,
        redis_gib=4 + more,
        network_mbit=1000 + more,
        disk_gib=20 + more,
    )
    before, after = (
        {limit.name: limit.requests for limit in limits_of(cost, load, machine)} for machine in (small, large)
    )
    assert before.keys() == after.keys()
    assert all(before[name] <= after[name] for name in before)


# --- files and the command --------------------------------------------------------------------


def test_routes_count_by_their_weight() -> None:
    text = """
[routes."GET /"]
weight = 3
application_ms = 2
nginx_ms = 0
[routes."GET /a"]
weight = 1
application_ms = 6
nginx_ms = 4
log_bytes = 8
anything_else = "is for readers"
[stored]
session_bytes = 500
"""
    assert read_costs(text) == Costs(application_ms=3, nginx_ms=1, log_bytes=2, session_bytes=500)


ROUTE = '[routes."/"]\nweight = 1\napplication_ms = 1\nnginx_ms = 1\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "not TOML"),
        ("", r"\[routes\] must have a table for each route"),
        ("routes = 1", r"\[routes\] must have a table"),
        ("[routes]\nx = 1", "routes.x must be a table"),
        ("[routes.x]\nweight = 1", "routes.x lacks application_ms, nginx_ms"),
        (ROUTE.replace("weight = 1", "weight = 0"), "at least one route must have a weight above 0"),
        (ROUTE + "statements = true", "routes./.statements must be a number"),
        (ROUTE + "statements = nan", "routes./.statements must be a number"),
        (ROUTE + "statements = inf", "routes./.statements must be a number"),
        (ROUTE + "statements = -1", "routes./.statements must be a number"),
        (ROUTE + "statements = '1'", "routes./.statements must be a number"),
        (
            ROUTE + "stored.session_bytes = 1\n[stored]\nsession_bytes = -1",
            "stored.session_bytes must be a number",
        ),
        ("stored = 1\n" + ROUTE, "stored must be a table"),
    ],
)
def test_costs_that_cannot_be_read_are_refused(text: str, message: str) -> None:
    with pytest.raises(CapacityError, match=message):
        read_costs(text)


def test_the_costs_of_the_reference_can_be_read() -> None:
    assert read_costs(reference_costs()).application_ms > 0


def test_the_command_prints_the_size_and_the_limits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "costs.toml"
    file.write_text(ROUTE)
    words = [
        "capacity",
        "--users",
        "100000",
        "--pause",
        "10",
        "--costs",
        str(file),
        "--cost",
        "application_ms=6",
    ]
    assert main(words) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "requests/s in the busiest minute 1,000" in lines
    assert "worker processes, with threads of each 10 x 16" in lines
    assert lines[-1] == "cores of one web host 686"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "required: --users"),
        (["--users", "0"], "whole number from 1"),
        (["--users", "1e5"], "whole number from 1"),
        (["--users", "1", "--active", "0"], "number above 0"),
        (["--users", "1", "--active", "1.1"], "number above 0, at most 1"),
        (["--users", "1", "--pause", "nan"], "number above 0"),
        (["--users", "1", "--cost", "cpu=1"], "unknown; there are application_ms"),
        (["--users", "1", "--cost", "redis_ms=-1"], "redis_ms must be a number from 0"),
    ],
)
def test_wrong_arguments_of_the_command_are_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["capacity", *words])
    assert left.value.code == 2
    assert message in capsys.readouterr().err


def test_a_file_of_costs_that_is_wrong_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "costs.toml"
    file.write_text("[routes]")
    assert main(["capacity", "--users", "1", "--costs", str(file)]) == 2
    assert capsys.readouterr().err == f"{file}: [routes] must have a table for each route\n"


@needs_docs
@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_commands_and_the_file_of_the_page_work(
    language: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (DOCS / language / "reference" / "capacity.md").read_text(encoding="utf-8")
    commands = re.findall(r"^```sh\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        program, *words = shlex.split(command)
        assert (program, main(words)) == ("mks-deploy", 0)
        assert "worker processes" in capsys.readouterr().out
    (costs,) = re.findall(r"^```toml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert read_costs(costs).statements == 8


@needs_docs
def test_the_page_shows_what_the_measured_costs_say() -> None:
    page = (DOCS / "explanation" / "capacity.md").read_text(encoding="utf-8")
    costs = read_costs(reference_costs())
    rows = [
        [cell.strip(" `") for cell in line.split("|")[1:-1]] for line in page.splitlines() if line[:1] == "|"
    ]
    columns = next(row for row in rows if row[0] == "users")[1:]
    for users, column in enumerate(columns, start=1):
        size = size_for(costs, Load(users=int(column.replace(",", ""))))
        shown = {row[0]: row[users] for row in rows if len(row) == len(columns) + 1}
        assert shown["workers"] == f"{size.workers:,}"
        assert shown["pooled"] == f"{size.pooled:,}"
        assert shown["redis_mib"] == f"{size.redis_mib:,}"
    first = limits_of(costs, Load(users=1))[0]
    assert [first.name, f"{first.requests:,.0f}"] in rows

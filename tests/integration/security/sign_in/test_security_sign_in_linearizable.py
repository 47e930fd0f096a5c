"""No session outlives the credentials it was begun with, over processes that share Redis and the accounts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from linearizability import Operation, unexplained_keys
from sign_in_history import Model, Tools

pytestmark = pytest.mark.redis

PROCESSES, ACCOUNTS, SLOT = 2, 40, 0.08


@pytest.mark.parametrize("accounts", ["redis", "sql"])
def test_processes_over_one_redis(redis_server: Any, tmp_path: Path, accounts: str) -> None:
    where = "redis" if accounts == "redis" else str(tmp_path / "accounts.db")
    users = [f"user-{number}" for number in range(ACCOUNTS)]
    Tools.shared(redis_server.url, where).invite(users)
    orders = tmp_path / "orders.json"
    orders.write_text(json.dumps({"url": redis_server.url, "accounts": where, "users": users, "slot": SLOT}))
    program = Path(__file__).parents[3] / "support" / "sign_in_history.py"
    children = [
        subprocess.Popen(
            [sys.executable, str(program), str(orders), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    begin = time.monotonic() + 0.1
    for child in children:
        assert child.stdin is not None
        child.stdin.write(f"{begin}\n")
        child.stdin.flush()
    rows: list[Operation] = []
    for child in children:
        lines = child.communicate(timeout=120)[0].splitlines()
        assert child.returncode == 0
        rows += [Operation(*json.loads(line)) for line in lines]
    assert unexplained_keys(rows, Model()) == []
    names = {(row.call[0], row.answer) for row in rows}
    assert {("sign_in", "pwd"), ("alive", True)} <= names
    assert {"reset", "change", "disable", "admin_reset"} <= {
        row.call[2] for row in rows if row.call[0] == "set"
    }

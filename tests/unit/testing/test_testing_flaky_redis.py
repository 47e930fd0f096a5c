from __future__ import annotations

import pytest

from mks_hardening._core.backend.redis_client import RedisClient
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.testing import FlakyRedis


@pytest.mark.parametrize("fault", ["refused", "reset", "timeout", "lost_reply"])
def test_each_fault_breaks_one_command(fault: str) -> None:
    flaky = FlakyRedis()
    flaky.execute_command("SET", "n", 5)
    flaky.fail(fault)  # type: ignore[arg-type]  # one of the literals
    with pytest.raises(OSError, match="on demand"):
        flaky.execute_command("INCR", "n")
    carried_out = fault == "lost_reply"
    assert flaky.execute_command("GET", "n") == (b"6" if carried_out else b"5")
    assert flaky.commands == ["SET", "INCR", "GET"]


def test_it_drives_the_policies_of_the_library() -> None:
    flaky = FlakyRedis()
    client = RedisClient(flaky)
    flaky.fail("lost_reply")
    with pytest.raises(BackendUnavailableError):
        client.call("INCR", "n")
    flaky.fail("reset", times=2)
    assert client.call("GET", "n", idempotent=True) == b"1"
    flaky.fail("timeout", times=9)
    flaky.heal()
    assert client.ping()
    assert repr(flaky) == "FlakyRedis(faults=[])"

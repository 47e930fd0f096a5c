"""The arithmetic of pools."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mks_hardening.db import PoolPlan, plan_pool
from mks_hardening.exceptions import ConfigurationError


@pytest.mark.parametrize(
    ("workers", "threads", "max_connections", "reserved", "plan"),
    [
        (1, 1, 100, 3, PoolPlan(pool_size=1, max_overflow=1)),
        (4, 8, 100, 3, PoolPlan(pool_size=8, max_overflow=8)),
        (8, 8, 100, 3, PoolPlan(pool_size=8, max_overflow=4)),
        (8, 60, 100, 3, PoolPlan(pool_size=12, max_overflow=0)),
        (97, 4, 100, 3, PoolPlan(pool_size=1, max_overflow=0)),
        (2, 2, 4, 0, PoolPlan(pool_size=2, max_overflow=0)),
    ],
)
def test_processes_share_the_server(
    workers: int, threads: int, max_connections: int, reserved: int, plan: PoolPlan
) -> None:
    assert (
        plan_pool(workers=workers, threads=threads, max_connections=max_connections, reserved=reserved)
        == plan
    )


@pytest.mark.parametrize("generations", [1, 2, 3])
def test_a_new_generation_of_workers_fits_beside_the_old(generations: int) -> None:
    plan = plan_pool(workers=8, threads=12, max_connections=100, generations=generations)
    assert plan.pool_size >= 4
    assert generations * 8 * (plan.pool_size + plan.max_overflow) <= 97


@pytest.mark.parametrize(
    ("parameter", "options"),
    [
        ("max_connections", {"workers": 98}),
        ("max_connections", {"max_connections": 3}),
        ("max_connections", {"max_connections": 0}),
        ("workers", {"workers": 0}),
        ("workers", {"workers": True}),
        ("workers", {"workers": 1.5}),
        ("threads", {"threads": -1}),
        ("threads", {"threads": "8"}),
        ("reserved", {"reserved": -1}),
        ("generations", {"generations": 0}),
        ("max_connections", {"workers": 49, "generations": 2}),
    ],
)
def test_what_cannot_fit_is_refused(parameter: str, options: dict[str, Any]) -> None:
    given_options: dict[str, Any] = {"workers": 1, "threads": 1, "max_connections": 100, **options}
    with pytest.raises(ConfigurationError, match=parameter) as caught:
        plan_pool(**given_options)
    assert caught.value.parameter == parameter


@given(
    workers=st.integers(1, 500),
    threads=st.integers(1, 500),
    max_connections=st.integers(1, 2000),
    reserved=st.integers(0, 50),
)
def test_all_processes_together_always_fit(
    workers: int, threads: int, max_connections: int, reserved: int
) -> None:
    try:
        plan = plan_pool(workers=workers, threads=threads, max_connections=max_connections, reserved=reserved)
    except ConfigurationError:
        assert (max_connections - reserved) // workers < 1
        return
    assert workers * (plan.pool_size + plan.max_overflow) <= max_connections - reserved
    assert 1 <= plan.pool_size <= threads

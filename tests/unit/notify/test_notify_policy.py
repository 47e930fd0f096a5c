from __future__ import annotations

import copy
import pickle
from dataclasses import asdict, fields
from datetime import timedelta
from typing import Any

import pytest

from mks_hardening.exceptions import ConfigurationError
from mks_hardening.notify import AlertPolicy, AlertStats
from mks_hardening.notify.engine._outbox import pause_before_retry


def test_the_defaults_are_the_documented_ones() -> None:
    policy = AlertPolicy()
    assert policy._asdict() == {
        "dedup_window": 300.0,
        "digest": True,
        "max_queue": 1000,
        "retries": 5,
        "backoff": 0.5,
        "backoff_max": 60.0,
        "rate": 1.0,
        "shared_store": None,
    }
    assert copy.deepcopy(policy) == policy
    assert pickle.loads(pickle.dumps(policy)) == policy  # noqa: S301 - our own bytes


def test_the_least_values_are_taken() -> None:
    least = AlertPolicy(dedup_window=0, max_queue=1, retries=0, backoff=0, backoff_max=0, rate=1e-9)
    assert least[:7] == (0, True, 1, 0, 0, 0, 1e-9)


def test_durations_may_be_timedeltas() -> None:
    assert AlertPolicy(dedup_window=timedelta(minutes=2), backoff=timedelta(seconds=1)).dedup_window == 120


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("dedup_window", -1),
        ("dedup_window", "300"),
        ("dedup_window", float("inf")),
        ("max_queue", 0),
        ("max_queue", 1.5),
        ("max_queue", True),
        ("retries", -1),
        ("retries", None),
        ("backoff", -0.1),
        ("backoff_max", float("nan")),
        ("shared_store", 5),
        ("rate", 0),
        ("rate", -1),
        ("rate", float("inf")),
        ("rate", "fast"),
        ("rate", True),
    ],
)
def test_impossible_values_are_refused_by_name(parameter: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=parameter) as caught:
        AlertPolicy(**{parameter: value})
    assert caught.value.parameter == parameter


def test_the_store_is_not_shown() -> None:
    policy = AlertPolicy(shared_store="redis://:hunter22@localhost/0")
    assert "hunter22" not in repr(policy)
    assert "shared_store=..." in repr(policy)
    assert "shared_store=None" in repr(AlertPolicy())
    assert "AlertPolicy(dedup_window=60.0, " in repr(AlertPolicy(dedup_window=60))


@pytest.mark.parametrize(
    ("failures", "chance", "pause"),
    [(1, 0.0, 0.25), (1, 1.0, 0.5), (2, 1.0, 1.0), (5, 1.0, 8.0), (8, 1.0, 60.0), (5000, 0.0, 30.0)],
)
def test_pauses_double_up_to_the_longest_with_half_of_it_by_chance(
    failures: int, chance: float, pause: float
) -> None:
    assert pause_before_retry(AlertPolicy(), failures, random=lambda: chance) == pause


def test_stats_name_every_state() -> None:
    names = [field.name for field in fields(AlertStats)]
    assert names[:6] == ["logged", "delivered", "suppressed", "spooled", "dropped", "pending"]
    assert set(asdict(AlertStats()).values()) == {0}
    assert not hasattr(AlertStats(), "__dict__")
    with pytest.raises(AttributeError):
        AlertStats().logged = 1  # type: ignore[misc]  # what is refused here

"""What Celery is told: what was given on top of what keeps tasks from being lost, or a refusal."""

from __future__ import annotations

from typing import Any

import pytest

from mks_hardening.contrib._celery_settings import celery_settings
from mks_hardening.contrib.celery_app import celery_app
from mks_hardening.db import hardened_engine
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.tasks import Tasks
from testbed.run_python import run_python

BROKER = "redis://u:pw@127.0.0.1:1/1"


@pytest.fixture
def tasks() -> Tasks:
    return Tasks(hardened_engine("sqlite://"))


def settings_of(**given: Any) -> dict[str, Any]:
    return celery_settings(given, broker_url=BROKER, visible=3600, stop_timeout=25, kill_grace=10)


def test_transport_options_add_up_and_the_visibility_time_out_stays() -> None:
    found = settings_of(broker_transport_options={"master_name": "mks", "socket_timeout": 3})
    options = found["broker_transport_options"]
    assert (options["master_name"], options["socket_timeout"]) == ("mks", 3)
    assert (options["visibility_timeout"], options["priority_steps"]) == (3600, [0, 1, 2])


def test_what_is_given_comes_on_top() -> None:
    assert settings_of(worker_prefetch_multiplier=4, timezone="UTC")["worker_prefetch_multiplier"] == 4


def test_times_are_utc_inside_and_japanese_for_people(tasks: Tasks) -> None:
    conf = celery_app(tasks, broker_url=BROKER).conf
    assert (conf.enable_utc, conf.timezone) == (True, "Asia/Tokyo")


@pytest.mark.parametrize(
    ("given", "parameter"),
    [
        ({"task_acks_late": False}, "task_acks_late"),
        ({"accept_content": ["pickle"]}, "accept_content"),
        (
            {"worker_cancel_long_running_tasks_on_connection_loss": True},
            "worker_cancel_long_running_tasks_on_connection_loss",
        ),
        ({"broker_transport_options": {"visibility_timeout": 5}}, "broker_transport_options"),
        ({"result_backend": BROKER}, "result_backend"),
        ({"result_backend": "redis://127.0.0.1:1/1"}, "result_backend"),
        ({"result_backend": 7}, "result_backend"),
        ({"visibility_timeout": 60}, "visibility_timeout"),
        ({"task_time_limit": 4000}, "visibility_timeout"),
        ({"worker_lost_wait": 4000}, "visibility_timeout"),
        ({"queues": "default"}, "queues"),
        ({"queues": []}, "queues"),
        ({"kill_grace": 0}, "kill_grace"),
    ],
    ids=str,
)
def test_what_would_lose_tasks_is_refused(tasks: Tasks, given: dict[str, Any], parameter: str) -> None:
    tasks.task("report", timeout=300)(lambda run: None)
    with pytest.raises(ConfigurationError) as refused:
        celery_app(tasks, broker_url=BROKER, **given)
    assert refused.value.parameter == parameter
    assert "pw" not in str(refused.value)


def test_sentinels_are_named_as_everywhere_else() -> None:
    url = "redis+sentinel://u:p%2Fw%3B@a,[::1]:2/main/3?sentinel_password=own"
    found = celery_settings({}, broker_url=url, visible=3600, stop_timeout=25, kill_grace=10)
    user = "u:p%2Fw%3B@"
    assert found["broker_url"] == f"sentinel://{user}a:26379/3;sentinel://{user}[::1]:2/3"
    options = found["broker_transport_options"]
    assert (options["master_name"], options["sentinel_kwargs"]["password"]) == ("main", "own")
    assert options["sentinel_kwargs"]["socket_timeout"] == 1


def test_sentinels_without_a_service_are_refused_without_the_password(tasks: Tasks) -> None:
    with pytest.raises(ConfigurationError, match="contains the service name") as refused:
        celery_app(tasks, broker_url="redis+sentinel://:pw-1@a:1")
    assert refused.value.parameter == "broker_url"
    assert "pw-1" not in str(refused.value)


def test_results_may_be_on_the_same_server_in_another_database() -> None:
    assert settings_of(result_backend="redis://127.0.0.1:1/2")["result_expires"] == 86_400


@pytest.mark.parametrize("url", ["redis://h", "redis://h/", "redis://h/0", "redis://:secret@h/0"])
def test_one_database_has_many_addresses(url: str) -> None:
    with pytest.raises(ConfigurationError, match="another database"):
        celery_settings(
            {"result_backend": url}, broker_url="redis://h/0", visible=3600, stop_timeout=1, kill_grace=1
        )


@pytest.mark.parametrize(
    ("broker", "results"),
    [
        ("redis://localhost:6379/1", "redis://localhost/1"),
        ("redis://localhost/1", "redis://127.0.0.1/01"),
        ("redis://localhost/1", "redis://[::1]:6379/1"),
        ("redis://H/1", "rediss://user:secret@h.:6379/1"),
        ("redis://h/1", "redis://h?db=1"),
        ("redis+socket:///run/redis.sock", "redis+socket:///run/redis.sock?virtual_host=0"),
        ("sentinel://a;sentinel://b:26379/0", "sentinel://c:26379;sentinel://b"),
    ],
)
def test_what_is_left_out_of_an_address_is_the_usual(broker: str, results: str) -> None:
    def settings(backend: str) -> Any:
        return celery_settings(
            {"result_backend": backend}, broker_url=broker, visible=3600, stop_timeout=1, kill_grace=1
        )

    with pytest.raises(ConfigurationError, match="another database"):
        settings(results)
    for other in (
        "redis://elsewhere/1",
        "redis://localhost:6380/1",
        "redis://h/7",
        "db+sqlite:///x.db",
        "rpc://",
    ):
        assert settings(other)["result_backend"] == other


def test_a_worker_logs_without_the_extra_for_logging() -> None:
    done = run_python(
        """
        import logging, sys
        sys.modules["pythonjsonlogger"] = None
        from celery import signals
        from mks_hardening.contrib.celery_app import celery_app
        from mks_hardening.db import hardened_engine
        from mks_hardening.tasks import Tasks

        app = celery_app(Tasks(hardened_engine("sqlite:///tasks.db")), broker_url="redis://127.0.0.1:1/0")
        answers = signals.setup_logging.send(sender=None, loglevel=logging.INFO, logfile=None)
        print([answer for _, answer in answers])
        logging.getLogger("shop").info("said")
        """
    )
    assert done.stdout == "[None]\n"
    assert done.stderr.endswith("INFO MainProcess shop: said\n")

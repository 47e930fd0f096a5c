"""Settings of Celery as plain values, derived from the parameters of ``celery_app`` and validated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import parse_qs, quote, urlsplit

from mks_hardening._core.backend.redis_url import parse_redis_url
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from mks_hardening.tasks import Tasks

__all__ = ["BROKER_TIMEOUT", "RUN", "TICK", "celery_settings", "check_limits"]

RUN: Final = "mks_hardening.tasks.task_run"
"""Name of the message that announces a row; for task routes of an application."""
TICK: Final = "mks_hardening.tasks.tick"
"""Name of the message with which beat makes a worker check the schedules."""

BROKER_TIMEOUT: Final = 1.0
"""Seconds for one operation of the broker; a broker that does not respond must not block wake-ups for longer."""
_LOST_WAIT: Final = 10.0
"""Seconds that Celery waits for the result of a pool process that died (``worker_lost_wait``)."""
_PLAIN_LIMIT: Final = 300.0
"""Seconds that the application's other tasks, which have no row, may run."""
# For the application's own tasks only: ours store no result.
_RESULTS_KEPT: Final = 86_400
_KINDS: Final = {"redis": ("redis", 6379), "rediss": ("redis", 6379), "sentinel": ("sentinel", 26379)}
"""Kind of server by URL scheme, and its default port."""
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_FIXED_SETTINGS: Final = frozenset(
    {
        "accept_content",
        "broker_url",
        "enable_utc",
        "result_serializer",
        "task_acks_late",
        "task_queues",
        "task_serializer",
        "worker_cancel_long_running_tasks_on_connection_loss",
    }
)
"""Settings that protect tasks from being lost; they cannot be overridden."""


def celery_settings(
    given: Mapping[str, Any], *, broker_url: str, visible: float, stop_timeout: float, kill_grace: float
) -> dict[str, Any]:
    """Return all settings except the queues, merged with the given ones.

    Args:
        given: settings of the application, by their lower-case names.
        broker_url: URL of the broker.
        visible: seconds after which the broker redelivers a message that was not acknowledged.
        stop_timeout: seconds that running tasks get at a soft shutdown.
        kill_grace: seconds between the soft and the hard limit.

    Raises:
        ConfigurationError: a setting would lose tasks, or store results in the broker's database.
    """
    refused = sorted(given.keys() & _FIXED_SETTINGS)
    if refused:
        raise ConfigurationError(
            f"{refused[0]} is set by celery_app and keeps tasks from being lost; remove it",
            parameter=refused[0],
        )
    transport = cast("Mapping[str, object]", given.get("broker_transport_options") or {})
    if "visibility_timeout" in transport:
        raise ConfigurationError(
            "visibility_timeout is a parameter of celery_app; remove it from broker_transport_options",
            parameter="broker_transport_options",
        )
    broker_url, through_sentinels = _broker(broker_url)
    _check_results(given.get("result_backend"), broker_url)
    # Within the visibility timeout; otherwise the broker redelivers the message while the task is running.
    plain_limit = max(1.0, min(_PLAIN_LIMIT, visible - kill_grace - _LOST_WAIT - 1.0))
    return {
        "broker_url": broker_url,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # a worker waits for its broker indefinitely
        "broker_connection_timeout": BROKER_TIMEOUT,
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        "result_expires": _RESULTS_KEPT,
        # Celery's default is twenty retries with growing delays, during the request that enqueues.
        "result_backend_transport_options": {"retry_policy": {"max_retries": 1, "interval_start": 0}},
        "redis_socket_timeout": BROKER_TIMEOUT,
        "redis_socket_connect_timeout": BROKER_TIMEOUT,
        "task_create_missing_queues": True,
        # The row is leased by compare-and-set, so a duplicate message is harmless, and a message that is
        # acknowledged late is not lost with its process.
        "task_acks_late": True,
        "task_reject_on_worker_lost": False,
        "task_soft_time_limit": plain_limit,
        "task_time_limit": plain_limit + kill_grace,
        "worker_prefetch_multiplier": 1,
        # True loses running tasks on 5.7 when the connection to the broker breaks.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_soft_shutdown_timeout": stop_timeout,
        "worker_lost_wait": _LOST_WAIT,
        "worker_hijack_root_logger": False,
        "worker_send_task_events": False,
        "enable_utc": True,
        "timezone": "Asia/Tokyo",  # for crontab(); messages use UTC
        "beat_schedule": {"mks-tick": {"task": TICK, "schedule": 10.0, "options": {"expires": 10}}},
        **given,
        "broker_transport_options": {
            "socket_timeout": BROKER_TIMEOUT,
            "socket_connect_timeout": BROKER_TIMEOUT,
            "health_check_interval": 10,
            "priority_steps": [0, 1, 2],
            "queue_order_strategy": "priority",
            **through_sentinels,
            **transport,
            "visibility_timeout": visible,
        },
    }


def check_limits(
    tasks: Tasks, *, visible: float, kill_grace: float, lost_wait: float, plain_limit: float
) -> None:
    """Check that tasks end within the visibility timeout; otherwise the broker would redeliver them while they run.

    Raises:
        ConfigurationError: the timeout is too short; the message names the task that runs longest.
    """
    limits = [(task.timeout + kill_grace, task.name) for task in tasks.known.values()]
    longest, name = max([*limits, (plain_limit, "task_time_limit")])
    needed = longest + lost_wait
    if needed >= visible:
        raise ConfigurationError(
            f"visibility_timeout must be above {needed:g} s: {name} may run for {longest:g} s until it is killed, "
            f"and its worker is given {lost_wait:g} s to notice",
            parameter="visibility_timeout",
        )


def _broker(url: str) -> tuple[str, dict[str, object]]:
    """Convert a Sentinel URL for kombu: addresses separated by semicolons, the rest as transport options."""
    if not url.startswith("redis+sentinel://"):
        return url, {}
    try:
        # As with any other broker, protecting the network is up to the caller.
        target = parse_redis_url(url, allow_plaintext=True)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}", parameter="broker_url") from None
    user = "".join((quote(target.username or "", safe=""), ":", quote(target.password or "", safe=""), "@"))
    user = user if target.password else ""
    addresses = [
        f"sentinel://{user}{f'[{host}]' if ':' in host else host}:{port}/{target.database}"
        for host, port in target.hosts
    ]
    own = {"username": target.sentinel_username, "password": target.sentinel_password}
    return ";".join(addresses), {
        "master_name": target.service,
        "sentinel_kwargs": {
            "socket_timeout": BROKER_TIMEOUT,
            "socket_connect_timeout": BROKER_TIMEOUT,
            **{name: value for name, value in own.items() if value},
        },
    }


def _check_results(backend: object, broker_url: str) -> None:
    """Reject one database for results and messages: they would be lost together, and ``FLUSHDB`` deletes both."""
    if backend is None:
        return
    if not isinstance(backend, str):
        raise ConfigurationError("result_backend must be a URL", parameter="result_backend")
    if _places(backend) & _places(broker_url):
        raise ConfigurationError(
            "result_backend must be another database than broker_url", parameter="result_backend"
        )


def _places(url: str) -> set[tuple[str, str, str]]:
    """Return what identifies the databases of a URL, regardless of credentials; ``;`` separates the addresses."""
    return {_place(one) for one in url.split(";")}


def _place(url: str) -> tuple[str, str, str]:
    parts = urlsplit(url)
    kind, usual_port = _KINDS.get(parts.scheme, (parts.scheme, 0))
    # Without credentials: two accounts of one database lose their data together. Omitted parts have their defaults:
    # the port, and database 0; kombu and redis-py also read the database from the query.
    try:
        host, port = (parts.hostname or "").rstrip("."), parts.port or usual_port
    except ValueError:  # not a number: connecting will report it
        host, port = parts.netloc.rpartition("@")[2], 0
    asked = parse_qs(parts.query)
    database = (asked.get("db") or asked.get("virtual_host") or [parts.path.strip("/")])[0] or "0"
    if "socket" in parts.scheme:
        return kind, parts.path, database if asked else "0"
    place = f"{'localhost' if host in _LOOPBACK else host}:{port}"
    return kind, place, str(int(database)) if database.isdecimal() else database

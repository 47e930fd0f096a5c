"""The Grafana dashboard of the deployment kit: what Grafana knows, and no panel that stays empty."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from deploy_settings import deployed
from knowledge_system.demo.visitor import BrowserClient
from mks_deploy.dashboard import dashboard, expressions
from mks_deploy.operations.watch import Readings, record
from mks_deploy.rendering import render
from mks_deploy.settings.definitions import Settings
from mks_deploy.settings.settings_file import read_settings
from mks_deploy.versions import Installed
from mks_hardening.contrib.prometheus_observer import PrometheusObserver
from mks_hardening.events import PoolEvent
from testbed.http_sink import Answer
from testbed.polling import accepts_connections, free_port, wait_until
from testbed.process import ServerProcess
from testbed.services import program

# Read by every interpreter of the demonstration before anything else: its gunicorn has no metrics by itself.
OBSERVED = """
from mks_hardening.contrib.prometheus_observer import PrometheusObserver
from mks_hardening.events import add_observer
add_observer(PrometheusObserver())
"""


def test_grafana_knows_every_key_of_the_dashboard() -> None:
    """A key that Grafana's schema does not have is lost on the way through its own classes."""
    models = pytest.importorskip("grafana_foundation_sdk.models.dashboard")
    encoder = pytest.importorskip("grafana_foundation_sdk.cog.encoder")
    plugins = pytest.importorskip("grafana_foundation_sdk.cog.plugins")
    plugins.register_default_plugins()
    ours = json.loads(dashboard(read_settings(deployed())))
    known = json.loads(encoder.JSONEncoder().encode(models.Dashboard.from_json(ours)))
    assert list(lost(ours, known)) == []


def lost(ours: Any, known: Any, where: str = "dashboard") -> Any:
    """Yield what the other side lacks."""
    if isinstance(ours, dict):
        for key, value in ours.items():
            if not isinstance(known, dict) or key not in known:
                yield f"{where}.{key}"
            else:
                yield from lost(value, known[key], f"{where}.{key}")
    elif isinstance(ours, list):
        if not isinstance(known, list) or len(ours) != len(known):
            yield where
        else:
            for number, (left, right) in enumerate(zip(ours, known, strict=True)):
                yield from lost(left, right, f"{where}[{number}]")
    elif ours != known:
        yield f"{where}: {ours!r} became {known!r}"


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.timeout(400)
def test_no_panel_is_empty_after_a_walk_through_the_example(
    start_demo: Callable[..., Any], make_redis: Any, make_http_sink: Any, tmp_path: Path
) -> None:
    shared, code, metrics = tmp_path / "metrics", tmp_path / "code", free_port()
    for folder in (shared, code, tmp_path / "state", tmp_path / "scrape", tmp_path / "rules"):
        folder.mkdir()
    (code / "sitecustomize.py").write_text(OBSERVED)
    settings = read_settings(deployed(f'[paths]\nstate = "{tmp_path}/state"\n'))
    with ExitStack() as stack:
        redis = make_redis()
        demo = start_demo(MKS_REDIS_URL=redis.url, PROMETHEUS_MULTIPROC_DIR=str(shared), PYTHONPATH=str(code))
        observer = PrometheusObserver(directory=shared)
        observer(PoolEvent("exhausted", 5, 5))  # nothing short of an outage does it in the demonstration
        listener = stack.enter_context(closing(observer.serve(0)))
        # What node_exporter would show: the file that the watch writes.
        now = datetime.now(UTC).timestamp()
        certificate = {"certificate_begin": now, "certificate_end": now + 86_400}
        record(Readings(at=now, backup_at=now, free={"/": 0.5}, spooled=1, **certificate), settings)
        host = make_http_sink()
        content = (tmp_path / "state/metrics/host.prom").read_bytes()
        host.default = Answer(200, {"Content-Type": "text/plain; version=0.0.4"}, content)
        ports = {settings.upkeep.metrics_port: listener.port, 9100: host.port}
        _start_prometheus(stack, tmp_path, settings, metrics, ports)

        def found(expression: str) -> list[float]:
            api = f"http://127.0.0.1:{metrics}/api/v1/query"
            answer = requests.get(api, params={"query": expression}, timeout=60).json()
            values = [float(series["value"][1]) for series in answer["data"]["result"]]
            return [value for value in values if not math.isnan(value)]

        wait_until(lambda: found('up{job="knowledge-system"} == 1'), timeout=60, what="the first scrape")
        assert demo.walk() == 0
        redis.stop()  # the panel of unavailable servers

        def breaker_is_open() -> object:
            BrowserClient(demo.url, demo.ca).sign_in("ito", "wrong")
            return found("mks_breakers_not_closed > 0")

        wait_until(breaker_is_open, timeout=60, what="a breaker")
        wanted = expressions(settings)
        wait_until(
            lambda: all(found(expression) for expression in wanted),
            timeout=60,
            what=f"values of {[expression for expression in wanted if not found(expression)]}",
        )


def _start_prometheus(
    stack: ExitStack, folder: Path, settings: Settings, port: int, scraped: dict[int, int]
) -> None:
    """With the rendered files, read more often."""
    files = {file.path: file.text for file in render(settings, Installed()) if file.path.endswith(".yml")}
    (scrape,) = (text for path, text in files.items() if path.endswith(f"scrape/{settings.name}.yml"))
    (whole,) = (text for path, text in files.items() if path.endswith("/prometheus.yml"))
    for usual, here in scraped.items():
        scrape = scrape.replace(f":{usual}", f":{here}")
    (folder / "scrape/site.yml").write_text(scrape.replace("15s", "1s").replace("60s", "1s"))
    whole = whole.replace("/etc/prometheus", str(folder)).replace("15s", "1s")
    (folder / "prometheus.yml").write_text(whole)
    server = ServerProcess(
        [
            program("prometheus"),
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/series",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        log=folder / "prometheus.out",
        ready=lambda: (
            accepts_connections(port) and requests.get(f"http://127.0.0.1:{port}/-/ready", timeout=60).ok
        ),
    )
    server.start()
    stack.callback(server.stop)

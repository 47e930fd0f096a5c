"""The flows of operation by name: where each is shown, and one request id from nginx to the log of its task."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from knowledge_system.demo.visitor import BrowserClient
from knowledge_system.settings import DEMO_PASSWORD
from testbed.polling import wait_until

_ROOT = Path(__file__).parents[3]
_APP = "examples/knowledge_system/tests/test_knowledge_"
_CELERY = "tests/integration/tasks/test_tasks_celery_setup.py"
_KIT = "deploy/tests/test_deploy_"

FLOWS = {
    "settings check without traceback": (
        f"{_APP}production.py::test_the_settings_check_tells_every_fault_without_a_traceback",
    ),
    "session answer carries the absolute limit": (
        f"{_APP}pages.py::test_the_session_answer_carries_the_absolute_limit",
    ),
    "report survives a worker's death": (
        f"{_APP}celery.py::test_a_report_whose_worker_was_killed_is_written_by_the_next_one",
    ),
    "CDN purge from a page": (f"{_APP}operations.py::test_the_cdn_is_purged_from_a_page",),
    "cache figures": (f"{_APP}operations.py::test_cache_figures_and_emptying_the_cache_from_a_page",),
    "request id from nginx through tasks in every log": (
        f"{_APP}flows.py::test_one_request_id_from_nginx_to_every_log",
        f"{_CELERY}::test_records_are_json_with_the_ids_of_the_request_and_without_secrets",
    ),
    "graceful stop with a 20 s task": (
        f"{_APP}celery.py::test_a_report_in_hand_when_its_worker_is_told_to_stop_is_written_once",
        f"{_CELERY}::test_what_runs_longer_than_a_stop_may_take_is_put_back_uncounted",
    ),
    "metrics": (f"{_KIT}watching.py::test_alerts_and_dashboard_ask_for_metrics_that_exist",),
    "backup and restore": (f"{_KIT}backup.py::test_what_is_restored_is_what_was_there",),
    "rollback": (f"{_KIT}release.py::test_release_and_rollback_under_load_lose_no_request",),
    "canary": (
        f"{_KIT}release.py::test_while_there_is_a_canary_a_visitor_stays_on_one_version",
        f"{_KIT}release.py::test_a_canary_that_is_worse_than_the_old_version_is_taken_back",
    ),
}
"""The tests that show each flow, in a browser or against real servers."""


def test_each_flow_has_its_tests() -> None:
    missing = []
    for flow, places in FLOWS.items():
        for file, name in (place.split("::") for place in places):
            text = (_ROOT / file).read_text(encoding="utf-8")
            if not re.search(rf"^def {name}\(", text, re.MULTILINE):
                missing.append(f"{flow}: {file}::{name}")
    assert missing == []


_NGINX = """
log_format ids '$request_id $request_method $uri';
access_log @dir@/ids.log ids;
server { listen 127.0.0.1:@port@; return 404; }
server {
    listen 127.0.0.1:@tls_port@ ssl;
    ssl_certificate @cert@;
    ssl_certificate_key @key@;
    location / {
        proxy_pass https://127.0.0.1:@app@;
        proxy_set_header Host localhost:@app@;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Proto https;
        proxy_set_header X-Request-ID $request_id;
    }
}
"""


def test_one_request_id_from_nginx_to_every_log(
    start_demo: Callable[..., Any], make_nginx: Callable[..., Any], certificates: Any
) -> None:
    """A damaged file that is attached through nginx: its task, run later by another thread, warns of it."""
    demo = start_demo(MKS_TRUSTED_PROXIES="127.0.0.1")
    nginx = make_nginx(_NGINX, values={"app": str(demo.https)})
    log = demo.folder / "app.log"

    def records(**wanted: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if wanted.items() <= line.items()]

    people = list[BrowserClient]()

    def signed_in() -> bool:
        people.append(BrowserClient(nginx.tls_url, certificates.ca_file))
        return people[-1].sign_in("tanaka", DEMO_PASSWORD).status_code == 303

    wait_until(signed_in, timeout=60, what="a sign-in through nginx")
    writer = people[-1]
    article = {
        "title": "x",
        "category": "土工",
        "status": "draft",
        "summary": "",
        "body": "x",
        "tags": "",
        "site": "",
    }
    made = writer.submit("/articles/new", article)
    path = re.sub(r"\?.*", "", made.headers["Location"])
    damaged = io.BytesIO()
    with zipfile.ZipFile(damaged, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/document.xml", "<w:document")
    sent = writer.http.post(
        f"{nginx.tls_url}{path}/attachments",
        data={
            "csrf_token": re.findall(r'name="csrf_token" value="([^"]+)"', writer.get(f"{path}/edit").text)[0]
        },
        files={"file": ("x.docx", damaged.getvalue())},
        timeout=60,
        allow_redirects=False,
    )
    assert sent.status_code == 303, sent.text
    request_id = sent.headers["X-Request-ID"]
    written = f"{request_id} POST {path}/attachments\n"
    wait_until(lambda: written in (nginx.directory / "ids.log").read_text(), timeout=60, what="nginx's line")
    wait_until(
        lambda: [each for each in records(request_id=request_id) if each.get("task") == "attachments.text"],
        timeout=60,
        what="the warning of the task",
    )
    found = records(request_id=request_id)
    assert {each["logger"] for each in found} >= {
        "mks_hardening.request",
        "knowledge_system.services.attachments.bounded_process",
    }

"""The OpenAPI document is true: Schemathesis calls what it promises, and finds no answer that it does not."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
import schemathesis
from jsonschema import Draft202012Validator
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema
from werkzeug.serving import make_server

from knowledge_system.api.route_table import ROUTES
from knowledge_system.services.identity.rate_limits import API_LIMITS
from knowledge_system.settings import DEMO_PASSWORD
from mks_hardening.security import DEFAULT_RATE_LIMITS, SIGN_IN_LIMITS, Limit
from testbed import polling

PHASES: Final = ("examples", "coverage", "fuzzing", "stateful")
REFUSED: Final = ["400", "401", "403", "404", "409", "412", "422", "428"]
CHECKS: Final = {
    # A schema cannot say which cursor, version, month or password will do.
    "positive_data_acceptance": {"expected-statuses": ["2xx", "3xx", *REFUSED]},
    "missing_required_header": {"expected-statuses": REFUSED},
    "negative_data_rejection": {"expected-statuses": [*REFUSED, "405", "413", "415"]},
}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, make_app: Callable[..., Any]) -> Any:
    """Limits stand in the fields of every answer, and are never reached."""
    for groups in (DEFAULT_RATE_LIMITS, SIGN_IN_LIMITS, API_LIMITS):
        for name in groups:
            monkeypatch.setitem(groups, name, (Limit("day", 1_000_000, 86_400),))
    return make_app()


def explored(app: Any, visit: Callable[..., Any], phases: Iterable[str], most: int) -> tuple[int, list[str]]:
    """How many calls Schemathesis made, and every failure it found."""
    asked = {"username": "ito", "password": DEMO_PASSWORD, "tokens": True}
    token = visit("ito", at=app).api("POST", "/api/auth/login", asked).json["access_token"]
    config = SchemathesisConfig.from_dict(
        {
            "headers": {"Authorization": f"Bearer {token}"},
            "generation": {"database": "none", "max-examples": most},
            "continue-on-failure": True,
            "phases": {name: {"enabled": name in phases} for name in PHASES},
            "checks": CHECKS,
        }
    )
    calls, failures = 0, []
    with served(app) as url:
        schema = schemathesis.openapi.from_url(f"{url}/api/openapi.json", config=config)
        for event in from_schema(schema).execute():
            if isinstance(event, events.ScenarioFinished):
                calls += len(event.recorder.interactions)
                failures += seen_events(event)
            elif isinstance(event, events.NonFatalError):
                failures.append(str(event.info))
            elif isinstance(event, events.FatalError):
                raise event.exception
    return calls, failures


def seen_events(event: events.ScenarioFinished) -> Iterator[str]:
    for checks in event.recorder.checks.values():
        for check in checks:
            if (found := check.failure_info) is not None:
                yield f"{event.label} {check.name}: {found.failure.message}\n{found.code_sample}"


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The application behind what stands for its proxy; signing out would end the run, so nobody can."""

    def call(environ: dict[str, Any], start_response: Any) -> Any:
        environ.update({"wsgi.url_scheme": "https", "HTTP_HOST": "localhost:8443"})
        if environ["PATH_INFO"].startswith(("/api/auth/logout", "/api/auth/sessions/")):
            environ.pop("HTTP_AUTHORIZATION", None)
        return app(environ, start_response)

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    port = polling.free_port()
    server = make_server("127.0.0.1", port, call, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_document_is_true_in_a_few_calls(api: Any, visit: Callable[..., Any]) -> None:
    calls, failures = explored(api, visit, ["fuzzing"], 1)
    assert failures == []
    assert calls >= len(ROUTES)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_document_is_true_in_thousands(api: Any, visit: Callable[..., Any]) -> None:
    calls, failures = explored(api, visit, PHASES, 36)
    assert failures == []
    assert calls >= 2000


def test_every_rule_stands_in_the_document_and_is_complete(api: Any) -> None:
    document = api.extensions["api_document"]
    rules = {
        (method, rule.rule.replace("<", "{").replace(">", "}"))
        for rule in api.url_map.iter_rules()
        if rule.rule.startswith("/api/")
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    told_of = {
        (method.upper(), path) for path, operations in document["paths"].items() for method in operations
    }
    assert rules == told_of
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"].endswith((".", ";")) or "," in operation["summary"], path
            assert {"400", "401", "422", "429", "503"} <= operation["responses"].keys()
            assert "default" not in operation["responses"]


def test_what_must_be_sent_is_told(make_app: Callable[..., Any]) -> None:
    paths = make_app().extensions["api_document"]["paths"]
    asked = {each["name"]: each["required"] for each in paths["/api/watches"]["delete"]["parameters"]}
    assert asked == {"kind": True, "subject": True}
    alone = make_app(four_eyes=False).extensions["api_document"]["paths"]
    for known, saved in ((paths, ["draft", "review"]), (alone, ["draft", "review", "published"])):
        for path, method in (("/api/knowledge", "post"), ("/api/knowledge/{article_id}", "put")):
            body = known[path][method]["requestBody"]["content"]["application/json"]["schema"]
            assert body["properties"]["status"]["enum"] == saved
    schema = paths["/api/knowledge/{article_id}/steps"]["post"]["requestBody"]["content"]["application/json"]
    validator = Draft202012Validator(schema["schema"])
    assert validator.is_valid({"step": "submit", "revision": 1})
    assert validator.is_valid({"step": "return", "revision": 1, "comment": "図が足りません"})
    assert not validator.is_valid({"step": "return", "revision": 1})
    assert not validator.is_valid({"step": "retire", "revision": 1, "comment": " "})

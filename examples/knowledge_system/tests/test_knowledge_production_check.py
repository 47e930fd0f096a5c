"""The production check of the library finds nothing in the application but what the tests leave out."""

from __future__ import annotations

from typing import Any

from mks_check import check


def test_the_application_lacks_only_the_shared_store_of_production(app: Any) -> None:
    report = check(environ={"MKS_ALLOWED_HOSTS": "knowledge.example.jp"}, app=app)
    assert [(finding.id, finding.evidence) for finding in report.findings] == [
        ("MKS-APP-015", "MemorySessionStore")
    ]


def test_a_browser_shows_the_pages_whole(shared_demo: Any) -> None:
    report = check(url=shared_demo.url, pages=["/sign-in", "/handbook", "/nothing-here"])
    found = {finding.id: finding.evidence for finding in report.findings}
    assert "MKS-WEB-001" in found  # the certificate of the demonstration
    assert found.get("MKS-WEB-028") is None

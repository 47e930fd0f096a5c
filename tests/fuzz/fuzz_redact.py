"""Redaction of any text: it never raises, a second time changes nothing, and the gate misses nothing."""

from __future__ import annotations

from mks_hardening._core.redaction import prefilter
from mks_hardening._core.redaction.redactor import default_redactor
from mks_hardening._core.redaction.step_limit import StepLimit

REDACTOR = default_redactor()


def one_input(data: bytes) -> None:
    """Redact the bytes as text, as a URL and as a query string."""
    text = data.decode("utf-8", "surrogateescape")
    clean = REDACTOR.redact_text(text)
    ungated = REDACTOR._careful_text(text, prefilter.everything(), StepLimit())
    assert clean == ungated, "the gate let a text through that the patterns change"
    assert REDACTOR.redact_text(clean) == clean, "a second time changes more"
    REDACTOR.redact_url(text)
    REDACTOR.redact_query(text)

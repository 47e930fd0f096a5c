"""Redaction of any text: it never raises, a second time changes nothing, and no shortcut misses anything."""

from __future__ import annotations

import re
from unittest import mock

from mks_hardening._core.redaction import named_values, prefilter
from mks_hardening._core.redaction.redactor import default_redactor
from mks_hardening._core.redaction.step_limit import StepLimit

REDACTOR = default_redactor()
NEVER = re.compile("(?!)")


def one_input(data: bytes) -> None:
    """Redact the bytes as text, as a URL and as a query string."""
    text = data.decode("utf-8", "surrogateescape")
    clean = REDACTOR.redact_text(text)
    ungated = REDACTOR._careful_text(text, prefilter.everything(), StepLimit())
    with mock.patch.object(named_values, "PLAIN_ASSIGNMENT", NEVER):
        assert clean == REDACTOR.redact_text(text), "the shortcut for key=value finds another value"
    assert clean == ungated, "the gate let a text through that the patterns change"
    again = REDACTOR.redact_text(clean)
    # A text that takes too many steps is cut, and a redacted one may take more of them than before.
    cut = again.endswith("\u2026") and clean.startswith(again[:-1])
    assert again == clean or cut, "a second time changes more"
    REDACTOR.redact_url(text)
    REDACTOR.redact_query(text)

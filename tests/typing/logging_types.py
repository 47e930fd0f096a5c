"""Never run: what type checkers see of the logging area."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, assert_type

from mks_hardening.logging import (
    BoundedQueueHandler,
    JsonFormatter,
    RedactionFilter,
    ReopeningFileHandler,
    Rotation,
    SecretRedactor,
    bound,
    current,
    dict_config,
    setup_logging,
)
from mks_hardening.protocols import Redactor

assert_type(
    setup_logging("app", level=10, rotation=Rotation(max_bytes=4096), log_file="a.log"), logging.Logger
)
assert_type(dict_config("app"), dict[str, Any])
assert_type(current(), Mapping[str, Any])
assert_type(SecretRedactor().redact_text("x"), str)
assert_type(SecretRedactor().is_secret_key("x"), bool)
assert_type(BoundedQueueHandler([ReopeningFileHandler("a.log")]).dropped, int)

redactor: Redactor = SecretRedactor(keys=("badge",), patterns=(r"\d+",))
formatter: logging.Formatter = JsonFormatter("%(process)d", redactor=redactor, schema="ecs")
a_filter: logging.Filter = RedactionFilter(redactor=redactor)

with bound(request_id="r") as fields:
    assert_type(fields, Mapping[str, Any])

setup_logging("app", "INFO")  # type: ignore[call-arg]  # all but the name are keywords
setup_logging("app", level=1.5)  # type: ignore[arg-type]  # a name or a number

"""File uploads: multipart only, one expected field, limited size."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Final

from flask import request

from knowledge_system.domain.problems import FieldError, Problem
from knowledge_system.web import current_request

_ROOM: Final = 524_288
"""Additional bytes for boundaries and the fields besides the files."""
_MOST_PARTS: Final = 40


def received(*, most: int = 1) -> list[tuple[str, bytes]]:
    """Return names and contents of the files in the field ``file``.

    Args:
        most: maximum number of files; together they may be as large as a single one.

    Raises:
        Problem: ``unsupported-media-type``, ``invalid`` without a file, or with fields other than the CSRF token
            and that of ``once``.
        RequestEntityTooLarge: the body exceeds the limit; raised before it is read.
    """
    limit = current_request.services().intake.limit
    request.max_content_length, request.max_form_parts = limit + _ROOM, _MOST_PARTS
    if request.mimetype != "multipart/form-data":
        raise Problem("unsupported-media-type")
    unknown = sorted({*request.form, *request.files} - {"file", "csrf_token", current_request.ONCE})
    errors = [FieldError(name[:40], "unknown") for name in unknown]
    given = [file for file in request.files.getlist("file") if file.filename]
    if not given:
        errors.append(FieldError("file", "missing"))
    if len(given) > most:
        errors.append(FieldError("file", "too-many", most))
    if errors:
        raise Problem("invalid", errors=errors)
    for file in given:  # already read if the request has an idempotency key
        file.stream.seek(0)
    return [(file.filename or "", file.stream.read(limit + 1)) for file in given]


def digest(files: Sequence[tuple[str, bytes]]) -> str:
    """Return a digest of the files; unlike the body, it does not depend on the multipart boundary."""
    digests = [[name, hashlib.sha256(content).hexdigest()] for name, content in files]
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()

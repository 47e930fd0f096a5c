"""Files of a form: only in multipart, only under the expected name, never more than the limit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Final

from flask import request

from knowledge_system.domain.problems import FieldFault, Problem
from knowledge_system.web import current_request

__all__ = ["digest", "received"]

_ROOM: Final = 524_288
"""For the marks and fields around the files."""
_MOST_PARTS: Final = 24


def received(*, most: int = 1) -> list[tuple[str, bytes]]:
    """Name and content of the files in the field ``file``.

    Args:
        most: how many at once; together they may be as large as one alone.

    Raises:
        Problem: ``unsupported-media-type``, ``invalid`` where there is none, or anything else than the CSRF token
            and the field of ``once``.
        RequestEntityTooLarge: more than the limit, which is found out before it is read.
    """
    limit = current_request.parts().intake.limit
    request.max_content_length, request.max_form_parts = limit + _ROOM, _MOST_PARTS
    if request.mimetype != "multipart/form-data":
        raise Problem("unsupported-media-type")
    unknown = sorted({*request.form, *request.files} - {"file", "csrf_token", current_request.ONCE})
    faults = [FieldFault(name[:40], "unknown") for name in unknown]
    given = [file for file in request.files.getlist("file") if file.filename]
    if not given:
        faults.append(FieldFault("file", "missing"))
    if len(given) > most:
        faults.append(FieldFault("file", "too-many", most))
    if faults:
        raise Problem("invalid", faults=faults)
    for file in given:  # which may have been read before, to tell a call that is sent again
        file.stream.seek(0)
    return [(file.filename or "", file.stream.read(limit + 1)) for file in given]


def digest(files: Sequence[tuple[str, bytes]]) -> str:
    """The same for the same files, whose form has another boundary between its parts each time."""
    told = [[name, hashlib.sha256(content).hexdigest()] for name, content in files]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()

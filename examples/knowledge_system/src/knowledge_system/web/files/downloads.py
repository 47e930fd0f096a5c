"""File downloads: with file name and type, for authorized users only, and without scripting in the browser.

With ``MKS_UPLOADS_REDIRECT``, nginx sends the file from the directory (``X-Accel-Redirect``) after the application
has authorized it; otherwise the application sends it. Both support ``Range``.
"""

from __future__ import annotations

import logging
from typing import Final

from flask import Response, request, send_file

from knowledge_system.domain.files.file_names import content_disposition
from knowledge_system.domain.files.file_types import KINDS
from knowledge_system.domain.problems import Problem
from knowledge_system.models import Attachment
from knowledge_system.web import current_request

_log = logging.getLogger(__name__)

_POWERLESS: Final = {
    # Whatever the file contains: no scripts, no forms, opaque origin.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Revalidated on every request, because permissions change; usually with 304.
    "Cache-Control": "private, no-cache",
}
_THUMBNAIL_TYPE: Final = "image/webp"


def sent(attachment: Attachment, *, small: bool = False) -> Response:
    """Return the response with the file or its thumbnail.

    Raises:
        Problem: ``not-found``: there is no thumbnail, or the file is missing from the store.
    """
    digest = attachment.thumbnail if small else attachment.digest
    kind = KINDS.get(attachment.content_type)
    if not digest or kind is None:
        raise Problem("not-found")
    try:
        path = current_request.services().intake.store.path(digest)
    except FileNotFoundError:
        _log.error("the file of attachment %d is missing in the folder of uploads", attachment.id)
        raise Problem("not-found") from None
    content_type = _THUMBNAIL_TYPE if small else attachment.content_type
    response = (
        _by_nginx(redirect, digest)
        if (redirect := current_request.services().settings.uploads_redirect)
        else send_file(path, mimetype=content_type, etag=digest, max_age=0)
    )
    response.headers.update(_POWERLESS)
    response.headers["Content-Type"] = content_type
    response.headers["Content-Disposition"] = content_disposition(
        f"{attachment.name}.webp" if small else attachment.name, inline=kind.picture
    )
    response.headers.pop("Expires", None)
    return response


def _by_nginx(location: str, digest: str) -> Response:
    response = Response(b"" if request.method != "HEAD" else None)
    response.headers["X-Accel-Redirect"] = f"{location}/{digest[:2]}/{digest}"
    return response

"""Submitted forms: only UTF-8, only known fields, each once."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flask import g, make_response, request

from knowledge_system.domain.problems import Problem, describe
from knowledge_system.domain.validation import Field, form_values, take
from knowledge_system.web import article_changes, current_request

if TYPE_CHECKING:
    from flask import Response

__all__ = [
    "came_from",
    "once",
    "private",
    "query_values",
    "read",
    "remember",
    "retyped",
    "safe_next",
    "shown_again",
    "told",
]

_LOOKS, _PAUSE = 40, 0.25

_MENDABLE = {
    "bad-code",
    "bad-credentials",
    "bad-proof",
    "code-locked",
    "conflict",
    "enrolment-refused",
    "invalid",
    "link-refused",
    "no-such-user",
    "own-account",
    "passkey-refused",
    "rate-limited",
    "username-taken",
    "wrong-state",
}


def read(fields: Mapping[str, Field], *, ignore: tuple[str, ...] = ()) -> dict[str, Any]:
    """The checked fields of the form, without the CSRF token.

    Raises:
        Problem: ``unsupported-media-type`` when it is not a form, ``bad-request``, ``invalid``, ``too-large``.
    """
    submitted = _submitted()
    return take({name: submitted[name] for name in submitted if name not in ignore}, fields)


def remember() -> None:
    """Take in what was typed, so that it can be shown again whatever is refused before it is checked.

    Raises:
        Problem: ``unsupported-media-type`` when it is not a form, ``bad-request``, ``invalid``, ``too-large``.
    """
    _submitted()


def retyped(name: str) -> str:
    """What was typed into a field of the form that was read, to be shown again."""
    values: dict[str, str] = g.get("form", {})
    return values.get(name, "")


def once(work: Callable[[], str], *, content: str = "") -> str:
    """Where a form leads; sent twice, by a double click or a reload, it adds one thing and leads to that.

    A text that was changed in between is another one to add. A form without the field of ``once_field`` is carried
    out each time.

    Args:
        work: adds what the form is for, and says where to go.
        content: digest of what is not among the fields that ``read`` has taken.

    Raises:
        Problem: ``call-in-flight`` where the first takes longer than people wait, and whatever the work raises.
    """
    key, sent = g.get("once") or (request.form.get(current_request.ONCE, ""), "")
    if not key:
        return work()
    asked = hashlib.sha256(f"{request.path}\n{key}\n{sent}\n{content}".encode()).hexdigest()
    for _ in range(_LOOKS):
        try:
            return article_changes.once(f"form {asked}", asked, work)[0]
        except Problem as problem:
            if problem.code != "call-in-flight":
                raise
        time.sleep(_PAUSE)
    raise Problem("call-in-flight", headers={"Retry-After": "1"})


def query_values(fields: Mapping[str, Field], *, strict: bool = False) -> dict[str, Any]:
    """The checked parameters of the address; unknown ones are refused only if ``strict``."""
    values = form_values(request.query_string)
    return take(values if strict else {name: values[name] for name in values.keys() & fields.keys()}, fields)


def told(problem: Problem | None) -> dict[str, Any]:
    """What a template needs to show a problem above its form and the faults at its fields."""
    if problem is None:
        return {"problem": None, "faults": (), "wait": 0}
    described = describe(problem, language=current_request.language())
    return {"problem": described, "faults": problem.faults, "wait": problem.wait}


def shown_again(problem: Problem, page: Callable[[Problem], str]) -> Response:
    """The form again with what was typed, for people who can mend it; everything else is refused plainly."""
    if current_request.wants_json() or problem.code not in _MENDABLE:
        raise problem
    response = make_response(page(problem), problem.status)
    response.headers.update({"Cache-Control": "no-store", **problem.headers})
    return response


def private(body: str) -> Response:
    """A page for one person, which no cache keeps."""
    response = make_response(body)
    response.headers["Cache-Control"] = "no-store"
    return response


def safe_next(path: str) -> str:
    """A path of this site to go on to; anything that could lead elsewhere becomes the start page."""
    plain = path.isascii() and path.isprintable() and "\\" not in path
    return path if plain and path.startswith("/") and not path.startswith("//") and len(path) <= 500 else "/"


def came_from(*, elsewhere: bool = True) -> str:
    """The page of this site that sent the request, for a form whose session ended: one can go back to it.

    Args:
        elsewhere: whether it must be another page than the one that is asked for.
    """
    try:
        page = urlsplit(request.referrer or "")
    except ValueError:
        return "/"
    ours = f"{page.scheme}://{page.netloc}/" == request.host_url
    if not ours or (elsewhere and page.path == request.path):
        return "/"
    return safe_next(page.path + (f"?{page.query}" if page.query else ""))


def _submitted() -> dict[str, str]:
    if "form" not in g:
        body = request.get_data(cache=False)
        if body and request.mimetype != "application/x-www-form-urlencoded":
            raise Problem("unsupported-media-type")
        g.form = form_values(body, ignore=("csrf_token",))
        g.once = g.form.pop(current_request.ONCE, ""), json.dumps(g.form, sort_keys=True)
    found: dict[str, str] = g.form
    return found

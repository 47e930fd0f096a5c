"""Submitted forms: strict UTF-8, known fields only, each once."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any
from urllib.parse import urlencode, urlsplit

from flask import Response, g, make_response, redirect, render_template, request
from werkzeug.wrappers import Response as BaseResponse

from knowledge_system.domain.problems import Problem, describe
from knowledge_system.domain.validation import Field, form_values, take
from knowledge_system.web import article_changes, current_request

_LOOKS, _PAUSE = 40, 0.25


def read(fields: Mapping[str, Field], *, ignore: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the validated fields of the form, without the CSRF token.

    Raises:
        Problem: ``unsupported-media-type`` if the body is not a form, ``bad-request``, ``invalid``, ``too-large``.
    """
    submitted = _submitted()
    return take({name: submitted[name] for name in submitted if name not in ignore}, fields)


def remember() -> list[str]:
    """Parse the form, so that its input can be shown again even if the request is rejected before validation.

    Returns:
        The names of its fields.

    Raises:
        Problem: ``unsupported-media-type`` if the body is not a form, ``bad-request``, ``invalid``, ``too-large``.
    """
    return [*_submitted()]


def retyped(name: str) -> str:
    """Return the input of a field of the submitted form, to show it again."""
    values: dict[str, str] = g.get("form", {})
    return values.get(name, "")


def once(work: Callable[[], str], *, content: str = "") -> str:
    """Run the operation of a form once, and return its redirect target, also for a double click or a reload.

    Changed input counts as a new submission. A form without the field of ``once_field`` runs each time.

    Args:
        work: runs the operation and returns the redirect target.
        content: digest of input that is not among the fields returned by ``read``.

    Raises:
        Problem: ``call-in-flight`` if the first submission takes too long, and whatever ``work`` raises.
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
    """Return the validated query parameters; unknown ones are rejected only if ``strict``."""
    values = form_values(request.query_string)
    return take(values if strict else {name: values[name] for name in values.keys() & fields.keys()}, fields)


def problem_context(problem: Problem | None) -> dict[str, Any]:
    """Return the template values for a problem above a form and the errors at its fields."""
    if problem is None:
        return {"problem": None, "errors": (), "wait": 0}
    described = describe(problem, language=current_request.language())
    return {"problem": described, "errors": problem.errors, "wait": problem.wait}


def render(template: str, problem: Problem | None = None, **values: Any) -> str:
    """Render a page with a form; with a problem, above it and at its fields."""
    return render_template(template, **values, **problem_context(problem))


def shown_again(problem: Problem, page: Callable[[Problem], str]) -> Response:
    """Show the form again with its input, if the user can correct the error; otherwise raise the problem."""
    if current_request.wants_json() or not problem.is_correctable:
        raise problem
    response = make_response(page(problem), problem.status)
    response.headers.update({"Cache-Control": "no-store", **problem.headers})
    return response


def form(
    allowed: Mapping[str, Field],
    *,
    page: Callable[..., str] | None = None,
    confirm_at: str = "",
    ignore: tuple[str, ...] = (),
    run_once: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., BaseResponse]]:
    """Return a decorator for a view that handles a form: it gets the fields, and returns where to redirect to.

    The view may return a response instead.

    Args:
        allowed: fields of the form.
        page: shows the form again with its input if the user can correct the error; it gets the parameters of the
            path, and ``problem``.
        confirm_at: path to which users return if they have to authenticate again.
        ignore: names of fields that the view does not get.
        run_once: whether a form that is sent twice runs once; the view then returns a path.
    """

    def decorate(view: Callable[..., Any]) -> Callable[..., BaseResponse]:
        @wraps(view)
        def handle(**path: Any) -> BaseResponse:
            try:
                values = read(allowed, ignore=ignore)
                work = partial(view, **path, **values)
                answer = once(work) if run_once else work()
            except Problem as problem:
                if (
                    confirm_at
                    and problem.code == "confirmation-required"
                    and not current_request.wants_json()
                ):
                    return redirect(f"/account/confirm?{urlencode({'next': confirm_at})}", 303)
                if page is None:
                    raise
                return shown_again(problem, lambda shown: page(**path, problem=shown))
            return redirect(answer, 303) if isinstance(answer, str) else answer

        return handle

    return decorate


def private(body: str) -> Response:
    """Return a page with personal data, which must not be cached."""
    response = make_response(body)
    response.headers["Cache-Control"] = "no-store"
    return response


def safe_next(path: str) -> str:
    """Return a path of this site to redirect to; an unsafe path is replaced by the start page."""
    plain = path.isascii() and path.isprintable() and "\\" not in path
    return path if plain and path.startswith("/") and not path.startswith("//") and len(path) <= 500 else "/"


def came_from(*, elsewhere: bool = True) -> str:
    """Return the page of this site that sent the request, so that users can return to it after signing in.

    Args:
        elsewhere: whether to exclude the requested page itself.
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

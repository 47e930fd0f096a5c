"""Pages for administrators: the accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, make_response, redirect, render_template

from knowledge_system import fields
from knowledge_system.problems import Problem, describe
from knowledge_system.services import accounts
from knowledge_system.web import forms, here, writing

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

__all__ = ["pages"]

pages = Blueprint("admin", __name__, url_prefix="/admin")

_EMPTY = {"username": "", "display_name": "", "department": "", "role": "viewer"}


@pages.get("/accounts")
@here.administrators_only
def listing() -> str:
    """Everybody, and a form for one more."""
    return _page(_EMPTY)


@pages.post("/accounts")
@here.administrators_only
def adding() -> Response:
    """Add a member of staff."""
    here.check_limit("admin")
    try:
        writing.register(forms.read(fields.ACCOUNT))
    except Problem as problem:
        if here.wants_json() or problem.code not in {"invalid", "username-taken"}:
            raise
        retyped = {name: forms.retyped(name) for name in _EMPTY}
        return make_response(_page(retyped, problem), problem.status)
    return redirect("/admin/accounts?done=registered", 303)


def _page(values: dict[str, str], problem: Problem | None = None) -> str:
    with here.parts().sessions() as session:
        listed = accounts.account_names(session)
    return render_template(
        "accounts.html",
        section="admin",
        accounts=listed,
        values=values,
        problem=describe(problem, language=here.language()) if problem else None,
        faults=problem.faults if problem else (),
    )

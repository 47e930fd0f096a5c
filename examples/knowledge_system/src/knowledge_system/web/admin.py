"""Pages for administrators: the accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, redirect, render_template

from knowledge_system import fields
from knowledge_system.problems import Problem
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
        return forms.shown_again(
            problem, lambda shown: _page({name: forms.retyped(name) for name in _EMPTY}, shown)
        )
    return redirect("/admin/accounts?done=registered", 303)


def _page(values: dict[str, str], problem: Problem | None = None) -> str:
    with here.parts().sessions() as session:
        listed = accounts.account_names(session)
    return render_template(
        "accounts.html",
        section="admin",
        accounts=listed,
        values=values,
        **forms.told(problem),
    )

"""References to names of the package and of the standard library, however a docstring spells them."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api_examples import full_name
from docutils import nodes
from sphinx.util.nodes import make_refnode

if TYPE_CHECKING:
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

#: Modules with a page of their own, in the order in which a name that two of them have is looked for.
MODULES = (
    "wsgi",
    "asgi",
    "logging",
    "cache",
    "security",
    "db",
    "notify",
    "tasks",
    "settings",
    "compose",
    "testing",
    "events",
    "exceptions",
    "protocols",
    "contrib.celery_app",
    "contrib.django_app",
    "contrib.flask_app",
    "contrib.asgi_app",
    "contrib.fastapi_app",
    "contrib.gunicorn_config",
    "contrib.loguru_sink",
    "contrib.otel_observer",
    "contrib.prometheus_observer",
    "contrib.sentry_redaction",
    "contrib.sqlalchemy_replicas",
    "contrib.sqlalchemy_session",
    "contrib.structlog_renderer",
    "contrib.uvicorn_config",
    "contrib.waitress_config",
    "mks_check",
)
_STDLIB = {
    "timedelta": "datetime.timedelta",
    "SSLContext": "ssl.SSLContext",
    "WSGIApplication": "wsgiref.types.WSGIApplication",
    "WSGIEnvironment": "wsgiref.types.WSGIEnvironment",
    "StartResponse": "wsgiref.types.StartResponse",
}
_SIGNATURES = "reference/api/"
_SOURCES = [
    Path(importlib.import_module(name).__file__ or "").parent for name in ("mks_hardening", "mks_check")
]


def _bound() -> frozenset[str]:
    """Names that modules of the package bind at their top: types of other packages, aliases and type variables.

    A signature may name them, and nobody can look them up here; they are shown as text.
    """
    names: set[str] = set()
    for file in (file for source in _SOURCES for file in source.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.ImportFrom() | ast.Import():
                    names.update(name.asname or name.name for name in node.names)
                case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                    names.add(name)
    return frozenset(names)


def _public() -> dict[str, str]:
    return {
        name: f"{full_name(module)}.{name}"
        for module in reversed(MODULES)
        for name in importlib.import_module(full_name(module)).__all__
    }


PUBLIC = _public()
BOUND = _bound()


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Node | None:
    """Bare and private spellings lead to the one documented place, the standard library to its own manual."""
    bare = node["reftarget"].removeprefix("~")  # as Sphinx writes type variables in type hints
    target = _STDLIB.get(bare, bare)
    name = target.rpartition(".")[2]
    objects = env.domains.python_domain.objects
    public = PUBLIC.get(name)
    if public in objects and (target.startswith(("mks_hardening.", "mks_check.")) or "." not in target):
        place = objects[public]
        return make_refnode(app.builder, node["refdoc"], place.docname, place.node_id, content, public)
    top = target.partition(".")[0]
    if top in sys.stdlib_module_names:
        page = target.rpartition(".")[0] or target
        return nodes.reference(
            "", "", content, refuri=f"https://docs.python.org/3/library/{page}.html#{target}"
        )
    if node["refdoc"].startswith(_SIGNATURES) and (name in BOUND or top in BOUND or name[:1] in "'\""):
        return content
    return None


def setup(app: Sphinx) -> dict[str, Any]:
    """Answer where Sphinx has found nothing."""
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True}

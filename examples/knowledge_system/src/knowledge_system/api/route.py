"""Route definitions, shared by Flask, request validation and the OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from flask import Response

from knowledge_system.domain.fields import API_PATH

if TYPE_CHECKING:
    from knowledge_system.api.schemas import Schema
    from knowledge_system.domain.validation import Field


class ApiRequest(NamedTuple):
    """A validated request, as passed to a view.

    Attributes:
        path: path parameters.
        query: query parameters.
        values: fields of the body.
        if_match: value of ``If-Match``; ``None`` if absent.
        if_none_match: value of ``If-None-Match``; ``None`` if absent.
    """

    path: Mapping[str, Any]
    query: Mapping[str, Any]
    values: Mapping[str, Any]
    if_match: str | None
    if_none_match: str | None = None


class ApiResponse(NamedTuple):
    """Response of a view; a ``versioned`` response carries an ETag and may be stored by the client."""

    values: Mapping[str, Any]
    status: int = 200
    headers: Mapping[str, str] = {}
    versioned: bool = False


_LIMIT_OF_WHO = {"anybody": "api_open", "administrators": "admin"}
_LIMIT_OF_METHOD = {"GET": "api_read", "POST": "api_write", "PUT": "api_write", "DELETE": "api_delete"}

View = Callable[[ApiRequest], ApiResponse | Response]
V = TypeVar("V", bound=View)
Method = Literal["GET", "POST", "PUT", "DELETE"]


class Route(NamedTuple):
    """One row of the route table.

    Attributes:
        method: HTTP method.
        path: path with parameters in braces, each a key of ``fields.API_PATH``.
        view: function that handles the request.
        answers: schema of the response for each success status; ``None`` if it has no body.
        who: users who may send the request.
        limit: group of rate limits that each request counts against; empty for the one that follows from ``who``
            and the method.
        query: query parameters; unknown ones are rejected.
        body: fields of the body; ``None`` if there is no body.
        more: additional schema of the body, for fields that depend on each other.
        refusals: error statuses besides those that follow from the rest of the route.
        conditional: whether ``If-Match`` is required.
        repeatable: whether ``Idempotency-Key`` is accepted; never if the response contains a secret, as it is
            stored.
        takes_file: whether the body is a form with a file, which the view reads.
        gives_file: whether the response is a file.
    """

    method: Method
    path: str
    view: View
    answers: Mapping[int, Schema | None]
    who: Literal["anybody", "members", "administrators"] = "members"
    limit: str = ""
    query: Mapping[str, Field] = {}
    body: Mapping[str, Field] | None = None
    more: Mapping[str, Any] = {}
    refusals: tuple[int, ...] = ()
    conditional: bool = False
    repeatable: bool = False
    takes_file: bool = False
    gives_file: bool = False

    @property
    def name(self) -> str:
        """Name of the route, unique in the table."""
        return f"{self.view.__module__.rpartition('.')[2]}.{self.view.__name__}"

    @property
    def limit_group(self) -> str:
        """Group of rate limits that each request counts against."""
        if self.limit or self.who != "members":
            return self.limit or _LIMIT_OF_WHO[self.who]
        return _LIMIT_OF_METHOD[self.method]

    @property
    def parameters(self) -> dict[str, Field]:
        """Parameters of the path, by name."""
        return {name: API_PATH[name] for name in re.findall(r"\{(\w+)\}", self.path)}

    @property
    def rule(self) -> str:
        """The path in Flask's syntax."""
        return self.path.replace("{", "<").replace("}", ">")

    @property
    def summary(self) -> str:
        """The first line of the view's docstring."""
        return (self.view.__doc__ or "").strip().partition("\n")[0]


class Routes(list[Route]):
    """The routes of a module, each declared with its view.

    Args:
        path: path with which each of them begins.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def add(
        self, method: Method, path: str, answers: Mapping[int, Schema | None], **options: Any
    ) -> Callable[[V], V]:
        """Return a decorator that adds a route to its view; the parameters are those of ``Route``."""

        def register(view: V) -> V:
            self.append(Route(method, f"{self._path}{path}", view, answers, **options))
            return view

        return register

"""What a route is: one row for Flask, for the reading of requests and for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from flask import Response

if TYPE_CHECKING:
    from knowledge_system.api.schemas import Schema
    from knowledge_system.domain.validation import Field

__all__ = ["Asked", "Reply", "Route", "View"]


class Asked(NamedTuple):
    """A request as a view gets it: read, checked and in its types.

    Attributes:
        path: the parameters in the path.
        query: those behind the question mark.
        values: the fields of the body.
        if_match: what ``If-Match`` says; ``None`` where it is absent.
        if_none_match: the same for ``If-None-Match``.
    """

    path: Mapping[str, Any]
    query: Mapping[str, Any]
    values: Mapping[str, Any]
    if_match: str | None
    if_none_match: str | None = None


class Reply(NamedTuple):
    """What a view answers; ``versioned`` answers carry an ETag and may be kept by the one who asked."""

    values: Mapping[str, Any]
    status: int = 200
    headers: Mapping[str, str] = {}
    versioned: bool = False


View = Callable[[Asked], Reply | Response]


class Route(NamedTuple):
    """One row of the table.

    Attributes:
        method: of HTTP.
        path: with parameters in braces, each a key of ``parameters``.
        view: answers.
        answers: the schema for each status of success; ``None`` where there is no body.
        who: may ask.
        limit: group of rate limits that one request takes a hit of.
        parameters: those in the path.
        query: those behind the question mark; any other is refused.
        body: fields of the body; ``None`` where there is none.
        more: what its schema says about fields that depend on each other.
        refusals: statuses of refusals beside those that follow from the rest of the row.
        conditional: whether ``If-Match`` is needed.
        repeatable: whether ``Idempotency-Key`` is taken; never where the answer holds a secret, for it is kept.
        takes_file: whether the body is a form with a file, which the view reads.
        gives_file: whether the answer is one.
    """

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    view: View
    answers: Mapping[int, Schema | None]
    who: Literal["anybody", "members", "administrators"] = "members"
    limit: str = "api_read"
    parameters: Mapping[str, Field] = {}
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
        """Unique in the table."""
        return f"{self.view.__module__.rpartition('.')[2]}.{self.view.__name__}"

    @property
    def rule(self) -> str:
        """The path as Flask writes it."""
        return self.path.replace("{", "<").replace("}", ">")

    @property
    def summary(self) -> str:
        """The first sentence of the view's docstring."""
        return (self.view.__doc__ or "").strip().partition("\n")[0]

"""Articles with their files as a zip, and back: what one may see goes out, and comes in again as drafts.

``article-00012/article.md`` holds facts and body, ``article-00012/files/`` the attachments; links of the body lead
from one to the other by name, so a bundle can be read without this system.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote, unquote

from sqlalchemy import func, select

from knowledge_system.domain import fields, permissions
from knowledge_system.domain.files.bundle import BundleError, Limits, unpack
from knowledge_system.domain.files.front_matter import FrontMatterError, dumped, loaded
from knowledge_system.domain.problems import FieldFault, Problem
from knowledge_system.domain.validation import Field, Text, take
from knowledge_system.models import Article, Attachment, Revision
from knowledge_system.services.attachments import attaching
from knowledge_system.services.knowledge import article_queries, articles

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, sessionmaker

    from knowledge_system.domain.permissions import Actor
    from knowledge_system.services.attachments.intake import Accepted, Intake, Stored
    from knowledge_system.services.attachments.store import FileStore
    from knowledge_system.services.knowledge.search import SearchIndex

__all__ = [
    "LIMITS",
    "MOST_ARTICLES",
    "MOST_BYTES",
    "MOST_PIXELS",
    "Ready",
    "add",
    "entries",
    "read",
    "selected",
]

_log = logging.getLogger(__name__)

# The files of a bundle are in memory while it is read: one at a time in each process.
_reading = threading.BoundedSemaphore(1)
_PATIENCE: Final = 20


MOST_ARTICLES: Final = 500
MOST_BYTES: Final = 256 * 1_048_576
"""Of the files in one bundle that goes out."""
MOST_PIXELS: Final = 300_000_000
"""Of all pictures in one that comes in: each is decoded while somebody waits, 50 million in about a second."""
LIMITS: Final = Limits(entries=2000)
_MOST_FAULTS: Final = 50

_TOLD: Final = ("title", "category", "summary", "tags", "site")
_IGNORED: Final = ("status", "author", "updated_at")
"""Facts for people: what comes in is a draft of the person who brings it."""
_FACTS: Final[dict[str, Field]] = {
    **{name: fields.ARTICLE[name] for name in (*_TOLD, "body")},
    **{name: Text(100, min_length=0, default="") for name in _IGNORED},
}
_OUT: Final = re.compile(r"(?<=\]\()/files/([1-9][0-9]{0,9})(?=[ )])")
_IN: Final = re.compile(r"(?<=\]\()files/([^\s()]{1,800})(?=[ )])")


class Ready(NamedTuple):
    """An article of a bundle that may be added, with the files that go with it, by their names in it."""

    values: dict[str, Any]
    files: dict[str, Accepted]


# --- out ----------------------------------------------------------------------------------------


def selected(session: Session, actor: Actor, ids: Sequence[int]) -> list[int]:
    """Those of the articles that one may see, in the order of their ids.

    Raises:
        Problem: ``not-found`` for none, ``invalid`` for more than ``MOST_ARTICLES``, or files that together are
            larger than ``MOST_BYTES``.
    """
    if len(ids) > MOST_ARTICLES:
        raise Problem("invalid", faults=[FieldFault("ids", "too-many", MOST_ARTICLES)])
    asked = select(Article.id).where(Article.id.in_(ids), article_queries.seen_by(actor))
    found = list(session.scalars(asked.order_by(Article.id)))
    if not found:
        raise Problem("not-found")
    size = session.scalar(select(func.sum(Attachment.size)).where(Attachment.article_id.in_(found))) or 0
    if size > MOST_BYTES:
        raise Problem("invalid", faults=[FieldFault("ids", "bundle-too-large")])
    return found


def entries(
    sessions: sessionmaker[Session], actor: Actor, ids: Sequence[int], *, store: FileStore
) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the entries, one article at a time, each as it is when its turn comes.

    Whoever downloads slowly holds no connection of the database meanwhile. What is gone by then is left out.
    """
    for article_id in ids:
        try:
            with sessions() as session:
                article = article_queries.read(session, actor, article_id)
        except Problem:  # removed, or taken back, since it was selected
            continue
        folder, names = f"article-{article_id:05d}", _own_names(article["attachments"])
        body = _OUT.sub(partial(_link_out, names), article["body"])
        facts = {name: article[name] for name in (*_TOLD, *_IGNORED)}
        yield f"{folder}/article.md", dumped(facts, body).encode()
        for file in article["attachments"]:
            try:
                content = store.read(file["sha256"])
            except FileNotFoundError:
                _log.error("the file of attachment %d is missing in the folder of uploads", file["id"])
                continue
            yield f"{folder}/files/{names[file['id']]}", content


def _own_names(files: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Names by id, each once whatever the capitals: two photographs may be called the same."""
    taken: set[str] = set()
    names: dict[int, str] = {}
    for file in files:
        stem, dot, ending = file["name"].rpartition(".")
        name, number = file["name"], 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}{dot}{ending}"
        taken.add(name.casefold())
        names[file["id"]] = name
    return names


def _link_out(names: Mapping[int, str], found: re.Match[str]) -> str:
    name = names.get(int(found[1]))
    return found[0] if name is None else f"files/{quote(name, safe='')}"


# --- in -----------------------------------------------------------------------------------------


def read(bundle: bytes, intake: Intake) -> list[Ready]:
    """Everything in a bundle, checked; nothing is kept yet.

    Raises:
        Problem: ``invalid`` with a fault for each entry that cannot be taken; ``unavailable`` while one is read.
    """
    if not _reading.acquire(timeout=_PATIENCE):
        raise Problem("unavailable", headers={"Retry-After": "20"})
    try:
        return _read(bundle, intake)
    finally:
        _reading.release()


def _read(bundle: bytes, intake: Intake) -> list[Ready]:
    try:
        contents = unpack(bundle, LIMITS)
    except BundleError as error:
        raise Problem("invalid", faults=[FieldFault("file", error.code, error.entry)]) from error
    folders = sorted(name.rpartition("/")[0] for name in contents if name.rpartition("/")[2] == "article.md")
    if not folders:
        raise Problem("invalid", faults=[FieldFault("file", "bundle-empty")])
    if len(folders) > MOST_ARTICLES:
        raise Problem("invalid", faults=[FieldFault("file", "too-many", MOST_ARTICLES)])
    faults: list[FieldFault] = []
    ready: list[Ready] = []
    taken: set[str] = set()
    pixels = 0
    for folder in folders:
        beside = f"{folder}/" if folder else ""
        files: dict[str, Accepted] = {}
        for name in sorted(contents):
            if name.startswith(f"{beside}files/"):
                taken.add(name)
                pixels += _take_file(name, contents[name], intake, files, faults)
                if pixels > MOST_PIXELS:
                    raise Problem(
                        "invalid", faults=[FieldFault("file", "bundle-pixels", MOST_PIXELS // 1_000_000)]
                    )
        if len(files) > attaching.MOST:
            faults.append(FieldFault(f"{beside}files"[:100], "too-many", attaching.MOST))
        taken.add(f"{beside}article.md")
        values = _take_article(f"{beside}article.md", contents, faults)
        ready.append(Ready(values, files))
        if len(faults) >= _MOST_FAULTS:
            raise Problem("invalid", faults=faults[:_MOST_FAULTS])
    faults += [FieldFault(name[:100], "bundle-place") for name in sorted(contents.keys() - taken)]
    if faults:
        raise Problem("invalid", faults=faults[:_MOST_FAULTS])
    return ready


def add(
    session: Session,
    actor: Actor,
    ready: Sequence[Ready],
    *,
    kept: Sequence[Mapping[str, Stored]],
    search: SearchIndex,
    now: datetime,
) -> list[int]:
    """Add the articles as drafts; returns their ids.

    Args:
        session: with the transaction.
        actor: whose drafts they become.
        ready: what ``read`` found.
        kept: for each of them, where its files are in the store.
        search: the index they enter.
        now: the moment.

    Raises:
        Problem: ``forbidden``.
    """
    if not permissions.sees_all(actor):
        raise Problem("forbidden")
    return [
        _add(session, actor, each, files, search=search, now=now)
        for each, files in zip(ready, kept, strict=True)
    ]


def _add(
    session: Session,
    actor: Actor,
    ready: Ready,
    files: Mapping[str, Stored],
    *,
    search: SearchIndex,
    now: datetime,
) -> int:
    new = articles.create(session, actor, {**ready.values, "status": "draft"}, search=search, now=now)
    urls = {name: attaching.attach(session, actor, new, file, now=now)["url"] for name, file in files.items()}
    body = _IN.sub(lambda found: urls.get(unquote(found[1]), found[0]), ready.values["body"])
    if body != ready.values["body"]:  # files have addresses only now
        article = article_queries.load_seen(session, actor, new)
        article.body = session.get_one(Revision, (new, 1)).body = body
        session.flush()
        articles.index(session, search, article)
    return new


def _take_file(
    name: str, content: bytes, intake: Intake, files: dict[str, Accepted], faults: list[FieldFault]
) -> int:
    """How many pixels were looked at."""
    own = name.rpartition("/files/")[2] if "/files/" in name else name.removeprefix("files/")
    try:
        files[own] = intake.checked(own, content)
    except Problem as problem:
        if problem.code != "invalid":
            raise
        faults += [fault._replace(field=name[:100]) for fault in problem.faults]
        return 0
    return files[own].pixels


def _take_article(name: str, contents: Mapping[str, bytes], faults: list[FieldFault]) -> dict[str, Any]:
    try:
        facts, body = loaded(contents[name].decode())
        return take({**facts, "body": body}, _FACTS)
    except UnicodeDecodeError:
        faults.append(FieldFault(name[:100], "bundle-text"))
    except FrontMatterError as error:
        faults.append(FieldFault(name[:100], "bundle-facts", str(error)))
    except Problem as problem:
        faults += [fault._replace(field=f"{name[:100]}: {fault.field}") for fault in problem.faults]
    return {}

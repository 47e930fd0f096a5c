"""Export of articles with their attachments as a zip file, and import as drafts.

``article-00012/article.md`` holds metadata and body, ``article-00012/files/`` the attachments; the body links to
them by name, so a bundle is readable without this system.
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
from knowledge_system.domain.files.bundle import BundleError, Limits, read_zip
from knowledge_system.domain.files.front_matter import FrontMatterError, dump, load
from knowledge_system.domain.problems import FieldError, Problem
from knowledge_system.domain.validation import Field, Text, take
from knowledge_system.models import Article, Attachment, Revision
from knowledge_system.services.attachments import article_attachments
from knowledge_system.services.knowledge import article_queries, articles
from knowledge_system.services.visibility import seen_by

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, sessionmaker

    from knowledge_system.domain.permissions import Actor
    from knowledge_system.services.attachments.file_store import FileStore
    from knowledge_system.services.attachments.upload_intake import Accepted, Intake, Stored
    from mks_hardening.db import SearchIndex

_log = logging.getLogger(__name__)

# All files of a bundle are in memory during an import: one import at a time per process.
_reading = threading.BoundedSemaphore(1)
_PATIENCE: Final = 20


MOST_ARTICLES: Final = 500
MOST_BYTES: Final = 256 * 1_048_576
"""Maximum size of the attachments in one export."""
MOST_PIXELS: Final = 300_000_000
"""Maximum pixels of all pictures in one import: decoding 50 million takes about a second of the request."""
LIMITS: Final = Limits(entries=2000)
_MAX_ERRORS: Final = 50

_TOLD: Final = ("title", "category", "summary", "tags", "site")
_IGNORED: Final = ("status", "author", "updated_at")
"""Metadata for human readers: on import, every article becomes a draft of the importing user."""
_FACTS: Final[dict[str, Field]] = {
    **{name: fields.ARTICLE[name] for name in (*_TOLD, "body")},
    **{name: Text(100, min_length=0, default="") for name in _IGNORED},
}
_OUT: Final = re.compile(r"(?<=\]\()/files/([1-9][0-9]{0,9})(?=[ )])")
_IN: Final = re.compile(r"(?<=\]\()files/([^\s()]{1,800})(?=[ )])")


class ImportedArticle(NamedTuple):
    """An article of a bundle that passed validation, with its files by name."""

    values: dict[str, Any]
    files: dict[str, Accepted]


# --- export -------------------------------------------------------------------------------------


def selected(session: Session, actor: Actor, ids: Sequence[int]) -> list[int]:
    """Return the ids of the articles that the actor may see, sorted.

    Raises:
        Problem: ``not-found`` if there are none, ``invalid`` for more than ``MOST_ARTICLES``, or files that exceed
            ``MOST_BYTES`` in total.
    """
    if len(ids) > MOST_ARTICLES:
        raise Problem("invalid", errors=[FieldError("ids", "too-many", MOST_ARTICLES)])
    asked = select(Article.id).where(Article.id.in_(ids), seen_by(actor))
    found = list(session.scalars(asked.order_by(Article.id)))
    if not found:
        raise Problem("not-found")
    size = session.scalar(select(func.sum(Attachment.size)).where(Attachment.article_id.in_(found))) or 0
    if size > MOST_BYTES:
        raise Problem("invalid", errors=[FieldError("ids", "bundle-too-large")])
    return found


def entries(
    sessions: sessionmaker[Session], actor: Actor, ids: Sequence[int], *, store: FileStore
) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of the zip entries, reading each article only when its turn comes.

    No database connection is held during a slow download. Articles deleted in the meantime are skipped.
    """
    for article_id in ids:
        try:
            with sessions() as session:
                article = article_queries.read(session, actor, article_id)
        except Problem:  # deleted or hidden since it was selected
            continue
        folder, names = f"article-{article_id:05d}", _own_names(article["attachments"])
        body = _OUT.sub(partial(_link_out, names), article["body"])
        facts = {name: article[name] for name in (*_TOLD, *_IGNORED)}
        yield f"{folder}/article.md", dump(facts, body).encode()
        for file in article["attachments"]:
            try:
                content = store.read(file["sha256"])
            except FileNotFoundError:
                _log.error("the file of attachment %d is missing in the folder of uploads", file["id"])
                continue
            yield f"{folder}/files/{names[file['id']]}", content


def _own_names(files: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Return unique, case-insensitive file names by attachment id: two photos may have the same name."""
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


# --- import -------------------------------------------------------------------------------------


def read(bundle: bytes, intake: Intake) -> list[ImportedArticle]:
    """Read and validate a bundle without storing anything.

    Raises:
        Problem: ``invalid`` with an error for each rejected entry; ``unavailable`` while another import runs.
    """
    if not _reading.acquire(timeout=_PATIENCE):
        raise Problem("unavailable", headers={"Retry-After": "20"})
    try:
        return _read(bundle, intake)
    finally:
        _reading.release()


def _read(bundle: bytes, intake: Intake) -> list[ImportedArticle]:
    try:
        contents = read_zip(bundle, LIMITS)
    except BundleError as error:
        raise Problem("invalid", errors=[FieldError("file", error.code, error.entry)]) from error
    folders = sorted(name.rpartition("/")[0] for name in contents if name.rpartition("/")[2] == "article.md")
    if not folders:
        raise Problem("invalid", errors=[FieldError("file", "bundle-empty")])
    if len(folders) > MOST_ARTICLES:
        raise Problem("invalid", errors=[FieldError("file", "too-many", MOST_ARTICLES)])
    errors: list[FieldError] = []
    ready: list[ImportedArticle] = []
    taken: set[str] = set()
    pixels = 0
    for folder in folders:
        beside = f"{folder}/" if folder else ""
        files: dict[str, Accepted] = {}
        for name in sorted(contents):
            if name.startswith(f"{beside}files/"):
                taken.add(name)
                pixels += _take_file(name, contents[name], intake, files, errors)
                if pixels > MOST_PIXELS:
                    raise Problem(
                        "invalid", errors=[FieldError("file", "bundle-pixels", MOST_PIXELS // 1_000_000)]
                    )
        if len(files) > article_attachments.MOST:
            errors.append(FieldError(f"{beside}files"[:100], "too-many", article_attachments.MOST))
        taken.add(f"{beside}article.md")
        values = _take_article(f"{beside}article.md", contents, errors)
        ready.append(ImportedArticle(values, files))
        if len(errors) >= _MAX_ERRORS:
            raise Problem("invalid", errors=errors[:_MAX_ERRORS])
    errors += [FieldError(name[:100], "bundle-place") for name in sorted(contents.keys() - taken)]
    if errors:
        raise Problem("invalid", errors=errors[:_MAX_ERRORS])
    return ready


def add(
    session: Session,
    actor: Actor,
    ready: Sequence[ImportedArticle],
    *,
    kept: Sequence[Mapping[str, Stored]],
    search: SearchIndex,
    now: datetime,
) -> list[int]:
    """Add the articles as drafts; return their ids.

    Args:
        session: database session with the transaction.
        actor: author of the drafts.
        ready: result of ``read``.
        kept: stored files of each article.
        search: search index to update.
        now: current time.

    Raises:
        Problem: ``forbidden``.
    """
    if not permissions.sees_all(actor):
        raise Problem("forbidden")
    return [
        add_article(session, actor, each, files, search=search, now=now)
        for each, files in zip(ready, kept, strict=True)
    ]


def add_article(
    session: Session,
    actor: Actor,
    ready: ImportedArticle,
    files: Mapping[str, Stored],
    *,
    search: SearchIndex,
    now: datetime,
) -> int:
    """Add one article as a draft of the actor, with its files; return its id.

    Raises:
        Problem: ``forbidden``, or ``invalid`` for too many files.
    """
    new = articles.create(session, actor, {**ready.values, "status": "draft"}, search=search, now=now)
    urls = {
        name: article_attachments.attach(session, actor, new, file, now=now)["url"]
        for name, file in files.items()
    }
    body = _IN.sub(lambda found: urls.get(unquote(found[1]), found[0]), ready.values["body"])
    if body != ready.values["body"]:  # the URLs of the files are known only now
        article = article_queries.load_seen(session, actor, new)
        article.body = session.get_one(Revision, (new, 1)).body = body
        session.flush()
        articles.index(session, search, article)
    return new


def _take_file(
    name: str, content: bytes, intake: Intake, files: dict[str, Accepted], errors: list[FieldError]
) -> int:
    """Validate a file and add it to ``files``; return the number of pixels decoded."""
    own = name.rpartition("/files/")[2] if "/files/" in name else name.removeprefix("files/")
    try:
        files[own] = intake.checked(own, content)
    except Problem as problem:
        if problem.code != "invalid":
            raise
        errors += [error._replace(field=name[:100]) for error in problem.errors]
        return 0
    return files[own].pixels


def _take_article(name: str, contents: Mapping[str, bytes], errors: list[FieldError]) -> dict[str, Any]:
    try:
        facts, body = load(contents[name].decode())
        return take({**facts, "body": body}, _FACTS)
    except UnicodeDecodeError:
        errors.append(FieldError(name[:100], "bundle-text"))
    except FrontMatterError as error:
        errors.append(FieldError(name[:100], "bundle-facts", str(error)))
    except Problem as problem:
        errors += [error._replace(field=f"{name[:100]}: {error.field}") for error in problem.errors]
    return {}

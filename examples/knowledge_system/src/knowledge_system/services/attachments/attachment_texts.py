"""Text of attachments: extracted in a process with limits, stored and searchable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, select

from knowledge_system.domain import snippets
from knowledge_system.domain.search_variants import spelling_variants
from knowledge_system.models import Attachment, AttachmentText
from knowledge_system.services.attachments import bounded_process, file_text
from mks_hardening.db import SearchIndex

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Select
    from sqlalchemy.orm import Session

    from knowledge_system.services.attachments.file_store import FileStore

INDEX: Final = SearchIndex("attachment_search", synonyms=spelling_variants)
READABLE: Final = file_text.READABLE
"""Media types whose text is extracted."""
_PROGRAM: Final = Path(file_text.__file__)


def extract(store: FileStore, digest: str, media_type: str) -> str | None:
    """Return the text of a stored file, or ``None`` if it is damaged or exceeds a limit.

    Raises:
        FileNotFoundError: the file is missing.
    """
    text = bounded_process.run(_PROGRAM, media_type, store.read(digest))
    return None if text is None else text.decode(errors="replace").replace("\0", "")


def keep(session: Session, attachment_id: int, text: str | None) -> None:
    """Store and index the text of an attachment, unless the attachment was removed."""
    found = session.scalar(select(Attachment).where(Attachment.id == attachment_id).with_for_update())
    if found is None:
        return
    session.merge(AttachmentText(attachment_id=attachment_id, text=text or "", readable=text is not None))
    INDEX.index(session, attachment_id, title=found.name, body=text)


def remove(session: Session, attachment_ids: Sequence[int]) -> None:
    """Remove the texts of attachments, which are removed in the same transaction."""
    session.execute(delete(AttachmentText).where(AttachmentText.attachment_id.in_(attachment_ids)))
    for attachment_id in attachment_ids:
        INDEX.remove(session, attachment_id)


def missing(session: Session, *, most: int) -> list[int]:
    """Return attachments whose text was not extracted yet, the newest first."""
    unread = select(Attachment.id).outerjoin(AttachmentText, AttachmentText.attachment_id == Attachment.id)
    unread = unread.where(AttachmentText.attachment_id.is_(None), Attachment.content_type.in_(READABLE))
    return list(session.scalars(unread.order_by(Attachment.id.desc()).limit(most)))


def matching_articles(session: Session, query: str) -> Select[Any] | None:
    """Select the articles with an attachment that readers see and that matches, or ``None`` if there is none."""
    found = INDEX.matching(session, query).subquery()
    rows = select(Attachment.article_id).join(found, found.c.document_id == Attachment.id)
    rows = rows.where(Attachment.shown)
    return rows.distinct() if _any_match(session, query, rows) else None


def _any_match(session: Session, query: str, rows: Select[Any]) -> bool:
    """Whether there is a row; asked once for each query and session, since a page searches several times."""
    known: dict[str, bool] = session.info.setdefault("attachment_matches", {})
    if query not in known:
        known[query] = session.execute(rows.limit(1)).first() is not None
    return known[query]


def find_in(session: Session, article_ids: Sequence[int], query: str) -> dict[int, list[dict[str, Any]]]:
    """Return the matching attachments of articles: name and excerpt in pieces, and the page of the excerpt."""
    if matching_articles(session, query) is None:
        return {}
    found = INDEX.matching(session, query).subquery()
    rows = (
        select(Attachment.article_id, Attachment.id, Attachment.name, AttachmentText.text)
        .join(found, found.c.document_id == Attachment.id)
        .join(AttachmentText, AttachmentText.attachment_id == Attachment.id)
        .where(Attachment.shown, Attachment.article_id.in_(article_ids))
        .order_by(Attachment.id)
    )
    files: dict[int, list[dict[str, Any]]] = {}
    for row in session.execute(rows):
        page, excerpt = _first_page(row.text, query)
        entry = {"id": row.id, "name_pieces": snippets.marked(row.name, query), "excerpt_pieces": excerpt}
        files.setdefault(row.article_id, []).append({**entry, "page": page})
    return files


def _first_page(text: str, query: str) -> tuple[int, list[dict[str, Any]]]:
    """Return the first page with a match, or 0 if the file has no pages, and its excerpt."""
    for number, page in enumerate(text.split("\f"), 1):
        if excerpt := snippets.excerpt(page, query):
            return number if "\f" in text else 0, excerpt
    return 0, []

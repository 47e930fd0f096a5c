"""Article search: the search index of the library, and words typed without a space."""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import Select, func, literal, select, union_all
from sqlalchemy.orm import Session

from knowledge_system.domain.search_variants import split_compounds
from knowledge_system.services.attachments import attachment_texts
from mks_hardening.db import SearchIndex


def matching(index: SearchIndex, bind: Session, query: str) -> Select[Any]:
    """Select ``document_id`` and ``score`` of the articles that match.

    Matches of a split compound rank after matches in the article, and matches in an attachment rank last.
    """
    compounds = split_compounds(query)
    files = attachment_texts.matching_articles(bind, query)
    if not compounds and files is None:
        return index.matching(bind, query)
    asked = ((query, 0), *((text, -2) for text in compounds))
    found = [_lowered(index.matching(bind, text), by) for text, by in asked]
    if files is not None:
        found.append(files.add_columns(literal(-3)))
    rows = union_all(*found).subquery()
    columns = (rows.c.document_id, func.max(rows.c.score).label("score"))
    return cast("Select[Any]", select(*columns).group_by(rows.c.document_id))


def _lowered(found: Select[Any], by: int) -> Select[Any]:
    rows = found.subquery()
    columns = (rows.c.document_id, (rows.c.score + by).label("score"))
    return cast("Select[Any]", select(*columns))

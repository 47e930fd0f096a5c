import sqlalchemy as sa

from mks_hardening.db import InvalidCursorError, hardened_engine, keyset_page

articles = sa.Table(
    "articles",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("approved_at", sa.Integer),
)
ORDER = (articles.c.approved_at.desc().nulls_last(), articles.c.id.desc())
SIGNING_KEYS = ["a secret from your settings"]


def page_of(kind, *, after=None, before=None):
    chosen = sa.select(articles.c.id).where(articles.c.kind == kind)
    return keyset_page(chosen, order_by=ORDER, after=after, before=before, limit=2, signing_keys=SIGNING_KEYS)


engine = hardened_engine("sqlite://")
with engine.begin() as connection:
    articles.create(connection)
    rows = [{"id": n, "kind": "note", "approved_at": n if n % 2 else None} for n in range(1, 6)]
    connection.execute(sa.insert(articles), rows)
    first = page_of("note").fetch(connection)
    second = page_of("note", after=first.next_cursor).fetch(connection)
    again = page_of("note", before=second.previous_cursor).fetch(connection)
    assert (first.items, second.items, again.items) == ([5, 3], [1, 4], [5, 3])
    assert str(page_of("note").count(connection)) == "5"
    assert str(page_of("note").count(connection, limit=3)) == "more than 3"
    refused = ""
    try:
        page_of("plan", after=first.next_cursor)
    except InvalidCursorError as error:  # respond with 400
        refused = str(error)
    assert "another filter" in refused
engine.dispose()

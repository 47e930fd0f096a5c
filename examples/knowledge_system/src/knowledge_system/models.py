"""SQLAlchemy models: users, articles with tags, comments and revisions, and all other tables."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    text,
    true,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from mks_hardening.security import passkey_tables, two_factor_table
from mks_hardening.tasks import task_table


class UtcDateTime(TypeDecorator[datetime]):
    """Timezone-aware datetimes in UTC, also on SQLite, which does not store a time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    @property
    def python_type(self) -> type[datetime]:
        """The accepted Python type, so that a forged pagination cursor with a value of another type is rejected."""
        return datetime

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Reject naive values, which do not define an instant."""
        del dialect
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime has no instant")
        return value.astimezone(UTC)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """Restore the time zone."""
        del dialect
        if value is None:
            return None
        aware: datetime = value if value.tzinfo else value.replace(tzinfo=UTC)
        return aware.astimezone(UTC)


class Base(DeclarativeBase):
    """Base of all models, with constraint names that do not depend on the database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class User(Base):
    """A member of staff, who can sign in while ``active`` and after setting a password through the invitation."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(String(64), unique=True)
    display_name: Mapped[str] = mapped_column(String(100))
    department: Mapped[str] = mapped_column(String(100), default="")
    role: Mapped[str] = mapped_column(String(16))
    email: Mapped[str | None] = mapped_column(String(254), unique=True)
    active: Mapped[bool] = mapped_column(default=True, server_default=true())
    language: Mapped[str] = mapped_column(String(2), default="", server_default=text("''"))
    password_hash: Mapped[str | None] = mapped_column(String(255))
    mails: Mapped[str] = mapped_column(String(5), default="each", server_default=text("'each'"))
    digest_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    deactivated_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ProviderIdentity(Base):
    """A person of the identity provider, and the one account that is linked to them.

    ``key`` is a digest of issuer and subject. It stays with an emptied account, so that a leaver gets no new one.
    """

    __tablename__ = "provider_identities"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), unique=True)
    linked_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Group(Base):
    """A group of people, like a department or the staff of a site."""

    __tablename__ = "user_groups"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40), unique=True)


class GroupMember(Base):
    """A member of a group."""

    __tablename__ = "group_members"

    group_id: Mapped[int] = mapped_column(ForeignKey("user_groups.id"), primary_key=True, autoincrement=False)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True, autoincrement=False)


class CategoryApprovers(Base):
    """The group whose reviewers approve the articles of a category; without a row, every reviewer does."""

    __tablename__ = "category_approvers"

    category: Mapped[str] = mapped_column(String(32), primary_key=True)
    group_id: Mapped[int] = mapped_column(ForeignKey("user_groups.id"))


class Article(Base):
    """An article as readers see it.

    ``revision`` increases by one with every saved edit and every workflow step; ``shown_revision`` is the revision
    whose text this row holds. While the next version of a published or retired article is being written,
    ``next_revision`` is the revision that holds its text, ``next_since`` the revision with which it began, and
    ``next_status`` its status.
    """

    __tablename__ = "articles"
    __table_args__ = (
        Index(None, "status", "updated_at", "id"),
        Index(None, "category", "status", "updated_at", "id"),
        # Covering indexes: articles are counted, and search results and the articles of a site sorted, without
        # reading the table.
        Index(None, "status", "category", "site", "id"),
        Index(None, "id", "status", "updated_at"),
        Index(None, "site", "status", "updated_at", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str | None] = mapped_column(String(120), unique=True)
    title: Mapped[str] = mapped_column(String(200))
    summary: Mapped[str] = mapped_column(String(500), default="")
    body: Mapped[str] = mapped_column(Text)
    category: Mapped[str] = mapped_column(String(32))
    status: Mapped[str] = mapped_column(String(16), default="draft")
    author_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    revision: Mapped[int] = mapped_column(default=1)
    site: Mapped[str] = mapped_column(String(100), default="", server_default=text("''"))
    shown_revision: Mapped[int] = mapped_column(default=1, server_default="1")
    next_revision: Mapped[int | None]
    next_since: Mapped[int | None]
    next_status: Mapped[str | None] = mapped_column(String(16), index=True)
    confirmed_at: Mapped[datetime | None] = mapped_column(UtcDateTime, index=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)

    author: Mapped[User] = relationship(lazy="raise_on_sql")
    tags: Mapped[list[ArticleTag]] = relationship(
        cascade="all, delete-orphan", order_by="ArticleTag.position", lazy="raise_on_sql"
    )
    comments: Mapped[list[Comment]] = relationship(
        cascade="all, delete-orphan", order_by="Comment.id", lazy="raise_on_sql"
    )
    revisions: Mapped[list[Revision]] = relationship(
        cascade="all, delete-orphan", order_by="Revision.number.desc()", lazy="raise_on_sql"
    )


class ArticleTag(Base):
    """A tag of an article, in the order the author entered."""

    __tablename__ = "article_tags"

    article_id: Mapped[int] = mapped_column(ForeignKey("articles.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(40), primary_key=True, index=True)
    position: Mapped[int] = mapped_column(default=0)


class TreeNode(Base):
    """A node of the tree of articles, in the order of ``position`` among its siblings."""

    __tablename__ = "nodes"

    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("nodes.id"), index=True)
    position: Mapped[int]
    name: Mapped[str] = mapped_column(String(100))


class ArticleNode(Base):
    """The place of an article in the tree."""

    __tablename__ = "article_nodes"

    article_id: Mapped[int] = mapped_column(ForeignKey("articles.id"), primary_key=True, autoincrement=False)
    node_id: Mapped[int] = mapped_column(ForeignKey("nodes.id"), index=True)


class Reader(Base):
    """A group to which an article, a category or a node of the tree is restricted; without a row, all may read it.

    Exactly one of ``article_id``, ``category`` and ``node_id`` is set.
    """

    __tablename__ = "readers"

    id: Mapped[int] = mapped_column(primary_key=True)
    group_id: Mapped[int] = mapped_column(ForeignKey("user_groups.id"), index=True)
    article_id: Mapped[int | None] = mapped_column(ForeignKey("articles.id"), index=True)
    category: Mapped[str | None] = mapped_column(String(32))
    node_id: Mapped[int | None] = mapped_column(ForeignKey("nodes.id"))


class Tag(Base):
    """The canonical spelling of a tag: the first one used for a key (``tags.key_of``)."""

    __tablename__ = "tags"

    key: Mapped[str] = mapped_column(String(768), primary_key=True)
    name: Mapped[str] = mapped_column(String(40))


class Favourite(Base):
    """An article that a user has bookmarked."""

    __tablename__ = "favourites"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True, autoincrement=False)
    article_id: Mapped[int] = mapped_column(
        ForeignKey("articles.id"), primary_key=True, autoincrement=False, index=True
    )
    added_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Watch(Base):
    """A subscription of a user to an article, a tag or a site; ``subject`` is the article's id or the name."""

    __tablename__ = "watches"
    __table_args__ = (Index(None, "kind", "subject"),)

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(8), primary_key=True)
    subject: Mapped[str] = mapped_column(String(100), primary_key=True)
    added_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Comment(Base):
    """A comment on an article; ``parent_id`` is the comment it answers. A removed comment has no text any more."""

    __tablename__ = "comments"

    id: Mapped[int] = mapped_column(primary_key=True)
    article_id: Mapped[int] = mapped_column(ForeignKey("articles.id"), index=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    body: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    parent_id: Mapped[int | None]
    edited_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    deleted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    author: Mapped[User] = relationship(lazy="raise_on_sql")


class Draft(Base):
    """The text of an editor that a user has not saved yet; ``form`` is ``article-12`` or ``article-new``."""

    __tablename__ = "drafts"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True, autoincrement=False)
    form: Mapped[str] = mapped_column(String(24), primary_key=True)
    revision: Mapped[int]
    content: Mapped[dict[str, str]] = mapped_column(JSON)
    saved_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class Revision(Base):
    """A revision of an article: editor, time, status and full text.

    Revisions that were saved before texts were stored have none.
    """

    __tablename__ = "revisions"

    article_id: Mapped[int] = mapped_column(ForeignKey("articles.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    editor_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    status: Mapped[str] = mapped_column(String(16))
    saved_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    title: Mapped[str | None] = mapped_column(String(200), deferred=True, deferred_group="text")
    summary: Mapped[str | None] = mapped_column(String(500), deferred=True, deferred_group="text")
    body: Mapped[str | None] = mapped_column(Text, deferred=True, deferred_group="text")
    category: Mapped[str | None] = mapped_column(String(32), deferred=True, deferred_group="text")
    site: Mapped[str | None] = mapped_column(String(100), deferred=True, deferred_group="text")
    tags: Mapped[list[str] | None] = mapped_column(JSON, deferred=True, deferred_group="text")

    editor: Mapped[User] = relationship(lazy="raise_on_sql")


class Review(Base):
    """A workflow step: actor, time, revision and comment."""

    __tablename__ = "reviews"

    id: Mapped[int] = mapped_column(primary_key=True)
    article_id: Mapped[int] = mapped_column(ForeignKey("articles.id"), index=True)
    revision: Mapped[int]
    actor_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    step: Mapped[str] = mapped_column(String(16))
    comment: Mapped[str] = mapped_column(Text, default="")
    taken_at: Mapped[datetime] = mapped_column(UtcDateTime)

    actor: Mapped[User] = relationship(lazy="raise_on_sql")


class Notice(Base):
    """A notification to a user about an article."""

    __tablename__ = "notices"
    __table_args__ = (Index(None, "user_id", "read_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    article_id: Mapped[int] = mapped_column(ForeignKey("articles.id"))
    actor_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    kind: Mapped[str] = mapped_column(String(16))
    said: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    read_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    actor: Mapped[User] = relationship(foreign_keys=[actor_id], lazy="raise_on_sql")
    article: Mapped[Article] = relationship(lazy="raise_on_sql")


class Attachment(Base):
    """A file of an article: its name and metadata; the content is in the file store under ``digest``.

    ``shown`` is false while the file belongs to a version that readers do not see yet.
    """

    __tablename__ = "attachments"

    id: Mapped[int] = mapped_column(primary_key=True)
    article_id: Mapped[int] = mapped_column(ForeignKey("articles.id", ondelete="CASCADE"), index=True)
    uploader_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str] = mapped_column(String(120))
    content_type: Mapped[str] = mapped_column(String(128))
    size: Mapped[int]
    digest: Mapped[str] = mapped_column(String(64), index=True)
    thumbnail: Mapped[str] = mapped_column(String(64), index=True)
    width: Mapped[int]
    height: Mapped[int]
    shown: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

    article: Mapped[Article] = relationship(lazy="raise_on_sql")


class AttachmentText(Base):
    """The text of an attachment, extracted in the background; ``readable`` is false if that failed."""

    __tablename__ = "attachment_texts"

    attachment_id: Mapped[int] = mapped_column(
        ForeignKey("attachments.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    text: Mapped[str] = mapped_column(Text)
    readable: Mapped[bool]


class TakenOver(Base):
    """An article that was taken over from another system; the row stays when the article is deleted.

    ``source`` is the digest of its place there, and ``content`` that of what was taken over.
    """

    __tablename__ = "taken_over"

    source: Mapped[str] = mapped_column(String(64), primary_key=True)
    content: Mapped[str] = mapped_column(String(64))
    article_id: Mapped[int]
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class AuditEntry(Base):
    """An audit log entry, never changed or deleted; ``hash`` covers the row and the hash of the previous entry."""

    __tablename__ = "audit_entries"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    actor_id: Mapped[int | None]
    actor_name: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(String(100))
    detail: Mapped[str] = mapped_column(Text)
    previous: Mapped[str] = mapped_column(String(64), unique=True)
    hash: Mapped[str] = mapped_column(String(64))


class Report(Base):
    """A file written by a background task for one user, until it expires; the id is that of the task."""

    __tablename__ = "reports"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    owner_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    title: Mapped[str] = mapped_column(String(200))
    file_name: Mapped[str] = mapped_column(String(200))
    content_type: Mapped[str] = mapped_column(String(100))
    content: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class Sample(Base):
    """Counters of one process for one minute; kept for a day."""

    __tablename__ = "samples"

    at: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True)
    process: Mapped[str] = mapped_column(String(64), primary_key=True)
    counts: Mapped[dict[str, Any]] = mapped_column(JSON)


class TokenFamily(Base):
    """The tokens of one API sign-in, each replacing the one before; reusing a refresh token ends the family."""

    __tablename__ = "api_token_families"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    stamp: Mapped[str] = mapped_column(String(64))
    facts: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class RefreshToken(Base):
    """A refresh token, stored as its digest, so that a leaked table contains no usable token."""

    __tablename__ = "api_refresh_tokens"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    family_id: Mapped[str] = mapped_column(
        ForeignKey("api_token_families.id", ondelete="CASCADE"), index=True
    )
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class IdempotencyRecord(Base):
    """A request with an ``Idempotency-Key`` and its stored response."""

    __tablename__ = "api_repeatable_calls"

    owner_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True, autoincrement=False)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    claim: Mapped[str] = mapped_column(String(32))
    claimed_until: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    changed: Mapped[bool] = mapped_column(default=False)
    answer: Mapped[str | None] = mapped_column(Text)


# The library stores second factors in this table; it is in our metadata so that it is created with the
# others.
second_factors = two_factor_table(Base.metadata)
passkeys = passkey_tables(Base.metadata)
# One row per background task.
tasks = task_table(Base.metadata)

"""Takes over accounts, articles and files, each in a transaction of its own, and reports what became of it.

An article and its entry in the table ``taken_over`` are written together: a run that was killed is simply started
again. What exists already is never changed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from urllib.parse import quote, unquote

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from knowledge_system.domain import fields, permissions
from knowledge_system.domain.files.bundle import read_zip
from knowledge_system.domain.problems import FieldError, Problem, describe
from knowledge_system.domain.translations import LANGUAGES
from knowledge_system.domain.tree import DEPTH
from knowledge_system.domain.validation import printable, take
from knowledge_system.models import Article, Attachment, GroupMember, Review, Revision, TakenOver, User
from knowledge_system.services import audit, export_import
from knowledge_system.services.attachments import (
    article_attachments,
    attachment_texts,
    bounded_process,
    file_conversion,
)
from knowledge_system.services.attachments.upload_intake import Accepted, Stored
from knowledge_system.services.audit import Fact
from knowledge_system.services.export_import import ImportedArticle
from knowledge_system.services.identity import accounts
from knowledge_system.services.knowledge import articles, tree
from knowledge_system.services.knowledge.article_queries import load_seen
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security import PasswordHasher

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, sessionmaker

    from knowledge_system.domain.permissions import Actor
    from knowledge_system.services.attachments.upload_intake import Intake
    from knowledge_system.services.take_over.mapping import Mapped
    from mks_hardening.db import SearchIndex
    from mks_hardening.protocols import Clock

_STOPPING: Final = frozenset({"pictures-busy", "scan-unavailable", "storage-full", "unavailable"})
"""Problems of this machine rather than of what is taken over."""
_PROGRAM: Final = Path(file_conversion.__file__)
_LONGEST: Final = 49_000
"""Characters of a body, without the links to its files."""
_LINK: Final = re.compile(r"!?\[([^\[\]]*)\]\(([^()\s]+)(?: \"[^\"]*\")?\)")
_WEAK: Final = (
    "パスワードの形式を引き継げません(塩のない SHA・MD5 など)。本人が再設定します"
    " / the hash cannot be kept (plain SHA, MD5 …): the user sets a new password"
)
_CUT: Final = (
    "長いため本文の途中までを引き継ぎました。全文は添付ファイルにあります / text cut, the file is attached"
)
_CHANGED: Final = (
    "元の内容が変わっています。記事はそのままにしました / changed there; the article stays as it is"
)
_OTHER_RUN: Final = "同時に動いている別の引き継ぎが追加しました / added by another run at the same time"
_LONGEST_HASH: Final = 255
_ACCOUNT: Final = {name: field for name, field in fields.ACCOUNT.items() if name != "password"}

Outcome = Literal["created", "known", "skipped"]


class Line(NamedTuple):
    """A line of the report.

    Attributes:
        kind: ``account``, ``article`` or ``file``.
        source: its name in the old system, or its path below the folder.
        outcome: ``created`` (in a dry run, what would be), ``known`` (exists, and stays as it is) or ``skipped``.
        id: id of the article; 0 if there is none.
        notes: the reason, and warnings.
    """

    kind: str
    source: str
    outcome: Outcome
    id: int
    notes: tuple[str, ...]


class _Known(Exception):  # noqa: N818 - an outcome, not an error
    pass


@dataclass(eq=False)
class TakeOver:
    """One run.

    Args:
        mapped: the mapping file.
        sessions: factory of database sessions.
        search: search index to update.
        intake: validates and stores files.
        clock: clock of the application.
        dry_run: whether everything is validated and nothing stored.
        four_eyes: whether nobody may approve an own article.

    Raises:
        ConfigurationError: the operator is no administrator.
    """

    mapped: Mapped
    _: KW_ONLY
    sessions: sessionmaker[Session]
    search: SearchIndex
    intake: Intake
    clock: Clock
    dry_run: bool
    four_eyes: bool

    def __post_init__(self) -> None:
        self._hasher = PasswordHasher()
        with self.sessions() as session:
            people = session.scalars(select(User).where(User.active)).all()
            members: dict[int, set[int]] = defaultdict(set)
            for user_id, group_id in session.execute(select(GroupMember.user_id, GroupMember.group_id)):
                members[user_id].add(group_id)
            self._writers = {
                user.username: accounts.actor_of(user)._replace(groups=frozenset(members[user.id]))
                for user in people
            }
            self._usernames = set(session.scalars(select(User.username)))
            known = session.execute(select(TakenOver.source, TakenOver.content)).all()
        self._known = {row.source: row.content for row in known}
        self._contents = set(self._known.values())
        operator = self._writers.get(self.mapped.operator)
        if operator is None or not permissions.may_administer(operator):
            raise ConfigurationError(
                f"operator is {self.mapped.operator!r}; expected the user name of an active administrator",
                parameter="operator",
            )
        self._operator = operator

    def lines(self) -> Iterator[Line]:
        """Take over accounts, then articles, then files; yield a line for each.

        Raises:
            Problem: the files cannot be stored or scanned; run it again later.
        """
        for row in self.mapped.rows("accounts"):
            yield self._line("account", str(row.get("username", "")), partial(self._account, row))
        attached = self._attached()
        for row in self.mapped.rows("articles"):
            yield self._line("article", str(row.get("key", "")), partial(self._article, row, attached))
        root = self.mapped.path("folder", "path")
        if root is not None:
            for path in _files(root):
                yield self._line("file", _shown(path.relative_to(root)), partial(self._file, root, path))

    def _line(self, kind: str, source: str, work: Callable[[list[str]], int]) -> Line:
        notes: list[str] = []
        outcome: Outcome = "created"
        new = 0
        try:
            new = work(notes)
        except _Known as known:
            outcome = "known"
            notes += map(str, known.args)
        except Problem as problem:
            if problem.code in _STOPPING:
                raise
            outcome = "skipped"
            notes = [_reason(problem), *notes]
        except OSError as error:
            outcome = "skipped"
            notes.append(_reason(error))
        return Line(kind, source[:500], outcome, new, tuple(notes))

    @contextmanager
    def _transaction(self, source: str = "") -> Iterator[tuple[Session, datetime]]:
        """Run a transaction, which a dry run rolls back.

        Raises:
            _Known: a concurrent run has taken over ``source``.
        """
        try:
            with self.sessions() as session, session.begin() as transaction:
                yield session, datetime.fromtimestamp(self.clock.time(), UTC)
                if self.dry_run:
                    transaction.rollback()
        except IntegrityError:
            with self.sessions() as session:
                if session.get(TakenOver, _key(source)) is None:
                    raise
            raise _Known(_OTHER_RUN) from None

    # --- accounts ---------------------------------------------------------------------------------

    def _account(self, row: dict[str, Any], notes: list[str]) -> int:
        stored = str(row.pop("password_hash", ""))
        texts = {name: str(value).strip() for name, value in row.items()}
        values = take({**texts, "username": texts.get("username", "").lower()}, _ACCOUNT)
        if values["username"] in self._usernames:
            raise _Known
        if stored and (len(stored) > _LONGEST_HASH or not self._hasher.can_verify(stored)):
            notes.append(_WEAK)
            stored = ""
        with self._transaction() as (session, now):
            actor = accounts.register(session, **values, password_hash=stored, now=now)
            audit.append(
                session,
                self._operator,
                Fact("account.create", f"user {actor.username}", {"role": actor.role}),
                now=now,
            )
        self._usernames.add(actor.username)
        self._writers[actor.username] = actor
        return 0

    # --- articles of old tables ---------------------------------------------------------------------

    def _attached(self) -> Callable[[str], Sequence[Mapping[str, Any]]]:
        """Return how to find the attachments of an article: a CSV file is read once, a query asked each time."""
        section = self.mapped.sections.get("attachments", {})
        if "query" in section:
            return lambda key: list(self.mapped.rows("attachments", article=key))
        found: dict[str, list[Mapping[str, Any]]] = {}
        for row in self.mapped.rows("attachments"):
            found.setdefault(str(row.get("article", "")), []).append(row)
        return lambda key: found.get(key, ())

    def _article(
        self, row: dict[str, Any], attached: Callable[[str], Sequence[Mapping[str, Any]]], notes: list[str]
    ) -> int:
        key = str(row.get("key", ""))
        if not key:
            raise Problem("invalid", errors=[FieldError("key", "missing")])
        source = f"article {key}"
        content = json.dumps(row, default=str, ensure_ascii=False, sort_keys=True).encode()
        digest = self._new(source, content)
        files: dict[str, Accepted] = {}
        for file in attached(key):
            self._attach(file, files, notes)
        section = self.mapped.sections["articles"]
        body = str(row.get("body", ""))
        if section.get("html", False):
            body, _ = self._converted("html", body.encode(), notes)
        values: dict[str, Any] = {
            name: str(row.get(name, "")).strip() for name in ("title", "category", "summary", "site")
        }
        if values["category"] not in permissions.CATEGORIES and "category" in section.get("values", {}):
            notes.append(f"分類「{values['category']}」を「{section['values']['category']}」に替えました")
            values["category"] = section["values"]["category"]
        body = _LINK.sub(partial(_to_file, {name.casefold(): name for name in files}), body)
        return self._create(
            source,
            digest,
            {**values, "body": body, "tags": str(row.get("tags", ""))},
            files,
            author=self._author(str(row.get("author", "")), notes),
            updated=self._moment(row.get("updated"), notes),
            notes=notes,
        )

    def _attach(self, row: Mapping[str, Any], files: dict[str, Accepted], notes: list[str]) -> str:
        """Add a file; return its name here, or an empty text if it is not accepted."""
        name = str(row.get("name") or row.get("path") or "file")
        try:
            content = row.get("content")
            if content is None:
                root = self.mapped.path("attachments", "folder") or self.mapped.base
                content = _content(root, root / str(row.get("path", "")), self.intake.limit)
            accepted = self.intake.checked(name, bytes(content))
        except (OSError, Problem) as error:
            if isinstance(error, Problem) and error.code in _STOPPING:
                raise
            notes.append(f"添付「{name[:100]}」を引き継げません / file not taken over: {_reason(error)}")
            return ""
        if len(files) == article_attachments.MOST:
            notes.append(f"添付「{name[:100]}」を引き継げません / at most {len(files)} files for an article")
            return ""
        files[accepted.name] = accepted
        return accepted.name

    def _author(self, name: str, notes: list[str]) -> Actor:
        actor = self._writers.get(name.strip().lower())
        if actor is not None and permissions.may_write(actor):
            return actor
        if name:
            notes.append(
                f"not a writer here / 「{name[:64]}」は記事を書けないため、"
                f"{self._operator.display_name} の記事にしました"
            )
        return self._operator

    def _moment(self, value: object, notes: list[str]) -> datetime | None:
        """Return when an article was changed; ``None`` if nothing is given, or no moment of the past."""
        given = str("" if value is None else value).strip()
        if not given:
            return None
        try:
            moment = value if isinstance(value, datetime) else datetime.fromisoformat(given.replace("/", "-"))
            moment = (moment if moment.tzinfo else moment.replace(tzinfo=permissions.JST)).astimezone(UTC)
        except (ValueError, OverflowError):
            moment = None
        if moment is not None and moment.timestamp() <= self.clock.time():
            return moment
        notes.append(f"日時「{given[:40]}」を使えないため、今日の日付にしました / no usable date")
        return None

    # --- files of a folder ----------------------------------------------------------------------------

    def _file(self, root: Path, path: Path, notes: list[str]) -> int:
        place = path.relative_to(root)
        content = _content(root, path, self.intake.limit)
        digest = self._new(f"file {os.fsencode(place).hex()}", content)
        if digest in self._contents:
            raise _Known("同じ内容のファイルを引き継いでいます / same content as another file")
        original = self.intake.checked(_shown(Path(place.name)), content)
        *folders, _ = (_shown(Path(part)) for part in place.parts)
        section = self.mapped.sections["folder"]
        named = next((folder for folder in reversed(folders) if folder in permissions.CATEGORIES), "")
        kind = original.kind.name.lower()
        body, files = ("", {}) if kind not in {"docx", "xlsx"} else self._converted(kind, content, notes)
        if len(body) > _LONGEST:
            notes.append(_CUT)
            body = body[: body.rfind("\n", 0, _LONGEST)]
        label = original.name.replace("[", "_").replace("]", "_")
        link = f"[{label}](files/{quote(original.name, safe='')})"
        values = {
            "title": original.name.rpartition(".")[0][:200],
            "category": named or section["category"],
            "site": section.get("site", ""),
            "tags": ",".join(section.get("tags", ())),
            "body": f"{body}\n\n{'!' if original.kind.picture else ''}{link}\n",
        }
        return self._create(
            f"file {os.fsencode(place).hex()}",
            digest,
            values,
            {**files, original.name: original},
            author=self._author(section.get("author", ""), notes),
            place=folders,
            notes=notes,
        )

    def _converted(self, kind: str, content: bytes, notes: list[str]) -> tuple[str, dict[str, Accepted]]:
        """Return the text of a document in Markdown, and its pictures by name.

        Raises:
            Problem: ``invalid``: the document is damaged or exceeds a limit.
        """
        made = bounded_process.run(_PROGRAM, kind, content)
        if made is None:
            raise Problem("invalid", errors=[FieldError("file", "file-damaged")])
        if kind == "xlsx":
            return made.decode("utf-8"), {}
        parts = read_zip(made, export_import.LIMITS)
        files: dict[str, Accepted] = {}
        names = {
            name: self._attach({"name": name.removeprefix("files/"), "content": picture}, files, notes)
            for name, picture in parts.items()
            if name != "article.md"
        }
        return _LINK.sub(partial(_to_picture, names), parts["article.md"].decode("utf-8", "replace")), files

    # --- both -------------------------------------------------------------------------------------

    def _new(self, source: str, content: bytes) -> str:
        """Return the digest of what is taken over.

        Raises:
            _Known: it was taken over before.
        """
        digest = hashlib.sha256(content).hexdigest()
        before = self._known.get(_key(source))
        if before is not None:
            raise _Known(*(() if before == digest else (_CHANGED,)))
        return digest

    def _create(
        self,
        source: str,
        digest: str,
        given: Mapping[str, Any],
        files: dict[str, Accepted],
        *,
        author: Actor,
        place: Sequence[str] = (),
        updated: datetime | None = None,
        notes: list[str],
    ) -> int:
        values = take({**given, "body": printable(given["body"])}, fields.ARTICLE_FORM)
        kept = {name: self._kept(file) for name, file in files.items()}
        texts = {} if self.dry_run else dict(self._texts(kept.values()))
        with self._transaction(source) as (session, now):
            new = export_import.add_article(
                session, author, ImportedArticle(values, files), kept, search=self.search, now=now
            )
            for file in session.scalars(select(Attachment).where(Attachment.article_id == new)).all():
                if file.digest in texts:
                    attachment_texts.keep(session, file.id, texts[file.digest])
            self._place(session, new, place, notes)
            if self.mapped.publish and self.four_eyes and author.id == self._operator.id:
                notes.append("自分の記事は承認できないため、下書きにしました / left as a draft: four eyes")
            elif self.mapped.publish:
                self._publish(session, new, values, now=updated or now)
            if updated is not None:
                article, revision = session.get_one(Article, new), session.get_one(Revision, (new, 1))
                article.created_at = article.updated_at = revision.saved_at = updated
            session.add(TakenOver(source=_key(source), content=digest, article_id=new, at=now))
            fact = Fact(
                "article.create", f"article {new}", {"title": values["title"], "source": source[:500]}
            )
            audit.append(session, self._operator, fact, now=now)
        self._known[_key(source)] = digest
        self._contents.add(digest)
        return 0 if self.dry_run else new

    def _kept(self, file: Accepted) -> Stored:
        if not self.dry_run:
            return self.intake.keep(file)
        return Stored(file, hashlib.sha256(file.content).hexdigest(), "")

    def _texts(self, kept: Any) -> Iterator[tuple[str, str | None]]:
        for each in kept:
            if each.file.kind.type in attachment_texts.READABLE:
                yield (
                    each.digest,
                    attachment_texts.extract(self.intake.store, each.digest, each.file.kind.type),
                )

    def _place(self, session: Session, article_id: int, place: Sequence[str], notes: list[str]) -> None:
        """Put the article into the tree: the folders are its nodes."""
        parent = 0
        try:
            for name in (*place[: DEPTH - 1], " ".join(place[DEPTH - 1 :])[:100]):
                # The lock: another run may be adding the same folder.
                if name:
                    known = tree.nodes(session, lock=True)
                    found = (node.id for node in known if (node.parent, node.name) == (parent, name))
                    parent = next(found, 0) or tree.add(session, self._operator, name[:100], parent)
        except Problem as problem:
            notes.append(f"ツリーに置けません / no place in the tree: {_reason(problem)}")
        tree.place(session, self._operator, article_id, parent)

    def _publish(self, session: Session, article_id: int, values: dict[str, Any], *, now: datetime) -> None:
        """Publish an article as approved by the operator."""
        article = load_seen(session, self._operator, article_id)
        shown = {**values, "body": article.body, "tags": [tag.name for tag in article.tags]}
        articles.show(article, shown, status="published", number=1, now=now)
        session.get_one(Revision, (article_id, 1)).status = "published"
        step = {"step": "approve", "actor_id": self._operator.id, "taken_at": now}
        session.add(Review(article_id=article_id, revision=1, **step))


def _key(source: str) -> str:
    return hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()


def _shown(path: Path) -> str:
    """Return a path as people read it: names that are not UTF-8 are those of Japanese Windows."""
    encoded = os.fsencode(path)
    try:
        text = encoded.decode("utf-8")
    except UnicodeDecodeError:
        text = encoded.decode("cp932", "replace")
    return unicodedata.normalize("NFC", text)


def _files(root: Path) -> Iterator[Path]:
    """Yield everything below a folder that is no folder, in order; links are not followed."""
    for folder, folders, names in os.walk(root):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        folders.sort()
        yield from (Path(folder) / name for name in sorted([*names, *links]))


def _content(root: Path, path: Path, limit: int) -> bytes:
    """Return the content of a regular file below ``root``.

    Raises:
        OSError: the file cannot be read, is a link, or lies outside.
        Problem: ``invalid``: it is too large.
    """
    if not path.resolve().is_relative_to(root.resolve()):
        raise OSError(errno.EXDEV, "outside of the folder")
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "no regular file")
        content = file.read(limit + 1)
    if len(content) > limit:
        raise Problem("invalid", errors=[FieldError("file", "file-too-large", limit // 1_048_576)])
    return content


def _reason(error: Exception) -> str:
    """Return why something is not taken over, in both languages."""
    if isinstance(error, Problem):
        parts = (describe(error, language=language) for language in LANGUAGES)
        texts = [
            " ".join(f"{each['field']}: {each['message']}" for each in part.get("errors", ()))
            or part["detail"]
            for part in parts
        ]
        return " / ".join(texts)
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__


def _to_file(names: Mapping[str, str], found: re.Match[str]) -> str:
    """Point a link of the old system to the attachment of the same name."""
    name = names.get(unquote(found[2]).rpartition("/")[2].casefold())
    return found[0] if name is None else found[0].replace(found[2], f"files/{quote(name, safe='')}")


def _to_picture(names: Mapping[str, str], found: re.Match[str]) -> str:
    """Point a link to a picture of the document to its attachment; without one, leave the text of the link."""
    if not found[2].startswith("files/"):
        return found[0]
    name = names.get(found[2], "")
    return found[0].replace(found[2], f"files/{quote(name, safe='')}") if name else found[1]

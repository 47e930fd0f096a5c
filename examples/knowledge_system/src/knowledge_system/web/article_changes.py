"""Write operations shared by pages and API: one retried transaction each, followed by cache invalidation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial, wraps
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from flask import g, request
from sqlalchemy.orm import Session

from knowledge_system.background import mail_texts
from knowledge_system.background.mail_texts import MailTemplate
from knowledge_system.domain import people_csv, permissions
from knowledge_system.domain.permissions import Actor
from knowledge_system.domain.problems import FieldError, Problem
from knowledge_system.models import Article, Comment, User
from knowledge_system.services import (
    audit,
    audit_heads,
    export_import,
    idempotency,
    readers,
    reports,
    retention,
)
from knowledge_system.services.attachments import article_attachments, attachment_texts
from knowledge_system.services.attachments.upload_intake import Stored
from knowledge_system.services.audit import FIRST, Fact
from knowledge_system.services.audit_heads import Head
from knowledge_system.services.export_import import ImportedArticle
from knowledge_system.services.identity import accounts, groups, provider_accounts
from knowledge_system.services.knowledge import (
    article_queries,
    articles,
    comments,
    digests,
    drafts,
    following,
    review,
    tree,
)
from knowledge_system.services.knowledge.following import Event
from knowledge_system.services.operations import cdn
from knowledge_system.services.visibility import select_readers
from knowledge_system.web import current_request
from knowledge_system.web.sign_in import credentials
from mks_hardening.db import retry_on_serialization_failure

P = ParamSpec("P")
R = TypeVar("R")

_OF_STEP: Final[dict[str, Event]] = {"approve": "publish", "retire": "retire"}
"""Workflow steps that notify subscribers, with their event."""


@dataclass(slots=True)
class Change:
    """A change in its transaction: by whom, when, its entry in the audit log, and what follows the commit."""

    session: Session
    actor: Actor
    now: datetime
    fact: Fact | None = None
    afterwards: list[Callable[[], object]] = field(default_factory=list)

    def record(self, action: str, subject: str, detail: dict[str, Any]) -> None:
        """Record the change in the audit log, at the end of the transaction."""
        self.fact = Fact(action, subject, {**detail, "client": current_request.address()})

    def record_article(self, article_id: int, action: str, detail: dict[str, Any]) -> None:
        """Record a change of an article, and invalidate its cached pages after the commit."""
        self.record(action, f"article {article_id}", detail)
        self.afterwards.append(partial(current_request.services().catalogue.forget, article_id))

    def forget_all(self) -> None:
        """Invalidate every cached page after the commit."""
        self.afterwards.append(current_request.services().catalogue.forget_all)

    def mail(self, readers: Iterable[int], letter: MailTemplate) -> None:
        """Send a mail to each reader who wants one for each notice."""
        background = current_request.services().background
        if background is not None:
            for reader in readers:
                background.send_notice(self.session, reader, letter)

    def notify_subscribers(
        self, article_id: int, event: Event, *, said: str = "", already_notified: tuple[int, ...] = ()
    ) -> None:
        """Notify subscribers in the application and by mail."""
        title, readers = following.notify_subscribers(
            self.session,
            self.actor,
            article_id,
            event,
            said=said,
            already_notified=already_notified,
            now=self.now,
        )
        by, link = self.actor.display_name, _link(article_id)
        self.mail(readers, mail_texts.watched(event, title, by=by, said=said, link=link))


def _in_transaction(work: Callable[Concatenate[Change, P], R]) -> Callable[P, R]:
    """Run a change and its audit entry in one transaction, retried on serialization failures, and what follows."""

    @wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        sessions, claim = current_request.services().sessions, g.get("claim")
        actor, now = current_request.actor(), current_request.now()

        @retry_on_serialization_failure()
        def attempt() -> tuple[R, Change]:
            with sessions.begin() as session:
                change = Change(session, actor, now)
                done = work(change, *args, **kwargs)
                if change.fact is not None:
                    audit.append(session, actor, change.fact, now=now)
                if claim is not None:
                    idempotency.mark_changed(session, claim)
                return done, change

        done, change = attempt()
        for each in change.afterwards:
            each()
        return done

    return run


def _create(change: Change, values: dict[str, Any], *, draft: str = "") -> int:
    """Create an article, and discard the draft it was written in; return its id."""
    services, session, actor = current_request.services(), change.session, change.actor
    four_eyes = services.settings.four_eyes
    new = articles.create(session, actor, values, search=services.search, now=change.now, four_eyes=four_eyes)
    _saved(change, new, values, draft)
    change.record_article(new, "article.create", _of_article(values))
    return new


def _save(change: Change, article_id: int, values: dict[str, Any], *, draft: str = "") -> int | None:
    """Save an edit based on ``values["revision"]``, and discard the draft it was written in.

    Returns the revision of the version that waits for its approval, if there is one.
    """
    services = current_request.services()
    saved = articles.save(
        change.session,
        change.actor,
        article_id,
        values,
        revision=values["revision"],
        search=services.search,
        now=change.now,
        four_eyes=services.settings.four_eyes,
    )
    _saved(change, article_id, values, draft)
    change.record_article(article_id, "article.save", {**_of_article(values), "revision": saved})
    return change.session.get_one(Article, article_id).next_revision


def _saved(change: Change, article_id: int, values: dict[str, Any], draft: str) -> None:
    if values["status"] == "published":
        change.notify_subscribers(article_id, "publish")
    if draft:
        drafts.discard(change.session, change.actor, draft)


@_in_transaction
def store_draft(change: Change, form: str, revision: int, values: dict[str, str]) -> None:
    """Keep what the user has typed into an editor."""
    if not permissions.may_write(change.actor):
        raise Problem("forbidden")
    drafts.store(change.session, change.actor, form, revision, values, now=change.now)


@_in_transaction
def discard_draft(change: Change, form: str) -> None:
    """Remove what the user has typed into an editor."""
    drafts.discard(change.session, change.actor, form)


@_in_transaction
def delete_article(change: Change, article_id: int, revision: int | None) -> None:
    """Delete an article if it is still at ``revision``; ``None`` matches any revision."""
    services = current_request.services()
    articles.delete(
        change.session,
        change.actor,
        article_id,
        revision=revision,
        search=services.search,
        kept=services.settings.articles_kept,
        now=change.now,
    )
    change.record_article(article_id, "article.delete", {"revision": revision})


def _take_step(
    change: Change, article_id: int, *, step: str, revision: int, comment: str, files: str
) -> None:
    """Take a workflow step, and notify users in the application and by mail, in one transaction."""
    services, session, actor = current_request.services(), change.session, change.actor
    taken = review.take(
        session,
        actor,
        article_id,
        step,
        revision=revision,
        comment=comment,
        files=files,
        search=services.search,
        now=change.now,
        four_eyes=services.settings.four_eyes,
    )
    review.notify(session, actor, taken, now=change.now)
    by, link = actor.display_name, _link(article_id)
    change.mail(
        taken.readers, mail_texts.step_taken(taken.kind, taken.title, by=by, said=taken.said, link=link)
    )
    if event := _OF_STEP.get(step):
        change.notify_subscribers(article_id, event, said=comment, already_notified=taken.readers)
    change.record_article(article_id, f"article.{step}", {"revision": revision, "comment": comment})


create_article = _in_transaction(_create)
save_article = _in_transaction(_save)
take_step = _in_transaction(_take_step)


# For responses that contain the article: a read that failed after the commit would hide that the change was stored.


@_in_transaction
def create_and_read(change: Change, values: dict[str, Any]) -> dict[str, Any]:
    """Create an article; return it."""
    return _read(change, _create(change, values))


@_in_transaction
def save_and_read(change: Change, article_id: int, values: dict[str, Any]) -> dict[str, Any]:
    """Save an edit based on ``values["revision"]``; return the article."""
    _save(change, article_id, values)
    return _read(change, article_id)


@_in_transaction
def take_step_and_read(change: Change, article_id: int, values: dict[str, Any]) -> dict[str, Any]:
    """Take a workflow step; return the article."""
    _take_step(change, article_id, **values)
    return _read(change, article_id)


def _read(change: Change, article_id: int) -> dict[str, Any]:
    return article_queries.read(change.session, change.actor, article_id)


@_in_transaction
def restore(change: Change, article_id: int, number: int, *, on: int) -> None:
    """Save the text of an older revision as a draft, based on revision ``on``."""
    session, actor, search = change.session, change.actor, current_request.services().search
    text = review.text_of(session, actor, article_id, number)
    values = {**{name: text[name] for name in articles.TEXT}, "status": "draft"}
    articles.save(session, actor, article_id, values, revision=on, search=search, now=change.now)
    change.record_article(article_id, "article.restore", {"revision": number, "on": on})


@_in_transaction
def mark_notices_read(change: Change, article_id: int = 0) -> None:
    """Mark the user's notices as read: all, or those of one article."""
    review.mark_read(change.session, change.actor, article_id=article_id, now=change.now)
    change.afterwards.append(lambda: g.pop("actor"))  # with the number of unread notices


@_in_transaction
def add_comment(change: Change, article_id: int, body: str, *, parent: int = 0) -> int:
    """Add a comment, and notify those whom it concerns, in one transaction; return the id of the comment.

    Those are the people whom it mentions, the author, the writer of the comment it answers, and subscribers; each
    of them is notified once.
    """
    session, actor = change.session, change.actor
    new = comments.add(session, actor, article_id, body, parent=parent, now=change.now)
    article = session.get_one(Article, article_id)
    letter = mail_texts.commented(article.title, by=actor.display_name, body=body, link=_link(article_id))
    notified = {actor.id}

    def notify(kind: str, people: Sequence[int]) -> None:
        asked = select_readers(article_id).where(User.id.in_(people), User.id.not_in(notified))
        readers = tuple(session.scalars(asked))
        notified.update(readers)
        event = review.ReviewEvent(article_id, "", kind, body, readers)
        review.notify(session, actor, event, now=change.now)
        change.mail(readers, letter)

    notify("mention", comments.mentioned(session, actor, article, body))
    notify("comment", [article.author_id])
    if new.parent_id:
        notify("reply", [session.get_one(Comment, new.parent_id).author_id])
    change.notify_subscribers(article_id, "comment", said=body, already_notified=tuple(notified))
    change.record_article(article_id, "comment.create", {"comment": new.id})
    return new.id


@_in_transaction
def change_comment(change: Change, article_id: int, comment_id: int, body: str) -> None:
    """Change the text of a comment."""
    comments.change(change.session, change.actor, article_id, comment_id, body, now=change.now)
    change.record_article(article_id, "comment.change", {"comment": comment_id})


@_in_transaction
def remove_comment(change: Change, article_id: int, comment_id: int) -> None:
    """Remove a comment."""
    comments.remove(change.session, change.actor, article_id, comment_id, now=change.now)
    change.record_article(article_id, "comment.delete", {"comment": comment_id})


@_in_transaction
def record_audit_export(change: Change, asked: dict[str, Any]) -> Head:
    """Record that the user exports the audit log; return the newest entry before that."""
    head = audit_heads.newest(change.session) or Head(0, FIRST)
    change.record("audit.export", f"entries to {head.id}", {**asked, "head": head.hash})
    return head


def attach(article_id: int, files: Callable[[], Sequence[tuple[str, bytes]]]) -> list[dict[str, Any]]:
    """Attach files to an article, all or none; ``files`` is called only after the permission check."""
    services = current_request.services()
    with services.reads() as session:
        article_attachments.check_can_attach(session, current_request.actor(), article_id)
    return _attach(article_id, [services.intake.keep(each) for each in services.intake.checked_all(files())])


@_in_transaction
def _attach(change: Change, article_id: int, files: list[Stored]) -> list[dict[str, Any]]:
    session, background = change.session, current_request.services().background
    made = [
        article_attachments.attach(session, change.actor, article_id, each, now=change.now) for each in files
    ]
    for each in made:
        if background is not None and each["content_type"] in attachment_texts.READABLE:
            background.read_text.enqueue(session, each["id"])
    named = [{name: each[name] for name in ("id", "name", "sha256")} for each in made]
    change.record_article(article_id, "article.attach", {"files": named})
    return made


@_in_transaction
def detach(change: Change, article_id: int, attachment_id: int) -> None:
    """Remove a file from an article; changing an unapproved version this way makes the user one of its writers."""
    gone = article_attachments.detach(change.session, change.actor, article_id, attachment_id)
    if not (gone.waiting and gone.uploader_id == change.actor.id):
        articles.record_contributor(change.session, change.actor, article_id, now=change.now)
    change.record_article(article_id, "article.detach", {"id": attachment_id, "name": gone.name})


def import_articles(bundle: bytes) -> list[int]:
    """Import the articles of a bundle as drafts of the user, all or none; return their ids."""
    intake = current_request.services().intake
    if not permissions.sees_all(current_request.actor()):
        raise Problem("forbidden")
    ready = export_import.read(bundle, intake)
    return _import(ready, [{name: intake.keep(file) for name, file in each.files.items()} for each in ready])


@_in_transaction
def _import(change: Change, ready: Sequence[ImportedArticle], kept: list[dict[str, Stored]]) -> list[int]:
    search = current_request.services().search
    made = export_import.add(change.session, change.actor, ready, kept=kept, search=search, now=change.now)
    change.record("article.import", f"{len(made)} articles", {"ids": made})
    return made


@_in_transaction
def request_report(change: Change, values: dict[str, Any]) -> str:
    """Enqueue a report; return the id of its task, which is the same if a form is submitted twice.

    Raises:
        Problem: ``invalid`` if the month or site does not exist.
    """
    background = current_request.background()
    reports.check_subject(change.session, change.actor, values["kind"], values["subject"], now=change.now)
    return background.request_report(
        change.session,
        change.actor,
        kind=values["kind"],
        subject=values["subject"],
        file_format=values["format"],
        link=f"{request.url_root}reports",
        language=current_request.language(),
        key=values["key"],
    )


@_in_transaction
def register(change: Change, values: dict[str, Any]) -> Actor:
    """Add a user; send an invitation if there is no password."""
    if not values["password"] and not credentials.can_invite():
        raise Problem("invalid", errors=[FieldError("password", "missing")])
    added = accounts.register(change.session, **values, now=change.now)
    change.record("account.create", f"user {added.username}", {"role": added.role})
    if not values["password"]:
        change.afterwards.append(partial(credentials.invite, added.username))
    return added


def empty_cache() -> bool:
    """Invalidate every cached article and list; return whether the cache was reached."""
    _record("cache.empty", {})
    return current_request.services().catalogue.forget_all()


def purge_cdn(urls: Sequence[str], tags: Sequence[str], *, everything: bool) -> list[str]:
    """Record in the audit log that addresses and tags, or everything, are purged, and purge them from the CDN.

    Raises:
        Problem: as ``check`` and ``purge`` of ``services.operations.cdn``.
    """
    manager = cdn.check(current_request.services().cdn, urls, tags, everything=everything)
    # First: what cannot be recorded is not done.
    _record("cache.purge", {"urls": list(urls)[:20], "tags": list(tags)[:20], "everything": everything})
    return cdn.purge(manager, urls, tags, everything=everything)


@_in_transaction
def _record(change: Change, action: str, detail: dict[str, Any]) -> None:
    change.record(action, "cache", detail)


@_in_transaction
def import_people(change: Change, text: str, *, again: bool) -> None:
    """Create the accounts of a file, all or none, and mail the invitations through the task queue.

    A file that is sent again creates nothing, and so completes an import that was interrupted.

    Args:
        change: the change.
        text: the decoded file.
        again: whether to mail those again who were invited before and have no password yet.

    Raises:
        Problem: ``invalid`` if a line has an error, ``unavailable`` if mail is disabled.
    """
    session = change.session
    if not credentials.can_invite():
        raise Problem("unavailable")
    lines = people_csv.report(text, accounts.for_import(session))
    if any(line.errors for line in lines):
        raise Problem("invalid", errors=[FieldError("file", "csv-faults")])
    new = [line.values for line in lines if line.state == "new"]
    for each in new:
        values = {name: value for name, value in each.items() if name != "groups"}
        groups.join(session, accounts.register(session, **values, now=change.now).id, each["groups"])
    people = [{name: each[name] for name in ("username", "role", "groups")} for each in new]
    change.record("account.import", f"{len(people)} users", {"people": people})
    waiting = [line.values for line in lines if line.state == "waiting" and again]
    change.afterwards += [partial(credentials.invite, str(each["username"])) for each in (*new, *waiting)]


@_in_transaction
def change_group(change: Change, values: dict[str, Any]) -> None:
    """Create, change or remove a group; ``values`` are those of the form."""
    group, name, seen = values["group"], values["name"], values["seen"]
    if values["step"] == "remove":
        # The name in the form may be another one.
        removed, categories = groups.remove(change.session, group, seen=seen)
        change.record("group.remove", f"group {removed}", {"name": removed, "category": categories})
    else:
        detail = {"name": name, "members": sorted(values["members"])}
        before = groups.save(change.session, group, name, values["members"], seen=seen)
        if before is not None:
            detail |= {"name_before": before.name, "members_before": list(before.members)}
        change.record("group.save", f"group {name}", detail)
    change.forget_all()  # who may approve is kept with each article


@_in_transaction
def set_approvers(change: Change, wanted: dict[str, int], *, seen: str) -> None:
    """Set the approving group of each category; 0 for every reviewer."""
    groups.set_approvers(change.session, wanted, seen=seen)
    names = {group.id: group.name for group in groups.groups(change.session)}
    chosen = {category: names[group] for category, group in wanted.items() if group}
    change.record("group.approvers", "groups", chosen)
    change.forget_all()


@_in_transaction
def restrict(change: Change, kind: str, subject: str, wanted: Sequence[int], *, seen: str) -> None:
    """Restrict an article, a category or a node of the tree to groups; without one, open it to everybody."""
    before, after = readers.restrict(change.session, change.actor, kind, subject, wanted, seen=seen)
    change.record("group.readers", f"{kind} {subject}", {"groups": after, "groups_before": before})
    change.forget_all()


@_in_transaction
def change_account(change: Change, username: str, values: dict[str, Any]) -> None:
    """Change an account; deactivating it ends all of its sessions immediately."""
    active, by = values["active"] == "on", str(change.actor.id)
    changed = {**values, "active": active}
    before = accounts.change(change.session, change.actor, username, **changed, now=change.now)
    detail = {"role": values["role"], "role_before": before.role}
    change.record(
        "account.change", f"user {username}", {**detail, "active": active, "active_before": before.active}
    )
    if not active:  # after the commit: a concurrent sign-in checks the account again
        end = current_request.services().sign_in.sign_out_disabled
        change.afterwards.append(
            partial(end, str(before.user_id), actor=by, reason="the account was deactivated")
        )
    change.forget_all()  # the name is shown on articles, comments and lists


@_in_transaction
def unlink_account(change: Change, username: str) -> None:
    """Remove the link of an account to the identity provider, and end its sessions."""
    user_id = accounts.id_of(change.session, username)
    if not provider_accounts.unlink(change.session, user_id):
        raise Problem("not-found")
    change.record("account.unlink", f"user {username}", {})
    change.afterwards.append(partial(current_request.services().end_sessions, str(user_id)))


@_in_transaction
def hand_over(change: Change, leaver: str, successor: str) -> None:
    """Make another user the author of all articles of a deactivated account."""
    number = retention.hand_over(change.session, leaver, successor)
    change.record("account.hand-over", f"user {leaver}", {"name": successor, "articles": number})
    change.forget_all()


@_in_transaction
def choose_language(change: Change, language: str) -> None:
    """Store the user's language for pages and mails."""
    if change.actor.language != language:
        accounts.set_language(change.session, change.actor.id, language)


@_in_transaction
def choose_mails(change: Change, mails: str) -> None:
    """Store how the user gets notices by mail."""
    digests.choose(change.session, change.actor.id, mails)


@_in_transaction
def add_node(change: Change, name: str, parent: int) -> int:
    """Add a node to the tree; return its id."""
    change.record("tree.add", "tree", {"name": name})
    return tree.add(change.session, change.actor, name, parent)


@_in_transaction
def change_node(change: Change, node_id: int, values: dict[str, Any]) -> None:
    """Rename, move or remove a node of the tree; ``values`` are those of the form."""
    step, name = values["step"], values["name"]
    if step == "rename" and not name:
        raise Problem("invalid", errors=[FieldError("name", "missing")])
    before = tree.change(change.session, change.actor, node_id, **values)
    if step == "rename":
        change.record("tree.rename", "tree", {"name": name, "name_before": before})
    else:
        change.record("tree.remove" if step == "remove" else "tree.move", "tree", {"name": before})
    change.forget_all()  # paths are shown on articles, and lists follow them


@_in_transaction
def place_article(change: Change, article_id: int, node_id: int) -> None:
    """Give an article its place in the tree; 0 for none."""
    tree.place(change.session, change.actor, article_id, node_id)
    change.record_article(article_id, "article.place", {"node": node_id})


@_in_transaction
def favour(change: Change, article_id: int, *, on: bool) -> None:
    """Add or remove a favourite."""
    following.favour(change.session, change.actor, article_id, on=on, now=change.now)


@_in_transaction
def watch(change: Change, kind: str, subject: str, *, on: bool) -> None:
    """Subscribe to or unsubscribe from an article, tag or site."""
    following.watch(change.session, change.actor, kind, subject, on=on, now=change.now)


def once(key: str, fingerprint: str, work: Callable[[], str]) -> tuple[str, bool]:
    """Run an operation once per idempotency key.

    Args:
        key: idempotency key, equal for every retry.
        fingerprint: digest of the request.
        work: runs the operation and returns the response to store.

    Returns:
        The response of the first run, and whether it was stored before.

    Raises:
        Problem: as in ``idempotency.claim``, and whatever ``work`` raises.
    """
    sessions = current_request.services().sessions
    mine = idempotency.claim(
        sessions, current_request.actor().id, key, fingerprint, now=current_request.now()
    )
    if mine.answer is not None:
        return mine.answer, True
    g.claim = mine
    try:
        answer = work()
    except BaseException:
        idempotency.release(sessions, mine)
        raise
    idempotency.keep_answer(sessions, mine, answer)
    return answer, False


def _of_article(values: dict[str, Any]) -> dict[str, Any]:
    return {"title": values["title"], "status": values["status"]}


def _link(article_id: int) -> str:
    return f"{request.url_root}articles/{article_id}"

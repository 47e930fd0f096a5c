"""Write operations shared by pages and API: one retried transaction each, followed by cache invalidation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

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
    audit_export,
    export_import,
    idempotency,
    readers,
    reports,
    retention,
)
from knowledge_system.services.attachments import article_attachments, attachment_texts
from knowledge_system.services.audit import FIRST, Fact
from knowledge_system.services.audit_export import AuditHead
from knowledge_system.services.identity import accounts, groups, provider_accounts
from knowledge_system.services.knowledge import articles, comments, digests, drafts, following, review, tree
from knowledge_system.services.knowledge.following import Event
from knowledge_system.services.operations import cdn
from knowledge_system.services.visibility import select_readers
from knowledge_system.web import current_request
from knowledge_system.web.sign_in import credentials
from mks_hardening.db import retry_on_serialization_failure

R = TypeVar("R")

_OF_STEP: Final[dict[str, Event]] = {"approve": "publish", "retire": "retire"}
"""Workflow steps that notify subscribers, with their event."""


def create_article(values: dict[str, Any], *, draft: str = "") -> int:
    """Create an article, and discard the draft it was written in; return its id."""
    services, actor, now = current_request.services(), current_request.actor(), current_request.now()

    def create(session: Session) -> int:
        new = articles.create(
            session, actor, values, search=services.search, now=now, four_eyes=services.settings.four_eyes
        )
        if values["status"] == "published":
            _notify_subscribers(session, new, "publish")
        if draft:
            drafts.discard(session, actor, draft)
        return new

    new = _transaction(create, lambda new: Fact("article.create", f"article {new}", _of_article(values)))
    services.catalogue.forget(new)
    return new


def save_article(article_id: int, values: dict[str, Any], *, draft: str = "") -> None:
    """Save an edit based on ``values["revision"]``, and discard the draft it was written in."""
    services, actor, now = current_request.services(), current_request.actor(), current_request.now()
    revision = values["revision"]

    def save(session: Session) -> int:
        saved = articles.save(
            session,
            actor,
            article_id,
            values,
            revision=revision,
            search=services.search,
            now=now,
            four_eyes=services.settings.four_eyes,
        )
        if values["status"] == "published":
            _notify_subscribers(session, article_id, "publish")
        if draft:
            drafts.discard(session, actor, draft)
        return saved

    _transaction(
        save,
        lambda saved: Fact(
            "article.save", f"article {article_id}", {**_of_article(values), "revision": saved}
        ),
    )
    services.catalogue.forget(article_id)


def store_draft(form: str, revision: int, values: dict[str, str]) -> None:
    """Keep what the user has typed into an editor."""
    actor, now = current_request.actor(), current_request.now()
    if not permissions.may_write(actor):
        raise Problem("forbidden")
    _transaction(lambda session: drafts.store(session, actor, form, revision, values, now=now))


def discard_draft(form: str) -> None:
    """Remove what the user has typed into an editor."""
    actor = current_request.actor()
    _transaction(lambda session: drafts.discard(session, actor, form))


def delete_article(article_id: int, revision: int | None) -> None:
    """Delete an article if it is still at ``revision``; ``None`` matches any revision."""
    services, actor, now = current_request.services(), current_request.actor(), current_request.now()
    _transaction(
        lambda session: articles.delete(
            session,
            actor,
            article_id,
            revision=revision,
            search=services.search,
            kept=services.settings.articles_kept,
            now=now,
        ),
        lambda _none: Fact("article.delete", f"article {article_id}", {"revision": revision}),
    )
    services.catalogue.forget(article_id)


def take_step(article_id: int, *, step: str, revision: int, comment: str, files: str) -> None:
    """Take a workflow step, and notify users in the application and by mail, in one transaction."""
    services, actor, now = current_request.services(), current_request.actor(), current_request.now()
    link = f"{request.url_root}articles/{article_id}"

    def take(session: Session) -> None:
        review_event = review.take(
            session,
            actor,
            article_id,
            step,
            revision=revision,
            comment=comment,
            files=files,
            search=services.search,
            now=now,
            four_eyes=services.settings.four_eyes,
        )
        review.notify(session, actor, review_event, now=now)
        kind, title, said = review_event.kind, review_event.title, review_event.said
        letter = mail_texts.step_taken(kind, title, by=actor.display_name, said=said, link=link)
        _mail(session, review_event.readers, letter)
        event = _OF_STEP.get(step)
        if event:
            _notify_subscribers(
                session, article_id, event, said=comment, already_notified=review_event.readers
            )

    _transaction(
        take,
        lambda _none: Fact(
            f"article.{step}", f"article {article_id}", {"revision": revision, "comment": comment}
        ),
    )
    services.catalogue.forget(article_id)


def restore(article_id: int, number: int, *, on: int) -> None:
    """Save the text of an older revision as a draft, based on revision ``on``."""
    services, actor, now = current_request.services(), current_request.actor(), current_request.now()

    def save(session: Session) -> None:
        text = review.text_of(session, actor, article_id, number)
        values = {**{name: text[name] for name in articles.TEXT}, "status": "draft"}
        articles.save(session, actor, article_id, values, revision=on, search=services.search, now=now)

    _transaction(
        save, lambda _none: Fact("article.restore", f"article {article_id}", {"revision": number, "on": on})
    )
    services.catalogue.forget(article_id)


def mark_notices_read(article_id: int = 0) -> None:
    """Mark the user's notices as read: all, or those of one article."""
    actor, now = current_request.actor(), current_request.now()
    _transaction(lambda session: review.mark_read(session, actor, article_id=article_id, now=now))
    g.pop("actor")  # with the number of unread notices


def add_comment(article_id: int, body: str, *, parent: int = 0) -> int:
    """Add a comment, and notify those whom it concerns, in one transaction; return the id of the comment.

    Those are the people whom it mentions, the author, the writer of the comment it answers, and subscribers; each
    of them is notified once.
    """
    actor, now = current_request.actor(), current_request.now()
    link = f"{request.url_root}articles/{article_id}"

    def add(session: Session) -> int:
        new = comments.add(session, actor, article_id, body, parent=parent, now=now)
        article = session.get_one(Article, article_id)
        notified = {actor.id}

        def notify(kind: str, people: Sequence[int]) -> None:
            asked = select_readers(article_id).where(User.id.in_(people), User.id.not_in(notified))
            readers = tuple(session.scalars(asked))
            notified.update(readers)
            review.notify(session, actor, review.ReviewEvent(article_id, "", kind, body, readers), now=now)
            letter = mail_texts.commented(article.title, by=actor.display_name, body=body, link=link)
            _mail(session, readers, letter)

        notify("mention", comments.mentioned(session, actor, article, body))
        notify("comment", [article.author_id])
        if new.parent_id:
            notify("reply", [session.get_one(Comment, new.parent_id).author_id])
        _notify_subscribers(session, article_id, "comment", said=body, already_notified=tuple(notified))
        return new.id

    new = _transaction(add, lambda new: Fact("comment.create", f"article {article_id}", {"comment": new}))
    current_request.services().catalogue.forget(article_id)
    return new


def change_comment(article_id: int, comment_id: int, body: str) -> None:
    """Change the text of a comment."""
    actor, now = current_request.actor(), current_request.now()
    _transaction(
        lambda session: comments.change(session, actor, article_id, comment_id, body, now=now),
        lambda _none: Fact("comment.change", f"article {article_id}", {"comment": comment_id}),
    )
    current_request.services().catalogue.forget(article_id)


def remove_comment(article_id: int, comment_id: int) -> None:
    """Remove a comment."""
    actor, now = current_request.actor(), current_request.now()
    _transaction(
        lambda session: comments.remove(session, actor, article_id, comment_id, now=now),
        lambda _none: Fact("comment.delete", f"article {article_id}", {"comment": comment_id}),
    )
    current_request.services().catalogue.forget(article_id)


def record_audit_export(asked: dict[str, Any]) -> AuditHead:
    """Record that the user exports the audit log; return the newest entry before that."""

    def head(session: Session) -> AuditHead:
        return audit_export.newest(session) or AuditHead(0, FIRST)

    return _transaction(
        head, lambda found: Fact("audit.export", f"entries to {found.id}", {**asked, "head": found.hash})
    )


def attach(article_id: int, files: Callable[[], Sequence[tuple[str, bytes]]]) -> list[dict[str, Any]]:
    """Attach files to an article, all or none; ``files`` is called only after the permission check."""
    services, actor, now = current_request.services(), current_request.actor(), current_request.now()
    with services.sessions() as session:
        article_attachments.check_can_attach(session, actor, article_id)
    stored = [services.intake.keep(each) for each in services.intake.checked_all(files())]

    def attach_all(session: Session) -> list[dict[str, Any]]:
        made = [article_attachments.attach(session, actor, article_id, each, now=now) for each in stored]
        for each in made:
            if services.background is not None and each["content_type"] in attachment_texts.READABLE:
                services.background.read_text.enqueue(session, each["id"])
        return made

    made = _transaction(
        attach_all,
        lambda made: Fact(
            "article.attach",
            f"article {article_id}",
            {"files": [{name: each[name] for name in ("id", "name", "sha256")} for each in made]},
        ),
    )
    services.catalogue.forget(article_id)
    return made


def detach(article_id: int, attachment_id: int) -> None:
    """Remove a file from an article; changing an unapproved version this way makes the user one of its writers."""
    actor, now = current_request.actor(), current_request.now()

    def remove(session: Session) -> str:
        gone = article_attachments.detach(session, actor, article_id, attachment_id)
        if not (gone.waiting and gone.uploader_id == actor.id):
            articles.record_contributor(session, actor, article_id, now=now)
        return gone.name

    _transaction(
        remove,
        lambda name: Fact("article.detach", f"article {article_id}", {"id": attachment_id, "name": name}),
    )
    current_request.services().catalogue.forget(article_id)


def import_articles(bundle: bytes) -> list[int]:
    """Import the articles of a bundle as drafts of the user, all or none; return their ids."""
    services, actor, now = current_request.services(), current_request.actor(), current_request.now()
    if not permissions.sees_all(actor):
        raise Problem("forbidden")
    ready = export_import.read(bundle, services.intake)
    kept = [{name: services.intake.keep(file) for name, file in each.files.items()} for each in ready]
    return _transaction(
        lambda session: export_import.add(session, actor, ready, kept=kept, search=services.search, now=now),
        lambda made: Fact("article.import", f"{len(made)} articles", {"ids": made}),
    )


def request_report(values: dict[str, Any]) -> str:
    """Enqueue a report; return the id of its task, which is the same if a form is submitted twice.

    Raises:
        Problem: ``invalid`` if the month or site does not exist.
    """
    background, actor, now = current_request.background(), current_request.actor(), current_request.now()
    link, language = f"{request.url_root}reports", current_request.language()

    def ask(session: Session) -> str:
        reports.check_subject(session, actor, values["kind"], values["subject"], now=now)
        return background.request_report(
            session,
            actor,
            kind=values["kind"],
            subject=values["subject"],
            file_format=values["format"],
            link=link,
            language=language,
            key=values["key"],
        )

    return _transaction(ask)


def register(values: dict[str, Any]) -> Actor:
    """Add a user; send an invitation if there is no password."""
    now = current_request.now()
    if not values["password"] and not credentials.can_invite():
        raise Problem("invalid", errors=[FieldError("password", "missing")])
    added = _transaction(
        lambda session: accounts.register(session, **values, now=now),
        lambda added: Fact("account.create", f"user {added.username}", {"role": added.role}),
    )
    if not values["password"]:
        credentials.invite(added.username)
    return added


def empty_cache() -> bool:
    """Invalidate every cached article and list; return whether the cache was reached."""
    _transaction(lambda _session: None, lambda _none: Fact("cache.empty", "cache", {}))
    return current_request.services().catalogue.forget_all()


def purge_cdn(urls: Sequence[str], tags: Sequence[str], *, everything: bool) -> list[str]:
    """Record in the audit log that addresses and tags, or everything, are purged, and purge them from the CDN.

    Raises:
        Problem: as ``check`` and ``purge`` of ``services.operations.cdn``.
    """
    manager = cdn.check(current_request.services().cdn, urls, tags, everything=everything)
    # First: what cannot be recorded is not done.
    asked = {"urls": list(urls)[:20], "tags": list(tags)[:20], "everything": everything}
    _transaction(lambda _session: None, lambda _none: Fact("cache.purge", "cache", asked))
    return cdn.purge(manager, urls, tags, everything=everything)


def import_people(text: str, *, again: bool) -> None:
    """Create the accounts of a file, all or none, and mail the invitations through the task queue.

    A file that is sent again creates nothing, and so completes an import that was interrupted.

    Args:
        text: the decoded file.
        again: whether to mail those again who were invited before and have no password yet.

    Raises:
        Problem: ``invalid`` if a line has an error, ``unavailable`` if mail is disabled.
    """
    now = current_request.now()
    if not credentials.can_invite():
        raise Problem("unavailable")

    def add(session: Session) -> tuple[list[dict[str, Any]], list[str]]:
        lines = people_csv.report(text, accounts.for_import(session))
        if any(line.errors for line in lines):
            raise Problem("invalid", errors=[FieldError("file", "csv-faults")])
        new = [line.values for line in lines if line.state == "new"]
        for each in new:
            values = {name: value for name, value in each.items() if name != "groups"}
            groups.join(session, accounts.register(session, **values, now=now).id, each["groups"])
        waiting = [line.values for line in lines if line.state == "waiting" and again]
        people = [{name: each[name] for name in ("username", "role", "groups")} for each in new]
        return people, [str(each["username"]) for each in waiting]

    new, waiting = _transaction(
        add, lambda added: Fact("account.import", f"{len(added[0])} users", {"people": added[0]})
    )
    for username in (*(str(each["username"]) for each in new), *waiting):
        credentials.invite(username)


def change_group(values: dict[str, Any]) -> None:
    """Create, change or remove a group; ``values`` are those of the form."""
    group, name, step = values["group"], values["name"], values["step"]

    def change(session: Session) -> Fact:
        if step == "remove":
            removed, categories = groups.remove(
                session, group, seen=values["seen"]
            )  # the name in the form may be another one
            return Fact("group.remove", f"group {removed}", {"name": removed, "category": categories})
        detail = {"name": name, "members": sorted(values["members"])}
        before = groups.save(session, group, name, values["members"], seen=values["seen"])
        if before is not None:
            detail |= {"name_before": before.name, "members_before": list(before.members)}
        return Fact("group.save", f"group {name}", detail)

    _transaction(change, lambda fact: fact)
    current_request.services().catalogue.forget_all()  # who may approve is kept with each article


def set_approvers(wanted: dict[str, int], *, seen: str) -> None:
    """Set the approving group of each category; 0 for every reviewer."""

    def change(session: Session) -> dict[str, str]:
        groups.set_approvers(session, wanted, seen=seen)
        names = {group.id: group.name for group in groups.groups(session)}
        return {category: names[group] for category, group in wanted.items() if group}

    _transaction(change, lambda chosen: Fact("group.approvers", "groups", chosen))
    current_request.services().catalogue.forget_all()


def restrict(kind: str, subject: str, wanted: Sequence[int], *, seen: str) -> None:
    """Restrict an article, a category or a node of the tree to groups; without one, open it to everybody."""
    actor = current_request.actor()

    def fact(names: tuple[list[str], list[str]]) -> Fact:
        before, after = names
        return Fact("group.readers", f"{kind} {subject}", {"groups": after, "groups_before": before})

    _transaction(lambda session: readers.restrict(session, actor, kind, subject, wanted, seen=seen), fact)
    current_request.services().catalogue.forget_all()


def change_account(username: str, values: dict[str, Any]) -> None:
    """Change an account; deactivating it ends all of its sessions immediately."""
    actor, active = current_request.actor(), values["active"] == "on"
    changed = {**values, "active": active}

    def fact(before: accounts.Changed) -> Fact:
        detail = {"role": values["role"], "role_before": before.role}
        detail |= {"active": active, "active_before": before.active}
        return Fact("account.change", f"user {username}", detail)

    now = current_request.now()
    before = _transaction(lambda session: accounts.change(session, actor, username, **changed, now=now), fact)
    if not active:  # after the commit: a concurrent sign-in checks the account again
        current_request.services().sign_in.sign_out_disabled(
            str(before.user_id), actor=str(actor.id), reason="the account was deactivated"
        )
    current_request.services().catalogue.forget_all()  # the name is shown on articles, comments and lists


def unlink_account(username: str) -> None:
    """Remove the link of an account to the identity provider, and end its sessions."""

    def unlink(session: Session) -> int:
        user_id = accounts.id_of(session, username)
        if not provider_accounts.unlink(session, user_id):
            raise Problem("not-found")
        return user_id

    user_id = _transaction(unlink, lambda _user_id: Fact("account.unlink", f"user {username}", {}))
    current_request.services().end_sessions(str(user_id))


def hand_over(leaver: str, successor: str) -> None:
    """Make another user the author of all articles of a deactivated account."""
    _transaction(
        lambda session: retention.hand_over(session, leaver, successor),
        lambda number: Fact("account.hand-over", f"user {leaver}", {"name": successor, "articles": number}),
    )
    current_request.services().catalogue.forget_all()


def choose_language(language: str) -> None:
    """Store the user's language for pages and mails."""
    actor = current_request.actor()
    if actor.language != language:
        _transaction(lambda session: accounts.set_language(session, actor.id, language))


def choose_mails(mails: str) -> None:
    """Store how the user gets notices by mail."""
    actor = current_request.actor()
    _transaction(lambda session: digests.choose(session, actor.id, mails))


def add_node(name: str, parent: int) -> int:
    """Add a node to the tree; return its id."""
    actor = current_request.actor()
    return _transaction(
        lambda session: tree.add(session, actor, name, parent),
        lambda _new: Fact("tree.add", "tree", {"name": name}),
    )


def change_node(node_id: int, values: dict[str, Any]) -> None:
    """Rename, move or remove a node of the tree; ``values`` are those of the form."""
    actor, step = current_request.actor(), values["step"]
    if step == "rename" and not values["name"]:
        raise Problem("invalid", errors=[FieldError("name", "missing")])
    kind = step if step in {"rename", "remove"} else "move"
    _transaction(
        lambda session: tree.change(session, actor, node_id, **values),
        lambda before: Fact(
            f"tree.{kind}",
            "tree",
            {"name": values["name"], "name_before": before} if kind == "rename" else {"name": before},
        ),
    )
    current_request.services().catalogue.forget_all()  # paths are shown on articles, and lists follow them


def place_article(article_id: int, node_id: int) -> None:
    """Give an article its place in the tree; 0 for none."""
    actor = current_request.actor()
    _transaction(
        lambda session: tree.place(session, actor, article_id, node_id),
        lambda _none: Fact("article.place", f"article {article_id}", {"node": node_id}),
    )
    current_request.services().catalogue.forget(article_id)


def favour(article_id: int, *, on: bool) -> None:
    """Add or remove a favourite."""
    actor, now = current_request.actor(), current_request.now()
    _transaction(lambda session: following.favour(session, actor, article_id, on=on, now=now))


def watch(kind: str, subject: str, *, on: bool) -> None:
    """Subscribe to or unsubscribe from an article, tag or site."""
    actor, now = current_request.actor(), current_request.now()
    _transaction(lambda session: following.watch(session, actor, kind, subject, on=on, now=now))


def _notify_subscribers(
    session: Session, article_id: int, event: Event, *, said: str = "", already_notified: tuple[int, ...] = ()
) -> None:
    """Notify subscribers in the application and by mail, in the transaction of the change."""
    actor, now = current_request.actor(), current_request.now()
    title, readers = following.notify_subscribers(
        session, actor, article_id, event, said=said, already_notified=already_notified, now=now
    )
    link = f"{request.url_root}articles/{article_id}"
    _mail(session, readers, mail_texts.watched(event, title, by=actor.display_name, said=said, link=link))


def _mail(session: Session, readers: Iterable[int], letter: MailTemplate) -> None:
    """Send a mail to each reader who wants one for each notice, in the transaction of the change."""
    background = current_request.services().background
    if background is not None:
        for reader in readers:
            background.send_notice(session, reader, letter)


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


def _transaction(change: Callable[[Session], R], audit_fact: Callable[[R], Fact] | None = None) -> R:
    """Run a change and its audit entry in one transaction, retried on serialization failures."""
    sessions, claim = current_request.services().sessions, g.get("claim")
    actor, now, client = current_request.actor(), current_request.now(), current_request.address()

    @retry_on_serialization_failure()
    def attempt() -> R:
        with sessions.begin() as session:
            done = change(session)
            if audit_fact is not None:
                fact = audit_fact(done)
                detail = {**fact.detail, "client": client}
                audit.append(session, actor, fact._replace(detail=detail), now=now)
            if claim is not None:
                idempotency.mark_changed(session, claim)
            return done

    return attempt()

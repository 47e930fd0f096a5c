"""Groups of people, and the groups that approve the articles of a category."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from knowledge_system.domain.problems import FieldError, Problem
from knowledge_system.models import CategoryApprovers, Group, GroupMember, Reader, User
from knowledge_system.services.identity import accounts
from knowledge_system.services.insert_if_missing import add_missing

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


class GroupInfo(NamedTuple):
    """A group, with the user names and display names of its members."""

    id: int
    name: str
    members: dict[str, str]

    @property
    def seen(self) -> str:
        """Fingerprint of name and members, to detect concurrent changes."""
        return accounts.fingerprint(self.name, *self.members)


def groups(session: Session) -> list[GroupInfo]:
    """Return all groups with their members, by name."""
    named = session.scalars(select(Group).order_by(Group.name))
    found = {group.id: GroupInfo(group.id, group.name, {}) for group in named}
    asked = select(GroupMember.group_id, User.username, User.display_name).order_by(User.username)
    for row in session.execute(asked.join(User, User.id == GroupMember.user_id)):
        found[row.group_id].members[row.username] = row.display_name
    return list(found.values())


def save(
    session: Session, group_id: int, name: str, usernames: Iterable[str], *, seen: str = ""
) -> GroupInfo | None:
    """Create a group (``group_id`` 0) or replace its name and members; return the group as it was before.

    Raises:
        Problem: ``not-found``, ``no-such-user``, ``invalid`` if another group has the name, ``conflict`` if the
            group has changed since ``seen``.
    """
    group = session.get(Group, group_id, with_for_update=True) if group_id else Group()
    if group is None:
        raise Problem("not-found")
    wanted = set(usernames)
    people = session.scalars(select(User.id).where(User.username.in_(wanted))).all()
    if len(people) != len(wanted):
        raise Problem("no-such-user")
    before = find(session, group_id) if group_id else None
    if before is not None and seen not in {"", before.seen}:
        raise Problem("conflict")
    group.name = name
    session.add(group)
    try:
        session.flush()
    except IntegrityError as error:
        raise Problem("invalid", errors=[FieldError("name", "repeated-group")]) from error
    session.execute(delete(GroupMember).where(GroupMember.group_id == group.id))
    session.add_all(GroupMember(group_id=group.id, user_id=person) for person in people)
    return before


def join(session: Session, user_id: int, names: Iterable[str]) -> None:
    """Add a user to groups, which are created if they do not exist."""
    wanted = sorted(names)
    if not wanted:
        return
    add_missing(session, Group, [{"name": name} for name in wanted])
    found = session.scalars(select(Group.id).where(Group.name.in_(wanted)))
    add_missing(session, GroupMember, [{"group_id": group, "user_id": user_id} for group in found])


def remove(session: Session, group_id: int, *, seen: str = "") -> tuple[str, list[str]]:
    """Remove a group; return its name and its categories, which every reviewer approves again.

    Raises:
        Problem: ``not-found``; ``conflict`` if the group has changed since ``seen``; ``invalid`` while something is
            restricted to the group, which would open it.
    """
    group = session.get(Group, group_id, with_for_update=True)
    if group is None:
        raise Problem("not-found")
    if seen not in {"", find(session, group_id).seen}:
        raise Problem("conflict")
    approves = [category for category, each in approvers(session).items() if each == group_id]
    if session.scalar(select(Reader.id).where(Reader.group_id == group_id).limit(1)):
        raise Problem("invalid", errors=[FieldError("name", "still-restricted")])
    for table in (CategoryApprovers, GroupMember):
        session.execute(delete(table).where(table.group_id == group_id))
    session.execute(delete(Group).where(Group.id == group_id))
    return group.name, approves


def find(session: Session, group_id: int) -> GroupInfo:
    """Return a group with its members.

    Raises:
        Problem: ``not-found``.
    """
    found = next((group for group in groups(session) if group.id == group_id), None)
    if found is None:
        raise Problem("not-found")
    return found


def approvers(session: Session) -> dict[str, int]:
    """Return the approving group of each category that has one."""
    return {row.category: row.group_id for row in session.scalars(select(CategoryApprovers))}


def seen_approvers(chosen: Mapping[str, int]) -> str:
    """Return the fingerprint of the groups that approve, to detect concurrent changes."""
    return accounts.fingerprint(*sorted(chosen.items()))


def set_approvers(session: Session, wanted: Mapping[str, int], *, seen: str = "") -> None:
    """Set the approving group of each category; 0 for every reviewer.

    Raises:
        Problem: ``not-found``: a group does not exist; ``conflict``: the choice has changed since ``seen``.
    """
    chosen = {category: group for category, group in wanted.items() if group}
    # The second of two administrators waits here, and sees the choice of the first below.
    known = set(session.scalars(select(Group.id).order_by(Group.id).with_for_update()))
    if not known.issuperset(chosen.values()):
        raise Problem("not-found")
    before = approvers(session)
    if chosen != before and seen not in {"", seen_approvers(before)}:
        raise Problem("conflict")
    session.execute(delete(CategoryApprovers))
    session.add_all(
        CategoryApprovers(category=category, group_id=group) for category, group in chosen.items()
    )

"""The tree of articles: at most three levels (division, kind of work, site), moved without cycles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from knowledge_system.domain.problems import FieldError, Problem

DEPTH: Final = 3
MOST_NODES: Final = 1000
STEPS: Final = ("up", "down", "in", "out")


class Node(NamedTuple):
    """A node; ``parent`` is 0 at the top, ``position`` orders siblings."""

    id: int
    parent: int
    position: int
    name: str


def nested(nodes: Iterable[Node]) -> list[dict[str, Any]]:
    """Return the nodes as a nested list of ``{"id", "name", "level", "children"}``."""
    children = _children(nodes)

    def below(parent: int, level: int) -> list[dict[str, Any]]:
        return [
            {"id": node.id, "name": node.name, "level": level, "children": below(node.id, level + 1)}
            for node in children.get(parent, ())
        ]

    return below(0, 1)


def placed(nodes: Iterable[Node], parent: int, name: str) -> int:
    """Return the position of a new node.

    Raises:
        Problem: ``not-found``, or ``invalid`` if there are too many nodes or levels, or a sibling has the name.
    """
    known = list(nodes)
    if len(known) >= MOST_NODES:
        raise _refused("name", "too-many", MOST_NODES)
    siblings = _children(known).get(parent, [])
    _check(known, parent, name, siblings, height=1)
    return len(siblings)


def stepped(nodes: Iterable[Node], node_id: int, step: str) -> tuple[int, int]:
    """Return parent and preceding sibling (0 if none) after a step of the keyboard; the present ones at an end.

    Raises:
        Problem: ``not-found``.
    """
    known = list(nodes)
    children, node = _children(known), _find(known, node_id)
    siblings = [each.id for each in children[node.parent]]
    at = siblings.index(node_id)
    before = siblings[at - 1] if at else 0
    match step:
        case "up" if at:
            return node.parent, siblings[at - 2] if at > 1 else 0
        case "down" if at + 1 < len(siblings):
            return node.parent, siblings[at + 1]
        case "in" if before:
            inside = children.get(before, [])
            return before, inside[-1].id if inside else 0
        case "out" if node.parent:
            return _find(known, node.parent).parent, node.parent
    return node.parent, before


def moved(nodes: Iterable[Node], node_id: int, parent: int, after: int) -> list[Node]:
    """Return the nodes that change when one is moved.

    Args:
        nodes: all nodes.
        node_id: the node to move, with everything below it.
        parent: its new parent, 0 for the top.
        after: the sibling that it follows, 0 to be the first.

    Raises:
        Problem: ``not-found``; ``conflict`` if ``after`` is no child of ``parent`` any more; ``invalid`` if the
            node would be below itself or too deep, or a sibling has its name.
    """
    known = list(nodes)
    children, node = _children(known), _find(known, node_id)
    if parent in {each.id for each in _below(children, node)}:
        raise _refused("parent", "cycle")
    siblings = [each for each in children.get(parent, []) if each.id != node_id]
    _check(known, parent, node.name, siblings, height=_height(children, node))
    places = [each.id for each in siblings]
    if after and after not in places:
        raise Problem("conflict")
    siblings.insert(places.index(after) + 1 if after else 0, node._replace(parent=parent))
    numbered = (each._replace(position=number) for number, each in enumerate(siblings))
    before = {each.id: each for each in known}
    return [each for each in numbered if each != before[each.id]]


def _check(nodes: Sequence[Node], parent: int, name: str, siblings: Iterable[Node], *, height: int) -> None:
    level = 0
    while parent:
        level, parent = level + 1, _find(nodes, parent).parent
    if level + height > DEPTH:
        raise _refused("parent", "too-deep", DEPTH)
    if any(each.name == name for each in siblings):
        raise _refused("name", "repeated-node")


def _find(nodes: Iterable[Node], node_id: int) -> Node:
    found = next((each for each in nodes if each.id == node_id), None)
    if found is None:
        raise Problem("not-found")
    return found


def _children(nodes: Iterable[Node]) -> dict[int, list[Node]]:
    children: dict[int, list[Node]] = {}
    for node in sorted(nodes, key=lambda each: (each.position, each.id)):
        children.setdefault(node.parent, []).append(node)
    return children


def _below(children: dict[int, list[Node]], node: Node) -> Iterator[Node]:
    yield node
    for each in children.get(node.id, ()):
        yield from _below(children, each)


def _height(children: dict[int, list[Node]], node: Node) -> int:
    return 1 + max((_height(children, each) for each in children.get(node.id, ())), default=0)


def _refused(field: str, code: str, limit: object = "") -> Problem:
    return Problem("invalid", errors=[FieldError(field, code, limit)])

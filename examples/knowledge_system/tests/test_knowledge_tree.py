"""The tree of articles: any sequence of moves keeps it a tree, and it is arranged with and without a pointer."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowledge_system.domain import tree
from knowledge_system.domain.permissions import Actor
from knowledge_system.domain.problems import Problem
from knowledge_system.domain.tree import Node
from knowledge_system.services.knowledge import tree as stored_tree

NODES = [
    Node(1, 0, 0, "土木"),
    Node(2, 0, 1, "建築"),
    Node(3, 1, 0, "橋梁"),
    Node(4, 1, 1, "舗装"),
    Node(5, 3, 0, "北工区"),
]


def applied(nodes: list[Node], changed: list[Node]) -> list[Node]:
    return list(({node.id: node for node in nodes} | {node.id: node for node in changed}).values())


def shape(nodes: list[Node]) -> list[Any]:
    def below(items: list[dict[str, Any]]) -> list[Any]:
        return [(item["id"], below(item["children"])) for item in items]

    return below(tree.nested(nodes))


MOVES = st.tuples(st.integers(1, 6), st.integers(0, 6), st.integers(0, 6))


@given(st.lists(MOVES | st.tuples(st.integers(1, 5), st.sampled_from(tree.STEPS)), max_size=12))
def test_any_moves_keep_every_node_at_one_place(moves: list[Any]) -> None:
    nodes = NODES
    for move in moves:
        try:
            parent, after = tree.stepped(nodes, *move) if len(move) == 2 else move[1:]
            nodes = applied(nodes, tree.moved(nodes, move[0], parent, after))
        except Problem as refused:
            assert refused.code in {"invalid", "conflict", "not-found"}  # noqa: PT017 - most moves are possible
    seen = re.findall(r"\d+", str(shape(nodes)))
    assert sorted(seen) == ["1", "2", "3", "4", "5"]
    levels = {node.id: 1 for node in nodes if not node.parent}
    for _ in range(tree.DEPTH):
        levels |= {node.id: levels[node.parent] + 1 for node in nodes if node.parent in levels}
    assert levels.keys() == {1, 2, 3, 4, 5}
    assert max(levels.values()) <= tree.DEPTH


@pytest.mark.parametrize(
    ("node", "step", "expected"),
    [
        (1, "up", [(1, [(3, [(5, [])]), (4, [])]), (2, [])]),
        (2, "up", [(2, []), (1, [(3, [(5, [])]), (4, [])])]),
        (1, "down", [(2, []), (1, [(3, [(5, [])]), (4, [])])]),
        (4, "in", [(1, [(3, [(5, []), (4, [])])]), (2, [])]),
        (3, "out", [(1, [(4, [])]), (3, [(5, [])]), (2, [])]),
        (2, "in", [(1, [(3, [(5, [])]), (4, []), (2, [])])]),
    ],
)
def test_steps_of_the_keyboard(node: int, step: str, expected: list[Any]) -> None:
    assert shape(applied(NODES, tree.moved(NODES, node, *tree.stepped(NODES, node, step)))) == expected


@pytest.mark.parametrize(
    ("node", "parent", "after", "code"),
    [
        (1, 5, 0, "cycle"),
        (1, 1, 0, "cycle"),
        (1, 2, 0, "too-deep"),
        (2, 5, 0, "too-deep"),
        (2, 1, 5, "conflict"),
        (9, 0, 0, "not-found"),
        (1, 9, 0, "not-found"),
    ],
)
def test_moves_that_are_refused(node: int, parent: int, after: int, code: str) -> None:
    with pytest.raises(Problem) as refused:
        tree.moved(NODES, node, parent, after)
    assert code in {refused.value.code, *(error.code for error in refused.value.errors)}


def numbers(person: Any) -> list[str]:
    return re.findall(r'data-node="(\d+)" data-parent="(\d+)"', person.get("/tree").get_data(as_text=True))


def add(person: Any, name: str, parent: str = "0") -> str:
    person.get("/tree")
    answer = person.post("/tree", {"name": name, "parent": parent})
    assert answer.status_code == 303, answer.get_data(as_text=True)
    return str(answer.headers["Location"].partition("#node-")[2])


def test_the_tree_is_arranged_by_forms_and_leads_to_articles(app: Any, visit: Callable[..., Any]) -> None:
    reviewer, writer, reader = visit("sato"), visit("tanaka"), visit("kobayashi")
    division = add(reviewer, "土木事業部")
    kind = add(reviewer, "橋梁", division)
    site = add(reviewer, "北工区<b>", kind)
    other = add(reviewer, "建築事業部")
    assert reviewer.post("/tree", {"name": "深い", "parent": site}).status_code == 422
    assert reviewer.post("/tree", {"name": "建築事業部", "parent": "0"}).status_code == 422
    assert numbers(reader) == [(division, "0"), (kind, division), (site, kind), (other, "0")]

    reviewer.get("/articles/1/place")
    assert reviewer.post("/articles/1/place", {"node": site}).status_code == 303
    page = reader.get("/articles/1").get_data(as_text=True)
    crumbs = re.findall(r'href="/articles\?node=(\d+)">([^<]+)<', page)
    assert crumbs == [(division, "土木事業部"), (kind, "橋梁"), (site, "北工区&lt;b&gt;")]
    for node, found in ((division, True), (site, True), (other, False)):
        assert ('href="/articles/1"' in reader.get(f"/articles?node={node}").get_data(as_text=True)) is found
    assert reader.get("/articles?node=99").status_code == 200

    # What was moved is found at its new place at once.
    assert reviewer.post(f"/tree/{kind}", {"step": "move", "parent": other, "after": "0"}).status_code == 303
    assert 'href="/articles/1"' not in reader.get(f"/articles?node={division}").get_data(as_text=True)
    assert 'href="/articles/1"' in reader.get(f"/articles?node={other}").get_data(as_text=True)
    assert reviewer.post(f"/tree/{other}", {"step": "up"}).status_code == 303
    assert numbers(reader)[0] == (other, "0")
    assert reviewer.post(f"/tree/{kind}", {"step": "move", "parent": kind}).status_code == 422
    assert reviewer.post(f"/tree/{kind}", {"step": "move", "after": site}).status_code == 409
    assert reviewer.post(f"/tree/{kind}", {"step": "remove"}).status_code == 422  # it has a site
    assert reviewer.post(f"/tree/{site}", {"step": "rename", "name": "南工区"}).status_code == 303
    assert "南工区" in reader.get("/articles/1").get_data(as_text=True)
    assert reviewer.post(f"/tree/{site}", {"step": "remove"}).status_code == 303
    page = reader.get("/articles/1").get_data(as_text=True)
    assert "南工区" not in page
    crumbs = re.findall(r'href="/articles\?node=(\d+)">', page)
    assert crumbs == [other, kind]  # the article is where the site was

    for person in (writer, reader):
        person.get("/tree")
        assert person.post("/tree", {"name": "x"}).status_code == 403
        assert person.post(f"/tree/{kind}", {"step": "up"}).status_code == 403
        assert person.post("/articles/1/place", {"node": kind}).status_code in {303, 403}
    assert reader.post("/articles/1/place", {"node": kind}).status_code == 403
    assert "ツリーを移動" in visit("ito").get("/admin/audit").get_data(as_text=True)


def test_an_article_with_a_place_can_be_deleted(visit: Callable[..., Any]) -> None:
    admin = visit("ito")
    node = add(admin, "土木事業部")
    admin.post("/articles/1/place", {"node": node})
    admin.get("/articles/1")
    headers = {"X-CSRF-Token": admin.token, "If-Match": "*"}
    assert admin.api("DELETE", "/api/knowledge/1", **headers).status_code == 204


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_moves_at_once_make_no_cycle(
    request: pytest.FixtureRequest, make_app: Callable[..., Any], database: str
) -> None:
    url = {"database_url": request.getfixturevalue("postgres_url")} if database == "postgresql" else {}
    sessions = make_app(**url).extensions["knowledge"].sessions
    admin = Actor(6, "ito", "", "admin")
    with sessions.begin() as session:
        one, two = (stored_tree.add(session, admin, name, 0) for name in ("一", "二"))
    start = threading.Barrier(2)

    def move(node: int, parent: int) -> None:
        start.wait()
        try:
            with sessions.begin() as session:
                stored_tree.change(session, admin, node, "move", name="", parent=parent, after=0)
        except Problem:
            pass

    threads = [threading.Thread(target=move, args=each) for each in ((one, two), (two, one))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with sessions() as session:
        assert len(re.findall(r"'id'", str(stored_tree.whole(session, admin)))) == 2

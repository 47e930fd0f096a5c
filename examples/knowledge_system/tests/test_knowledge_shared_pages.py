"""What one application changes is seen at once by readers of another that shares its Redis."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PDF = b"%PDF-1.7\n1 0 obj<<>>endobj\nxref\n0 1\ntrailer<<>>\nstartxref\n28\n%%EOF\n"
TEXT = {
    "title": "共有の試し",
    "category": "土工",
    "body": "もとの本文です。",
    "tags": ["共有"],
    "site": "共有工区",
}


@dataclass(frozen=True)
class Pair:
    """Two applications with one database and one Redis: changes go to the first, readers to the second."""

    here: Any
    there: Any
    visit: Callable[..., Any]
    members: dict[str, Any] = field(default_factory=dict)

    def member(self, name: str) -> Any:
        """Somebody who changes something."""
        if name not in self.members:
            self.members[name] = self.visit(name, at=self.here)
        self.members[name].get("/account")
        return self.members[name]

    def published(self, **changed: Any) -> int:
        """An article that a writer has written and a reviewer published."""
        new: int = call(
            self.member("tanaka"), "POST", "/api/knowledge", {**TEXT, **changed, "status": "review"}
        ).json["id"]
        step(self.member("ito"), new, "approve")
        return new


@pytest.fixture
def pair(make_app: Callable[..., Any], visit: Callable[..., Any], own_database: Path, redis_url: str) -> Pair:
    # Patient: what is tested is what readers see, not how soon a busy machine answers.
    where = {
        "database_url": f"sqlite:///{own_database}",
        "MKS_REDIS_URL": redis_url,
        "MKS_STORE_BUDGET": "5s",
    }
    return Pair(make_app(**where), make_app(**where), visit)


def call(person: Any, method: str, path: str, body: Any = None) -> Any:
    answer = person.api(method, path, body, **{"X-CSRF-Token": person.token})
    assert answer.status_code < 300, answer.get_data(as_text=True)
    return answer


def step(person: Any, article: int, name: str, comment: str = "") -> None:
    revision = person.api("GET", f"/api/knowledge/{article}").json["revision"]
    taken = {"step": name, "revision": revision, "comment": comment}
    call(person, "POST", f"/api/knowledge/{article}/steps", taken)


def page(person: Any, article: int) -> tuple[str, str]:
    answer = person.get(f"/articles/{article}")
    return answer.get_data(as_text=True), answer.headers.get("X-Cache", "")


def kept(person: Any, article: int) -> str:
    """The page, after it was seen to come from the cache."""
    page(person, article)
    text, cache = page(person, article)
    assert cache == "hit"
    return text


def new_version(pair: Pair, article: int) -> None:
    writer = pair.member("tanaka")
    revision = writer.api("GET", f"/api/knowledge/{article}").json["revision"]
    text = {**TEXT, "body": "## あたらしい節\n\n新しい本文です。\n\n## 二つ目\n", "revision": revision}
    call(writer, "PUT", f"/api/knowledge/{article}", {**text, "status": "review"})
    step(pair.member("ito"), article, "approve")


def remark(pair: Pair, article: int) -> None:
    call(pair.member("ito"), "POST", f"/api/knowledge/{article}/comments", {"body": "新しいひとこと"})


def withdrawal(pair: Pair, article: int) -> None:
    step(pair.member("ito"), article, "retire", "古い")


def new_name(pair: Pair, article: int) -> None:
    del article
    changed = {"display_name": "田中 改名", "department": "", "role": "writer", "email": "", "active": "on"}
    answer = pair.member("ito").post("/admin/accounts/tanaka", changed)
    assert answer.status_code == 303, answer.get_data(as_text=True)


@pytest.mark.parametrize(
    ("change", "before", "after"),
    [
        (new_version, "もとの本文です。", "新しい本文です。"),
        (new_version, "第 1 版", "#s1"),
        (remark, '<h2 id="comments-title">コメント <small>0</small>', "新しいひとこと"),
        (withdrawal, "共有の試し", "この記事は廃止されています"),
        (new_name, "田中", "田中 改名"),
    ],
)
@pytest.mark.parametrize("language", ["ja", "en"])
def test_a_change_is_seen_at_once(
    pair: Pair, change: Callable[[Pair, int], None], before: str, after: str, language: str
) -> None:
    article, reader = pair.published(), pair.visit("kobayashi", at=pair.there)
    other = pair.visit("sato", at=pair.there)
    other.get("/account")
    assert other.post("/language", {"language": language}).status_code == 303
    kept(other, article)
    text = kept(reader, article)
    assert before in text
    assert after not in text
    change(pair, article)
    text, cache = page(reader, article)
    assert cache == "miss"
    assert after in text
    page(other, article)
    assert page(other, article)[0].count("新しいひとこと") == text.count("新しいひとこと")


def test_files_come_and_go_at_once(pair: Pair) -> None:
    writer, reviewer = pair.member("tanaka"), pair.visit("ito", at=pair.there)
    article = call(writer, "POST", "/api/knowledge", {**TEXT, "status": "draft"}).json["id"]
    assert "手順書.pdf" not in kept(reviewer, article)
    form = {"file": (io.BytesIO(PDF), "手順書.pdf")}
    answer = writer.send(
        "POST",
        f"/api/knowledge/{article}/attachments",
        data=form,
        content_type="multipart/form-data",
        headers={"Accept": "application/json", "X-CSRF-Token": writer.token},
    )
    assert answer.status_code == 201, answer.get_data(as_text=True)
    assert "手順書.pdf" in kept(reviewer, article)
    (file,) = writer.api("GET", f"/api/knowledge/{article}/attachments").json["items"]
    writer.get(f"/articles/{article}/edit")
    assert writer.post(f"/articles/{article}/attachments/{file['id']}/delete", {}).status_code == 303
    assert "手順書.pdf" not in page(reviewer, article)[0]


def test_what_is_kept_for_all_shows_nobody_more_than_before(pair: Pair) -> None:
    writer = pair.member("tanaka")
    draft = call(writer, "POST", "/api/knowledge", {**TEXT, "status": "draft"}).json["id"]
    article = pair.published()
    author, reader = pair.visit("tanaka", at=pair.there), pair.visit("kobayashi", at=pair.there)
    assert "もとの本文です。" in kept(author, draft)
    assert reader.get(f"/articles/{draft}").status_code == 404
    assert "編集する" in kept(author, article)
    assert "編集する" not in kept(reader, article)
    revision = writer.api("GET", f"/api/knowledge/{article}").json["revision"]
    coming = {**TEXT, "body": "次の版の本文", "revision": revision, "status": "draft"}
    call(writer, "PUT", f"/api/knowledge/{article}", coming)
    assert "次の版" in kept(author, article)
    text = kept(reader, article)
    assert "次の版" not in text
    assert "第 2 版" not in text


def test_a_role_counts_from_the_next_page_on(pair: Pair) -> None:
    article, reader = pair.published(), pair.visit("kobayashi", at=pair.there)
    assert "編集する" not in kept(reader, article)
    changed = {"display_name": "小林", "department": "", "role": "reviewer", "email": "", "active": "on"}
    assert pair.member("ito").post("/admin/accounts/kobayashi", changed).status_code == 303
    assert "編集する" in page(reader, article)[0]


def test_what_was_withdrawn_is_near_nothing_any_more(pair: Pair) -> None:
    first, second = pair.published(), pair.published(title="共有の試し 二")
    reader = pair.visit("kobayashi", at=pair.there)
    link = f'<a href="/articles/{second}">'
    assert link in kept(reader, first)
    withdrawal(pair, second)
    text, cache = page(reader, first)
    assert link not in text
    assert cache == "hit"  # the article itself is as it was
    third = pair.published(title="共有の試し 三")
    assert f'<a href="/articles/{third}">' in page(reader, first)[0]


def test_what_one_follows_is_never_taken_from_somebody_else(pair: Pair) -> None:
    article, reader = pair.published(), pair.visit("kobayashi", at=pair.there)
    other = pair.visit("sato", at=pair.there)
    kept(reader, article)
    elsewhere = pair.member("kobayashi")
    assert elsewhere.post(f"/articles/{article}/favourite", {"on": "on"}).status_code == 303
    assert "お気に入りから外す" in kept(reader, article)
    assert "お気に入りに加える" in kept(other, article)


def test_an_article_that_was_removed_is_gone(pair: Pair) -> None:
    article, reader = pair.published(), pair.visit("kobayashi", at=pair.there)
    kept(reader, article)
    admin = pair.member("ito")
    match = admin.api("GET", f"/api/knowledge/{article}").headers["ETag"]
    path, sent = f"/api/knowledge/{article}", {"X-CSRF-Token": admin.token, "If-Match": match}
    assert admin.api("DELETE", path, **sent).status_code == 204
    assert reader.get(f"/articles/{article}").status_code == 404


def test_a_list_that_a_writer_has_seen_shows_a_reader_no_buttons_of_writers(pair: Pair) -> None:
    pair.published()
    writer, reader = pair.visit("tanaka", at=pair.there), pair.visit("kobayashi", at=pair.there)
    lists = [each.get("/articles?tag=共有") for each in (writer, reader, writer, reader)]
    assert [answer.headers["X-Cache"] for answer in lists] == ["miss", "miss", "hit", "hit"]
    for number, answer in enumerate(lists):
        assert ("/articles/new" in answer.text) == (number % 2 == 0)
        assert answer.text.count('action="/watches"') == 1
        assert "own part" not in answer.text


def test_watching_a_tag_shows_at_once_on_a_cached_list(pair: Pair) -> None:
    pair.published()
    reader = pair.visit("sato", at=pair.there)
    before = reader.get("/articles?tag=共有").text
    watch = {"kind": "tag", "subject": "共有", "on": "on", "next": "/articles?tag=共有"}
    reader.post("/watches", watch)
    answer = reader.get("/articles?tag=共有")
    assert answer.headers["X-Cache"] == "hit"
    assert ("見守りをやめる" in before, "見守りをやめる" in answer.text) == (False, True)

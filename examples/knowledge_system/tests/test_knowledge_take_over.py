"""Taking over accounts, articles and files: what is created, what is refused, and that a killed run goes on."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import werkzeug.security
from openpyxl import Workbook
from PIL import Image
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfgen.canvas import Canvas
from sqlalchemy import select

from knowledge_system.models import (
    Article,
    ArticleNode,
    Attachment,
    Group,
    Reader,
    Review,
    TakenOver,
    TreeNode,
    User,
)
from knowledge_system.services.attachments.file_store import FileStore
from knowledge_system.services.identity import groups
from knowledge_system.services.take_over import mapping, report
from knowledge_system.services.take_over.take_over import Line, TakeOver
from mks_hardening.exceptions import ConfigurationError
from testbed.services import unavailable
from testbed.small_disk import resize, small_disk

PASSWORD = "鉄筋のかぶりは 40mm"
HASHES = {
    "bcrypt": bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode(),
    "pbkdf2": werkzeug.security.generate_password_hash(PASSWORD, method="pbkdf2:sha256:1000"),
    "scrypt": werkzeug.security.generate_password_hash(PASSWORD, method="scrypt:1024:8:1"),
}


_W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_R = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_A = "http://schemas.openxmlformats.org/drawingml/2006/main"
_P = "http://schemas.openxmlformats.org/package/2006"


def _png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), "teal").save(file, "PNG")
    return file.getvalue()


PNG = _png()


def _cell(text: str) -> str:
    return f"<w:tc><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:tc>"


def docx(parts: dict[str, bytes] | None = None) -> bytes:
    """A document with a heading, bold text, a table and a picture; ``parts`` are added or replaced."""
    rows = "".join(f"<w:tr>{_cell(a)}{_cell(b)}</w:tr>" for a, b in (("項目", "値"), ("気温", "35")))
    picture = (
        f'<w:drawing><wp:inline xmlns:wp="http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing">'
        f'<wp:docPr id="1" name="p" descr="図"/><a:graphic xmlns:a="{_A}"><a:graphicData>'
        f'<pic:pic xmlns:pic="{_A.replace("main", "picture")}"><pic:blipFill><a:blip r:embed="r1"/></pic:blipFill>'
        "</pic:pic></a:graphicData></a:graphic></wp:inline></w:drawing>"
    )
    body = (
        '<w:p><w:pPr><w:pStyle w:val="Heading1"/></w:pPr><w:r><w:t>打設計画</w:t></w:r></w:p>'
        f"<w:p><w:r><w:rPr><w:b/></w:rPr><w:t>大事</w:t></w:r></w:p><w:tbl>{rows}</w:tbl>"
        f"<w:p><w:r>{picture}</w:r></w:p>"
    )
    contents: dict[str, bytes | str] = {
        "[Content_Types].xml": f'<Types xmlns="{_P}/content-types">'
        '<Default Extension="png" ContentType="image/png"/>'
        '<Override PartName="/word/document.xml" ContentType="x"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{_P}/relationships"><Relationship Id="r0" '
        f'Type="{_R}/officeDocument" Target="word/document.xml"/></Relationships>',
        "word/document.xml": f'<w:document xmlns:w="{_W}" xmlns:r="{_R}"><w:body>{body}</w:body></w:document>',
        "word/styles.xml": f'<w:styles xmlns:w="{_W}"><w:style w:type="paragraph" w:styleId="Heading1">'
        '<w:name w:val="heading 1"/></w:style></w:styles>',
        "word/_rels/document.xml.rels": f'<Relationships xmlns="{_P}/relationships"><Relationship Id="r1" '
        f'Type="{_R}/image" Target="media/image1.png"/><Relationship Id="r2" Type="{_R}/styles" '
        'Target="styles.xml"/></Relationships>',
        "word/media/image1.png": PNG,
        **(parts or {}),
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return file.getvalue()


def xlsx() -> bytes:
    book, file = Workbook(), io.BytesIO()
    book.active.title = "配合"
    for row in (["項目", "値"], ["水セメント比", 50.5], [None, None], ["備考|注", "=1+1"]):
        book.active.append(row)
    book.create_sheet("隠し").sheet_state = "hidden"
    book.save(file)
    return file.getvalue()


def pdf(text: str) -> bytes:
    file = io.BytesIO()
    pdfmetrics.registerFont(UnicodeCIDFont("HeiseiMin-W3"))
    canvas = Canvas(file)
    canvas.setFont("HeiseiMin-W3", 12)
    canvas.drawString(72, 700, text)
    canvas.save()
    return file.getvalue()


@pytest.fixture
def take(app: Any, tmp_path: Path) -> Callable[..., list[Line]]:
    """Run with the text of a mapping file: ``take("[folder] ...", dry_run=True)``."""
    services = app.extensions["knowledge"]

    def run(
        text: str, *, dry_run: bool = False, four_eyes: bool = True, mapping_name: str = "mapping.toml"
    ) -> list[Line]:
        file = tmp_path / mapping_name
        file.write_text(f'operator = "ito"\n{text}', encoding="utf-8")
        taken = TakeOver(
            mapping.read(file),
            sessions=services.sessions,
            search=services.search,
            intake=services.intake,
            clock=services.clock,
            dry_run=dry_run,
            four_eyes=four_eyes,
        )
        return list(taken.lines())

    return run


@pytest.fixture
def app(request: pytest.FixtureRequest, make_app: Callable[..., Any]) -> Any:
    on_server = getattr(request, "param", "sqlite") == "postgresql"
    return make_app(**{"database_url": request.getfixturevalue("postgres_url")} if on_server else {})


on_both_databases = pytest.mark.parametrize("app", ["sqlite", "postgresql"], indirect=True)


def read(app: Any, query: Any) -> list[Any]:
    with app.extensions["knowledge"].sessions() as session:
        return list(session.scalars(query))


def outcomes(lines: list[Line]) -> dict[str, tuple[str, str]]:
    return {line.source: (line.outcome, " ".join(line.notes)) for line in lines}


# --- accounts -----------------------------------------------------------------------------------

ACCOUNTS = """
[accounts]
csv = "people.csv"
fields = { username = "login", display_name = "氏名", email = "mail", password_hash = "pw" }
values = { role = "writer" }
"""


def people(folder: Path, *rows: tuple[str, str, str]) -> None:
    lines = ["login,氏名,mail,pw", *(f"{login},髙橋 {login},{mail},{stored}" for login, mail, stored in rows)]
    (folder / "people.csv").write_bytes("\r\n".join(lines).encode("cp932"))


@on_both_databases
def test_a_hash_that_is_longer_than_its_column_is_not_kept(
    take: Callable[..., Any], app: Any, tmp_path: Path
) -> None:
    people(tmp_path, ("long", "l@example.com", f"pbkdf2:sha256:1000${'a' * 600}${'0' * 64}"))
    assert outcomes(take(ACCOUNTS))["long"][0] == "created"
    assert read(app, select(User.password_hash).where(User.username == "long")) == [None]


@pytest.mark.parametrize("kind", HASHES)
def test_people_sign_in_with_their_old_password_and_get_our_hash(
    kind: str, take: Callable[..., Any], app: Any, browser: Any, tmp_path: Path
) -> None:
    people(tmp_path, ("Takahashi", "t@example.com", HASHES[kind]))
    assert outcomes(take(ACCOUNTS)) == {"Takahashi": ("created", "")}
    (user,) = read(app, select(User).where(User.username == "takahashi"))
    assert (user.display_name, user.role, user.password_hash) == ("髙橋 Takahashi", "writer", HASHES[kind])
    assert browser.sign_in("takahashi", "wrong").status_code != 303
    assert browser.sign_in("takahashi", PASSWORD).status_code == 303
    (user,) = read(app, select(User).where(User.username == "takahashi"))
    assert user.password_hash.startswith("$argon2id$")
    assert outcomes(take(ACCOUNTS)) == {"Takahashi": ("known", "")}


def test_fast_hashes_and_wrong_rows_are_named_and_nobody_is_changed(
    take: Callable[..., Any], app: Any, tmp_path: Path
) -> None:
    before = {user.username: user.password_hash for user in read(app, select(User))}
    sha1 = hashlib.sha1(PASSWORD.encode()).hexdigest()  # noqa: S324
    people(
        tmp_path,
        ("sha1", "s@example.com", sha1),
        ("no-mail", "", sha1),
        ("x", "x@example.com", ""),
        ("tanaka", "other@example.com", HASHES["bcrypt"]),
        ("same-mail", "s@example.com", ""),
    )
    dry = outcomes(take(ACCOUNTS, dry_run=True))
    assert {user.username for user in read(app, select(User))} == before.keys()
    found = outcomes(take(ACCOUNTS))
    assert {name: outcome for name, (outcome, _) in found.items()} == {
        "sha1": "created",
        "no-mail": "skipped",
        "x": "skipped",
        "tanaka": "known",
        "same-mail": "skipped",
    }
    assert {name: dry[name] for name in ("sha1", "no-mail", "x", "tanaka")} == {
        name: found[name] for name in ("sha1", "no-mail", "x", "tanaka")
    }
    assert "SHA" in found["sha1"][1]
    after = {user.username: user.password_hash for user in read(app, select(User))}
    assert after == {**before, "sha1": None}


# --- old tables -----------------------------------------------------------------------------------

TABLES = """
publish = true
database = "OLD_DATABASE_URL"

[articles]
query = "SELECT id, subject, text, kind, who, changed FROM posts ORDER BY id"
html = true
[articles.fields]
key = "id"
title = "subject"
body = "text"
category = "kind"
author = "who"
updated = "changed"
[articles.values]
category = "品質"
tags = "旧システム"

[attachments]
query = "SELECT post, name, path FROM files WHERE post = :article"
fields = { article = "post", name = "name", path = "path" }
folder = "old"
"""


@pytest.fixture
def old_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlite3.Connection]:
    file = tmp_path / "old.db"
    monkeypatch.setenv("OLD_DATABASE_URL", f"sqlite:///{file}")
    with closing(sqlite3.connect(file)) as old:
        old.executescript(
            "CREATE TABLE posts (id INTEGER, subject TEXT, text TEXT, kind TEXT, who TEXT, changed TEXT);"
            "CREATE TABLE files (post INTEGER, name TEXT, path TEXT);"
        )
        yield old


def test_articles_and_attachments_of_old_tables(
    take: Callable[..., Any], app: Any, visit: Callable[..., Any], tmp_path: Path, old_database: Any
) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a1").write_bytes(PNG)
    (tmp_path / "secret.png").write_bytes(PNG)
    html = '<h2>原因</h2><p>暑さ<script>x()</script></p><img src="/uploads/写真 1.png">'
    html += "<table><tr><th>a</th></tr><tr><td>b</td></tr></table>"
    posts = [
        (1, "初期ひび割れ", html, "コンクリート", "Tanaka", "2019/04/01 09:00"),
        (2, "古い分類", "<p>\x0b本文</p>", "Civil", "nobody", "unknown"),
        (3, "", "<p>題名がない</p>", "土工", "tanaka", None),
    ]
    old_database.executemany("INSERT INTO posts VALUES (?, ?, ?, ?, ?, ?)", posts)
    old_database.executemany(
        "INSERT INTO files VALUES (?, ?, ?)",
        [(1, "写真 1.png", "a1"), (1, "x.png", "../secret.png"), (1, "gone.png", "gone"), (1, "d", ".")],
    )
    old_database.commit()
    found = outcomes(take(TABLES))
    assert {key: outcome for key, (outcome, _) in found.items()} == {
        "1": "created",
        "2": "created",
        "3": "skipped",
    }
    for name in ("x.png", "gone.png", "「d」"):
        assert name in found["1"][1]
    for words in ("Civil", "nobody", "unknown", "下書き"):
        assert words in found["2"][1]
    (article,) = read(app, select(Article).where(Article.title == "初期ひび割れ"))
    (file,) = read(app, select(Attachment))
    assert article.body.startswith("## 原因\n\n暑さ")
    assert f"![](/files/{file.id})" in article.body
    assert "x()" not in article.body
    assert "| a |\n| --- |\n| b |" in article.body
    assert (article.status, article.updated_at.year, file.shown) == ("published", 2019, True)
    assert read(app, select(Review.article_id)).count(article.id) == 1
    assert "初期ひび割れ" in visit("kobayashi").get("/articles?q=初期ひび割れ").get_data(as_text=True)
    assert visit("sato").get(f"/articles/{article.id}").status_code == 200

    old_database.execute("UPDATE posts SET text = 'changed' WHERE id = 1")
    old_database.commit()
    again = outcomes(take(TABLES))
    assert again["1"] == (
        "known",
        "元の内容が変わっています。記事はそのままにしました / changed there; the article stays as it is",
    )
    assert again["2"] == ("known", "")
    assert read(app, select(Article.body).where(Article.id == article.id)) == [article.body]


@on_both_databases
def test_rows_with_gaps_and_impossible_dates_do_not_end_the_run(
    take: Callable[..., Any], app: Any, tmp_path: Path, old_database: Any
) -> None:
    gaps = [(None, "番号なし", "本文"), (2, None, "本文"), (3, "本文なし", None)]
    days = {4: "0001-01-01", 5: "9999-12-31T23:59:59-12:00", 6: "9999-12-31", 7: "2019-04-01", 8: "", 9: None}
    posts = [(*gap, "土工", "tanaka", None) for gap in gaps]
    posts += [(number, f"記事{number}", "本文", "土工", "tanaka", day) for number, day in days.items()]
    old_database.executemany("INSERT INTO posts VALUES (?, ?, ?, ?, ?, ?)", posts)
    old_database.commit()
    (tmp_path / "files.csv").write_text("post,name,path\n,x.png,x.png\n", encoding="utf-8")
    files = '[attachments]\ncsv = "files.csv"\nfields = { article = "post", name = "name", path = "path" }\n'
    found = outcomes(take(TABLES.partition("[attachments]")[0] + files))
    assert {key: outcome for key, (outcome, _) in found.items()} == {
        **dict.fromkeys(("", "2", "3"), "skipped"),
        **dict.fromkeys(map(str, days), "created"),
    }
    assert ["日時" in found[str(number)][1] for number in days] == [True, True, True, False, False, False]
    (old,) = read(app, select(Article).where(Article.title == "記事7"))
    assert old.updated_at.year == 2019
    years = read(app, select(Article.updated_at).where(Article.title.in_([f"記事{n}" for n in (4, 5, 6)])))
    assert {each.year for each in years} == {2026}


# --- folders --------------------------------------------------------------------------------------

FOLDER = """
[folder]
path = "share"
category = "品質"
author = "tanaka"
tags = ["共有フォルダー"]
"""


@on_both_databases
def test_a_folder_of_documents(take: Callable[..., Any], app: Any, tmp_path: Path, visit: Any) -> None:
    place = tmp_path / "share" / "土木部" / "コンクリート" / "本郷工区" / "2024"
    place.mkdir(parents=True)
    (place / "打設計画.docx").write_bytes(docx())
    (place / "配合.xlsx").write_bytes(xlsx())
    (tmp_path / "share" / "手引き.pdf").write_bytes(pdf("希少語彙の塗膜"))
    dry = take(FOLDER, dry_run=True)
    assert not read(app, select(TakenOver))
    assert not read(app, select(TreeNode))
    assert not list(app.extensions["knowledge"].intake.store.digests())
    lines = take(FOLDER)
    assert [line._replace(id=0) for line in lines] == dry
    assert {line.outcome for line in lines} == {"created"}
    by_title = {article.title: article for article in read(app, select(Article).where(Article.id > 0))}
    plan, mix, guide = (by_title[title] for title in ("打設計画", "配合", "手引き"))
    assert (plan.category, guide.category, plan.status) == ("コンクリート", "品質", "draft")
    assert plan.body.startswith("# 打設計画")
    assert "**大事**" in plan.body
    assert "| 項目 | 値 |\n| --- | --- |\n| 気温 | 35 |" in plan.body
    own = select(Attachment).where(Attachment.article_id == plan.id)
    picture, original = read(app, own.order_by(Attachment.id))
    assert f"![図](/files/{picture.id})" in plan.body
    assert f"[打設計画.docx](/files/{original.id})" in plan.body
    assert "| 水セメント比 | 50.5 |\n| 備考\\|注 |" in mix.body
    assert "隠し" not in mix.body
    names = {node.id: node for node in read(app, select(TreeNode))}
    (node_id,) = read(app, select(ArticleNode.node_id).where(ArticleNode.article_id == plan.id))
    assert names[node_id].name == "本郷工区 2024"
    assert names[names[node_id].parent_id].name == "コンクリート"
    found = visit("tanaka").api("GET", "/api/knowledge?status=draft&q=希少語彙").json["items"]
    assert [item["id"] for item in found] == [guide.id]
    assert {line.outcome for line in take(FOLDER)} == {"known"}


@on_both_databases
def test_two_runs_at_once_give_one_article_of_each_file(
    take: Callable[..., Any], app: Any, tmp_path: Path
) -> None:
    for number in range(6):
        place = tmp_path / "share" / f"部{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.pdf").write_bytes(pdf(f"第{number}号"))
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(take, FOLDER, mapping_name=f"{run}.toml") for run in range(2)]
        lines = [run.result() for run in runs]
    pairs = list(zip(*lines, strict=True))
    assert len(pairs) == 6
    assert {tuple(sorted(line.outcome for line in pair)) for pair in pairs} == {("created", "known")}
    assert sorted(read(app, select(TreeNode.name))) == ["部0", "部1"]
    assert len(read(app, select(TakenOver))) == len(read(app, select(ArticleNode))) == 6


def test_members_take_over_what_only_their_group_may_read(
    take: Callable[..., Any], app: Any, tmp_path: Path, visit: Callable[..., Any]
) -> None:
    """The operator and the author are members; an author who is none would not find the article again."""
    share = tmp_path / "share"
    (share / "極秘").mkdir(parents=True)
    (share / "積算").mkdir()
    (share / "極秘" / "協定.pdf").write_bytes(pdf("協定"))
    (share / "積算" / "単価.pdf").write_bytes(pdf("単価"))
    with app.extensions["knowledge"].sessions.begin() as session:
        node = TreeNode(position=1, name="極秘")
        session.add(node)
        session.flush()
        ids = dict(session.execute(select(User.username, User.id)).all())
        groups.join(session, ids["ito"], ["見積班"])
        (group,) = session.scalars(select(Group.id))
        session.add_all([Reader(group_id=group, category="積算"), Reader(group_id=group, node_id=node.id)])
    dry = outcomes(take(FOLDER, dry_run=True))
    assert {name: outcome for name, (outcome, _) in dry.items()} == {
        "極秘/協定.pdf": "created",
        "積算/単価.pdf": "skipped",
    }
    with app.extensions["knowledge"].sessions.begin() as session:
        groups.join(session, ids["tanaka"], ["見積班"])
    assert {outcome for outcome, _ in outcomes(take(FOLDER)).values()} == {"created"}
    titles = {name: visit(name).api("GET", "/api/knowledge?status=draft").text for name in ("ito", "sato")}
    assert "単価" in titles["ito"]
    assert "協定" in titles["ito"]
    assert "単価" not in titles["sato"]
    assert "協定" not in titles["sato"]


@pytest.mark.parametrize(
    ("picture", "attached"),
    [
        ("media/gone.png", 1),
        ("media/drawing.emf", 1),  # of no type that the document names, and that we accept
        ("media/photo.bin", 2),
    ],
)
def test_a_picture_that_cannot_be_read_does_not_cost_the_document(
    take: Callable[..., Any], app: Any, tmp_path: Path, picture: str, attached: int
) -> None:
    links = zipfile.ZipFile(io.BytesIO(docx())).read("word/_rels/document.xml.rels")
    parts = {"word/media/drawing.emf": b"\1\0\0\0", "word/media/photo.bin": PNG}
    parts["word/_rels/document.xml.rels"] = links.replace(b"media/image1.png", picture.encode())
    (tmp_path / "share").mkdir()
    (tmp_path / "share" / "打設計画.docx").write_bytes(docx(parts))
    (line,) = take(FOLDER)
    assert line.outcome == "created"
    (body,) = read(app, select(Article.body).where(Article.id == line.id))
    assert ("![図](/files/" in body) == (attached == 2)
    assert "図" in body
    assert len(read(app, select(Attachment).where(Attachment.article_id == line.id))) == attached


def bomb() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        with archive.open("word/document.xml", "w", force_zip64=True) as part:
            for _ in range(150):
                part.write(b" " * 1_000_000)
    return file.getvalue()


@on_both_databases
def test_hostile_files_are_reported_and_the_others_taken_over(
    take: Callable[..., Any], app: Any, tmp_path: Path
) -> None:
    share = tmp_path / "share"
    share.mkdir()
    (tmp_path / "outside.pdf").write_bytes(pdf("外"))
    (share / "bomb.docx").write_bytes(bomb())
    (share / "macro.docx").write_bytes(docx({"word/vbaProject.bin": b"x"}))
    (share / "old.doc").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))
    (share / "entities.docx").write_bytes(
        docx({"word/document.xml": b'<!DOCTYPE d [<!ENTITY a "x">]><d>&a;</d>'})
    )
    (share / "empty.pdf").write_bytes(b"")
    (share / "link.pdf").symlink_to(tmp_path / "outside.pdf")
    (share / "folder-link").symlink_to(tmp_path)
    (share / "loop").symlink_to(share)
    os.mkfifo(share / "pipe.pdf")
    (share / "large.pdf").write_bytes(pdf("大") + bytes(app.extensions["knowledge"].intake.limit))
    Path(os.fsdecode(os.fsencode(share) + b"/" + "\u8868\u7d19.pdf".encode("cp932"))).write_bytes(pdf("表紙"))
    (share / "..pdf").write_bytes(pdf("点"))
    (share / "copy.pdf").write_bytes(pdf("表紙"))
    shutil.copy(share / "copy.pdf", share / "copy 2.pdf")
    found = outcomes(take(FOLDER))
    assert {name for name, (outcome, _) in found.items() if outcome == "created"} >= {"..pdf", "表紙.pdf"}
    assert {name for name, (outcome, _) in found.items() if outcome == "skipped"} == {
        "bomb.docx",
        "macro.docx",
        "old.doc",
        "entities.docx",
        "empty.pdf",
        "link.pdf",
        "folder-link",
        "loop",
        "pipe.pdf",
        "large.pdf",
    }
    assert all(notes for outcome, notes in found.values() if outcome == "skipped")
    assert {line.outcome for line in take(FOLDER)} == {"known", "skipped"}
    assert len(read(app, select(Article).where(Article.title == "表紙"))) == 1


@pytest.mark.slow
def test_ten_thousand_files_are_reported_one_by_one(take: Callable[..., Any], tmp_path: Path) -> None:
    for folder in range(100):
        place = tmp_path / "share" / f"{folder:03}"
        place.mkdir(parents=True)
        for number in range(100):
            (place / f"{number:03}.txt").write_bytes(b"no document")
    lines = take(FOLDER)
    assert len(lines) == 10_000
    assert {line.outcome for line in lines} == {"skipped"}


def test_a_run_that_was_killed_goes_on_and_each_file_gives_one_article(
    own_database: Path, tmp_path: Path
) -> None:
    share = tmp_path / "share"
    share.mkdir()
    for number in range(12):
        (share / f"{number:02}.pdf").write_bytes(pdf(f"第{number}号"))
    file = tmp_path / "mapping.toml"
    file.write_text(f'operator = "ito"\n{FOLDER}', encoding="utf-8")

    def start(name: str) -> tuple[subprocess.Popen[bytes], Path]:
        path = tmp_path / name
        words, environment = command(own_database, file, tmp_path / "data", str(path))
        return subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL), path

    process, path = start("first.jsonl")
    deadline = time.monotonic() + 90
    while not path.exists() or path.read_text().count("\n") < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    first = [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    process, path = start("second.jsonl")
    assert process.wait(110) == 0
    second = [json.loads(line) for line in path.read_text().splitlines()]
    assert 3 <= len(first) < 12
    assert [line["outcome"] for line in second[: len(first)]] == ["known"] * len(first)
    assert {line["outcome"] for line in second[len(first) + 1 :]} <= {"created"}
    with closing(sqlite3.connect(own_database)) as database:
        titles = database.execute("SELECT title FROM articles WHERE title GLOB '[0-9][0-9]'").fetchall()
        assert sorted(titles) == [(f"{number:02}",) for number in range(12)]
        assert database.execute("SELECT COUNT(*) FROM taken_over").fetchone() == (12,)


# --- the command ------------------------------------------------------------------------------------


def command(
    database: Path, file: Path, folder: Path, name: str, *more: str
) -> tuple[list[str], dict[str, str]]:
    """The words and the environment of a run that stores files below ``folder`` and reports to ``name``."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MKS_")}
    options = ["take-over", file, "--report", name, "--data", folder, "--demo", *more]
    words = [sys.executable, "-m", "knowledge_system", *map(str, options)]
    return words, {**kept, "DATABASE_URL": f"sqlite:///{database}"}


def noise(number: int) -> bytes:
    """A picture that does not become smaller."""
    file = io.BytesIO()
    Image.frombytes("RGB", (120, 120), hashlib.shake_256(bytes([number])).digest(120 * 120 * 3)).save(
        file, "PNG"
    )
    return file.getvalue()


@pytest.fixture
def small(full: str, own_database: Path, tmp_path: Path) -> Iterator[Path]:
    """A disk that is full before the run ends."""
    size = {"uploads": 250_000, "database": own_database.stat().st_size + 300_000, "report": 4096}
    with small_disk(tmp_path / "small", f"size={size[full]}") as folder:
        yield folder


@pytest.mark.parametrize("full", ["uploads", "database", "report"])
def test_a_run_that_finds_the_disk_full_goes_on_when_there_is_room(
    full: str, own_database: Path, tmp_path: Path, small: Path
) -> None:
    share = tmp_path / "share" / ("土" * 80) / ("木" * 80)
    share.mkdir(parents=True)
    for number in range(12):
        (share / f"{number:02}.png").write_bytes(noise(number))
    file = tmp_path / "mapping.toml"
    file.write_text(f'operator = "ito"\n{FOLDER}', encoding="utf-8")
    data = small if full == "uploads" else tmp_path / "data"
    database = shutil.copy(own_database, small / "own.db") if full == "database" else own_database
    path = (small if full == "report" else tmp_path) / "first.jsonl"
    words, environment = command(database, file, data, str(path))
    first = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert first.returncode == 4, first.stdout + first.stderr
    assert "Traceback" not in first.stderr
    assert "run again" in first.stderr or full == "database"
    reported = [json.loads(line) for line in path.read_text("utf-8").splitlines()]  # none is half a line
    assert 0 < len(reported) < 12
    assert {line["outcome"] for line in reported} == {"created"}

    again = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 2  # and the report of the first run stays
    assert "exists and is kept" in again.stderr
    resize(small, 64_000_000)
    second = path.with_name("second.jsonl")
    words, environment = command(database, file, data, str(second))
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    later = [json.loads(line) for line in second.read_text("utf-8").splitlines()]
    assert len(later) == 12
    # What was created by the last line of a full report is in the message.
    unreported = int(full == "report")
    assert first.stderr.count(": created") == unreported
    assert [line["outcome"] for line in later].count("known") == len(reported) + unreported
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT COUNT(*) FROM taken_over").fetchone() == (12,)
        rows = connection.execute(
            "SELECT name, digest, thumbnail, article_id FROM attachments WHERE name GLOB '[0-9][0-9].png'"
        ).fetchall()
        bodies = dict(connection.execute("SELECT id, body FROM articles"))
    assert sorted(row[0] for row in rows) == [f"{number:02}.png" for number in range(12)]
    store = FileStore(data / "uploads")
    for name, digest, thumbnail, article in rows:
        for each in (digest, thumbnail):
            assert hashlib.sha256(store.read(each)).hexdigest() == each
        assert name in bodies[article]


def test_the_command_refuses_a_user_who_does_not_own_the_data(own_database: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        unavailable("another user", "needs root")
    (tmp_path / "share").mkdir()
    (tmp_path / "share" / "x.png").write_bytes(PNG)
    file = tmp_path / "mapping.toml"
    file.write_text(f'operator = "ito"\n{FOLDER}', encoding="utf-8")
    data = tmp_path / "data"
    data.mkdir()
    os.chown(data, 12_345, 12_345)
    path = tmp_path / "report.csv"
    words, environment = command(own_database, file, data, str(path))
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "uid 12345, not 0" in done.stderr
    assert not path.exists()
    words.append("--allow-other-user")
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert path.read_text("utf-8-sig").count("created") == 1


# --- mapping and report -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parameter"),
    [
        ("operator = ", "mapping"),
        ('operator = "tanaka"', "operator"),
        ('operator = "nobody"', "operator"),
        ("", "operator"),
        ('operator = "ito"\npublish = "yes"', "publish"),
        ('operator = "ito"\n[other]', "other"),
        ('operator = "ito"\n[folder]\npath = "x"', "folder"),
        ('operator = "ito"\n[folder]\npath = "x"\ncategory = "品質"\nsecret = 1', "folder.secret"),
        ('operator = "ito"\n[accounts]', "accounts"),
        ('operator = "ito"\n[accounts]\nquery = "SELECT 1"', "database"),
        ('operator = "ito"\n[accounts]\ncsv = "x.csv"\nfields = { username = "a" }', "accounts.fields"),
        (f'operator = "ito"\n{ACCOUNTS}', "accounts.csv"),
        (f'operator = "ito"\n{ACCOUNTS}'.replace("people.csv", "other.csv"), "accounts.fields"),
        (
            'operator = "ito"\ndatabase = "HOME"\n[attachments]\nquery = "SELECT 1"\nfields = {article="a"}',
            "attachments.query",
        ),
    ],
)
def test_a_wrong_mapping_is_named_and_nothing_is_taken_over(
    text: str, parameter: str, app: Any, tmp_path: Path
) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    file = tmp_path / "mapping.toml"
    file.write_text(text, encoding="utf-8")
    services = app.extensions["knowledge"]
    with pytest.raises(ConfigurationError) as caught:
        list(
            TakeOver(
                mapping.read(file),
                sessions=services.sessions,
                search=services.search,
                intake=services.intake,
                clock=services.clock,
                dry_run=False,
                four_eyes=True,
            ).lines()
        )
    assert caught.value.parameter == parameter


def test_the_report_is_harmless_in_a_spreadsheet(tmp_path: Path) -> None:
    line = Line("file", "=cmd()", "skipped", 0, ("a", "b"))
    counts = report.write(tmp_path / "r.csv", [line], lambda _done, _total: None)
    assert counts == {"skipped": 1}
    text = (tmp_path / "r.csv").read_bytes().decode("utf-8-sig")
    assert text == 'kind,source,outcome,id,notes\r\nfile,\'=cmd(),skipped,0,"a\nb"\r\n'
    for name in ("r.txt", "missing/r.csv", "r.csv"):
        with pytest.raises(ConfigurationError):
            report.write(tmp_path / name, [], lambda _done, _total: None)
    assert (tmp_path / "r.csv").read_bytes().decode("utf-8-sig") == text

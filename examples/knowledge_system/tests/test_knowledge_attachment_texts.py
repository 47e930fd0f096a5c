"""The text of attachments: extracted with limits, found with name and page, and gone with the attachment."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfReader, PdfWriter
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfgen.canvas import Canvas
from sqlalchemy import func, select

from knowledge_system.domain.files.file_types import recognise
from knowledge_system.models import AttachmentText
from knowledge_system.services.attachments import attachment_texts, bounded_process
from knowledge_system.services.attachments.file_store import FileStore
from mks_hardening.tasks import TaskWorker

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
SLIDE = "http://schemas.openxmlformats.org/drawingml/2006/main"
TYPES = {
    name: kind
    for kind in attachment_texts.READABLE
    for name in ("wordprocessing", "sheet", "presentation", "pdf")
    if name in kind and (name != "sheet" or kind.endswith("sheet"))
}


def office(parts: dict[str, str | bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {"[Content_Types].xml": "<Types/>", **parts}.items():
            archive.writestr(name, content)
    return file.getvalue()


def docx(*paragraphs: str) -> bytes:
    body = "".join(f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>" for text in paragraphs)
    return office({"word/document.xml": f'<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>'})


def xlsx() -> bytes:
    cells = '<c t="s"><v>0</v></c><c><v>5308</v></c><c t="inlineStr"><is><t>備考の欄</t></is></c>'
    return office(
        {
            "xl/workbook.xml": "<workbook/>",
            "xl/sharedStrings.xml": f'<sst xmlns="{SHEET}"><si><r><t>配合</t></r><r><t>計画書</t></r></si></sst>',
            "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{SHEET}"><row>{cells}</row></worksheet>',
        }
    )


def pptx(*slides: str) -> bytes:
    parts = {
        f"ppt/slides/slide{number}.xml": f'<p xmlns:a="{SLIDE}"><a:p><a:t>{text}</a:t></a:p></p>'
        for number, text in enumerate(slides, 1)
    }
    return office({"ppt/presentation.xml": "<p/>", **parts})


def pdf(*pages: str) -> bytes:
    file = io.BytesIO()
    pdfmetrics.registerFont(UnicodeCIDFont("HeiseiMin-W3"))
    canvas = Canvas(file)
    for text in pages:
        canvas.setFont("HeiseiMin-W3", 12)
        canvas.drawString(72, 700, text)
        canvas.showPage()
    canvas.save()
    return file.getvalue()


def text_of(tmp_path: Path, content: bytes, kind: str) -> str | None:
    store = FileStore(tmp_path)
    return attachment_texts.extract(store, store.keep(content), TYPES[kind])


def test_the_text_of_each_format(tmp_path: Path) -> None:
    assert text_of(tmp_path, docx("溶射の手順", "1.&amp;2."), "wordprocessing") == "溶射の手順\n1.&2.\n\n"
    assert (text_of(tmp_path, xlsx(), "sheet") or "").split() == ["配合計画書", "5308", "備考の欄"]
    slides = pptx(*(f"第{number}枚" for number in range(1, 12)))
    numbered = (text_of(tmp_path, slides, "presentation") or "").split("\f")
    assert [text.strip() for text in numbered] == [*(f"第{number}枚" for number in range(1, 12)), ""]
    pages = (text_of(tmp_path, pdf("出来形の管理", "溶射の膜厚"), "pdf") or "").split("\f")
    assert [page.strip() for page in pages] == ["出来形の管理", "溶射の膜厚", ""]


def encrypted() -> bytes:
    writer, file = PdfWriter(PdfReader(io.BytesIO(pdf("秘密")))), io.BytesIO()
    writer.encrypt("a password", algorithm="RC4-128")
    writer.write(file)
    return file.getvalue()


ENTITIES = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(9))
HOSTILE: dict[str, tuple[bytes, str]] = {
    "document type definition": (
        office({"word/document.xml": f'<!DOCTYPE d [<!ENTITY e0 "x">{ENTITIES}]><d><t>&e9;</t></d>'}),
        "wordprocessing",
    ),
    "not XML": (office({"word/document.xml": "no"}), "wordprocessing"),
    "no archive": (b"PK\x03\x04" + b"\0" * 100, "wordprocessing"),
    "encrypted": (encrypted(), "pdf"),
    "no PDF": (b"%PDF-1.7 nothing startxref 0 %%EOF", "pdf"),
    "a deep tree": (office({"xl/sharedStrings.xml": "<t>" * 30_000_000}), "sheet"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_has_no_text_and_costs_one_process(name: str, tmp_path: Path) -> None:
    assert text_of(tmp_path, *HOSTILE[name]) is None


def test_a_file_that_becomes_large_is_read_in_part(tmp_path: Path) -> None:
    paragraphs = "<w:p><w:t>" + "あ" * 1000 + "</w:t></w:p>"
    bomb = office({"word/document.xml": f'<w:d xmlns:w="{WORD}">{paragraphs * 60_000}</w:d>'})
    assert len(bomb) < 1_000_000
    assert len(text_of(tmp_path, bomb, "wordprocessing") or "") == 2_000_000


@pytest.mark.parametrize(
    ("limit", "program"), [("memory", "bytes(10**9)"), ("time", "import time; time.sleep(60)")]
)
def test_a_program_beyond_its_limits_is_ended(
    limit: str, program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(attachment_texts.file_text.__file__).read_text(encoding="utf-8")
    assert source.count("yield from _office(") == 1
    changed = tmp_path / "file_text.py"
    changed.write_text(
        source.replace("yield from _office(", f"{program}\n        yield from _office("), encoding="utf-8"
    )
    monkeypatch.setattr(attachment_texts, "_PROGRAM", changed)
    monkeypatch.setattr(bounded_process, "_SECONDS", 2 if limit == "time" else 60)
    assert text_of(tmp_path / "store", docx("x"), "wordprocessing") is None


def test_office_files_are_accepted_without_macros() -> None:
    for content, ending in ((docx("x"), ".docx"), (xlsx(), ".xlsx"), (pptx("x"), ".pptx")):
        kind = recognise(content)
        assert kind is not None
        assert kind.endings == (ending,)
        assert kind.type in attachment_texts.READABLE
    assert recognise(office({"word/document.xml": "<d/>", "word/vbaProject.bin": b"x"})) is None
    assert recognise(office({"xl/other.xml": "<d/>"})) is None
    assert recognise(b"PK\x03\x04" + b"\0" * 100) is None


@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_a_word_in_an_attachment_finds_the_article(
    database: str, make_app: Callable[..., Any], visit: Callable[..., Any], request: pytest.FixtureRequest
) -> None:
    options = {"database_url": request.getfixturevalue("postgres_url")} if database == "postgresql" else {}
    app = make_app(**options)
    services, writer = app.extensions["knowledge"], visit("tanaka", at=app)
    article = {"title": "施工計画", "category": "土工", "body": "本文", "status": "draft"}
    made = writer.api("POST", "/api/knowledge", article).json["id"]
    for name, content in {"計画書.pdf": pdf("表紙", "希少語彙の塗膜"), "メモ.docx": docx("ﾀﾞﾐｰ語彙")}.items():
        sent = writer.send(
            "POST",
            f"/api/knowledge/{made}/attachments",
            data={"file": (io.BytesIO(content), name)},
            content_type="multipart/form-data",
            headers={"Accept": "application/json"},
        )
        assert sent.status_code == 201, sent.get_data(as_text=True)

    def found(query: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = writer.api("GET", f"/api/knowledge?status=draft&q={query}").json[
            "items"
        ]
        return items

    assert found("希少語彙") == []
    assert list(TaskWorker(services.background.tasks, schedule=False).run_pending()) == ["done", "done"]
    (item,) = found("希少語彙")
    assert item["id"] == made
    (file,) = item["files"]
    assert file["page"] == 2
    assert [piece["text"] for piece in file["excerpt_pieces"] if piece["found"]] == ["希少語彙"]
    page = writer.get("/articles?status=draft&q=希少語彙").get_data(as_text=True)
    assert (
        f'<a href="/files/{file["id"]}">計画書.pdf</a> <span>2 ページ</span><br><mark>希少語彙</mark>の塗膜'
        in page
    )
    assert [file["page"] for file in found("ダミー")[0]["files"]] == [0]
    (named,) = found("計画書")
    assert [piece["text"] for piece in named["files"][0]["name_pieces"] if piece["found"]] == ["計画書"]
    assert visit("sato", at=app).api("GET", "/api/knowledge?q=希少語彙").json["items"] == []

    assert writer.api("DELETE", f"/api/knowledge/{made}/attachments/{file['id']}").status_code == 204
    assert found("希少語彙") == []
    assert found("ダミー") != []
    assert writer.api("DELETE", f"/api/knowledge/{made}", **{"If-Match": "*"}).status_code in {
        204,
        403,
        412,
        428,
    }


def test_missing_texts_are_read_at_night(make_app: Callable[..., Any], visit: Callable[..., Any]) -> None:
    app = make_app()
    services, writer = app.extensions["knowledge"], visit("tanaka", at=app)
    article = {"title": "施工計画", "category": "土工", "body": "本文", "status": "draft"}
    made = writer.api("POST", "/api/knowledge", article).json["id"]
    path = f"/api/knowledge/{made}/attachments"
    for content in (docx("夜間の語彙"), office({"word/document.xml": "no"})):
        data = {"file": (io.BytesIO(content), "a.docx")}
        writer.send(
            "POST",
            path,
            data=data,
            content_type="multipart/form-data",
            headers={"Accept": "application/json"},
        )
    list(TaskWorker(services.background.tasks, schedule=False).run_pending())

    def texts() -> dict[bool, int]:
        with services.sessions() as session:
            return dict(
                session.execute(
                    select(AttachmentText.readable, func.count()).group_by(AttachmentText.readable)
                ).all()
            )

    assert texts() == {True: 1, False: 1}
    with services.sessions.begin() as session:
        assert attachment_texts.missing(session, most=10) == []
        attachment_texts.remove(session, list(session.scalars(select(AttachmentText.attachment_id))))
    assert texts() == {}
    with services.sessions() as session:
        assert len(attachment_texts.missing(session, most=10)) == 2

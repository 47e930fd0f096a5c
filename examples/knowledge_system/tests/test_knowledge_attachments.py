"""Files of articles over HTTP: who may, what comes back, and what happens when disk or scanner do not work."""

from __future__ import annotations

import base64
import errno
import io
import os
import re
import socket
import struct
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import select

from knowledge_system import configuration_check
from knowledge_system.domain.files import front_matter
from knowledge_system.domain.files.bundle import write_zip
from knowledge_system.domain.files.front_matter import dump
from knowledge_system.domain.problems import Problem
from knowledge_system.models import Attachment
from knowledge_system.services import export_import
from knowledge_system.services.attachments import article_attachments, upload_intake
from knowledge_system.services.attachments.file_store import FileStore
from knowledge_system.services.attachments.virus_scan import (
    ClamdScanner,
    CommandScanner,
    NoScanner,
    ScanFailedError,
    scanner,
)
from knowledge_system.settings import AppSettings
from mks_hardening.exceptions import SettingsError
from mks_hardening.tasks import TaskWorker
from mks_hardening.testing import FrozenClock

PDF = b"%PDF-1.7\n1 0 obj<<>>endobj\nxref\n0 1\ntrailer<<>>\nstartxref\n28\n%%EOF\n"
ARTICLE = {"title": "添付の試し", "category": "土工", "body": "本文です。", "status": "draft"}


def photograph(kind: str = "JPEG", colour: str = "teal") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(file, kind)
    return file.getvalue()


def upload(person: Any, article: int | str, content: bytes, name: str = "現場.jpg", **form: Any) -> Any:
    """By the API, as the editor's script does it."""
    path = f"/api/knowledge/{article}/attachments"
    data = {"file": (io.BytesIO(content), name), **form}
    return person.send(
        "POST", path, data=data, content_type="multipart/form-data", headers={"Accept": "application/json"}
    )


def write(person: Any, **changes: Any) -> int:
    made = person.api("POST", "/api/knowledge", {**ARTICLE, **changes})
    assert made.status_code == 201, made.get_data(as_text=True)
    number: int = made.json["id"]
    return number


def publish(person: Any, reviewer: Any) -> int:
    number = write(person, status="review")
    step = {"step": "approve", "revision": 1}
    assert reviewer.api("POST", f"/api/knowledge/{number}/steps", step).status_code == 200
    return number


def stored(app: Any) -> set[str]:
    return set(app.extensions["knowledge"].intake.store.digests())


def rows(app: Any) -> list[Attachment]:
    with app.extensions["knowledge"].sessions() as session:
        return list(session.scalars(select(Attachment)))


# --- in and out -------------------------------------------------------------------------------


def test_a_photograph_goes_in_and_comes_out(visit: Callable[..., Any], app: Any) -> None:
    person = visit("tanaka")
    number = write(person)
    made = upload(person, number, photograph(), "../現場 写真.jpg")
    assert made.status_code == 201
    assert made.json["name"] == "現場 写真.jpg"
    assert (made.json["content_type"], made.json["width"], made.json["height"]) == ("image/jpeg", 64, 48)
    assert made.headers["Location"] == f"/api/knowledge/{number}/attachments/{made.json['id']}"
    for path in (made.json["url"], made.headers["Location"]):
        shown = person.get(path)
        assert shown.status_code == 200
        assert shown.get_data() == photograph()
        assert shown.headers["Content-Type"] == "image/jpeg"
        assert shown.headers["Content-Disposition"] == (
            "inline; filename=\"file.jpg\"; filename*=UTF-8''%E7%8F%BE%E5%A0%B4%20%E5%86%99%E7%9C%9F.jpg"
        )
        assert shown.headers.get_all("X-Content-Type-Options") == ["nosniff"]
        assert shown.headers.get_all("Content-Security-Policy") == [
            "default-src 'none'; frame-ancestors 'none'; sandbox"
        ]
        assert shown.headers.get_all("Cache-Control") == ["private, no-cache"]
        assert "X-Accel-Redirect" not in shown.headers
    small = person.get(f"{made.json['url']}/small")
    assert (small.status_code, small.headers["Content-Type"]) == (200, "image/webp")
    assert stored(app) == {made.json["sha256"], rows(app)[0].thumbnail}
    page = person.get(f"/articles/{number}").get_data(as_text=True)
    assert f'src="{made.json["url"]}/small"' in page


def test_what_is_no_picture_is_downloaded(visit: Callable[..., Any]) -> None:
    person = visit("tanaka")
    made = upload(person, write(person), PDF, "図面.html").json
    assert made["name"] == "図面.html.pdf"
    got = person.get(made["url"])
    assert got.headers["Content-Type"] == "application/pdf"
    assert got.headers["Content-Disposition"].startswith("attachment; ")
    assert person.get(f"{made['url']}/small").status_code == 404


def test_ranges_and_validators(visit: Callable[..., Any]) -> None:
    person = visit("tanaka")
    url = upload(person, write(person), PDF, "a.pdf").json["url"]
    whole = person.get(url)
    assert whole.headers["Accept-Ranges"] == "bytes"
    part = person.get(url, Range="bytes=0-7")
    assert (part.status_code, part.get_data()) == (206, PDF[:8])
    assert part.headers["Content-Range"] == f"bytes 0-7/{len(PDF)}"
    assert person.get(url, Range="bytes=99999-").status_code == 416
    spared = person.get(url, **{"If-None-Match": whole.headers["ETag"]})
    assert (spared.status_code, spared.get_data()) == (304, b"")
    assert person.send("HEAD", url).headers["Content-Length"] == str(len(PDF))


def test_pages_without_javascript(visit: Callable[..., Any], app: Any) -> None:
    person = visit("tanaka")
    number = write(person)
    form = person.get(f"/articles/{number}/edit").get_data(as_text=True)
    assert 'enctype="multipart/form-data"' in form
    files = [(io.BytesIO(photograph(colour=colour)), f"{colour}.jpg") for colour in ("red", "blue")]
    fields = {"csrf_token": person.token, "file": files}
    done = person.send("POST", f"/articles/{number}/attachments", data=fields)
    assert done.status_code == 303, done.get_data(as_text=True)
    page = person.get(done.headers["Location"]).get_data(as_text=True)
    assert "ファイルを添付しました" in page
    assert page.count('class="quiet small" type="submit" aria-label') == 2
    both = [(io.BytesIO(photograph()), "good.jpg"), (io.BytesIO(b"<svg/>"), "bad.jpg")]
    refused = person.send("POST", f"/articles/{number}/attachments", data={**fields, "file": both})
    assert refused.status_code == 422
    assert "bad.jpg: この種類のファイルは受け付けていません" in refused.get_data(as_text=True)
    assert len(rows(app)) == 2
    first = rows(app)[0].id
    assert person.post(f"/articles/{number}/attachments/{first}/delete", {}).status_code == 303
    assert person.get(f"/files/{first}").status_code == 404


def test_a_picture_of_the_site_is_shown_in_the_text_and_no_other(visit: Callable[..., Any]) -> None:
    person = visit("tanaka")
    number = write(person)
    url = upload(person, number, photograph()).json["url"]
    body = f"![断面]({url})\n\n![外](https://evil.test/x.png)"
    saved = person.api("PUT", f"/api/knowledge/{number}", {**ARTICLE, "body": body, "revision": 1})
    assert saved.status_code == 200
    page = person.get(f"/articles/{number}").get_data(as_text=True)
    assert f'<img src="{url}" alt="断面" loading="lazy">' in page
    assert "evil.test" not in page


# --- who may ----------------------------------------------------------------------------------

WHO = ("tanaka", "suzuki", "sato", "ito", "kobayashi", None)
"""The writer of the article, another one, a reviewer, an administrator, a reader, and nobody."""


ALLOWED = {
    "draft: see": {"tanaka", "sato", "ito"},
    "draft: attach": {"tanaka", "sato", "ito"},
    "draft: detach": {"tanaka", "sato", "ito"},
    "published: see": {"tanaka", "suzuki", "sato", "ito", "kobayashi"},
    "published: attach": {"tanaka", "sato", "ito"},
    "published: detach": {"sato", "ito"},
    "next version: see": {"tanaka", "sato", "ito"},
    "next version: attach": {"tanaka", "sato", "ito"},
    "next version: detach": {"tanaka", "sato", "ito"},
}


def test_who_may_do_what(app: Any, visit: Callable[..., Any], browser: Any, clock: FrozenClock) -> None:
    people = {name: visit(name) if name else browser for name in WHO}
    found: dict[str, set[Any]] = {}
    for case in ALLOWED:
        state, _, act = case.partition(": ")
        clock.advance(61)  # each case has hits of its own
        number = write(people["tanaka"]) if state == "draft" else publish(people["tanaka"], people["sato"])
        ids = put_there(app, number, shown=state != "next version")
        found[case] = {
            name for name, each in zip(WHO, ids, strict=True) if may(people[name], act, number, each)
        }
    assert found == ALLOWED


def put_there(app: Any, number: int, *, shown: bool) -> list[int]:
    """A file for each of them, as if the writer had handed it in."""
    parts = app.extensions["knowledge"]
    digest = parts.intake.store.keep(PDF)
    with parts.sessions.begin() as session:
        made = [
            Attachment(
                article_id=number,
                uploader_id=1,
                name="図面.pdf",
                content_type="application/pdf",
                size=len(PDF),
                digest=digest,
                thumbnail="",
                width=0,
                height=0,
                shown=shown,
                created_at=datetime(2026, 11, 25, tzinfo=UTC),
            )
            for _ in WHO
        ]
        session.add_all(made)
        session.flush()
        return [each.id for each in made]


def may(person: Any, act: str, number: int, attachment: int) -> bool:
    path = f"/api/knowledge/{number}/attachments"
    if act == "see":
        answer = person.get(f"/files/{attachment}")
        listed = person.api("GET", path)
        body = {each["id"] for each in listed.json["items"]} if listed.status_code == 200 else set()
        assert (attachment in body) == (answer.status_code == 200)
    elif act == "attach":
        answer = upload(person, number, PDF)
    else:
        answer = person.api("DELETE", f"{path}/{attachment}")
    assert answer.status_code in {200, 201, 204, 303, 401, 403, 404}
    return bool(answer.status_code < 300)


def test_a_file_of_the_next_version_is_seen_when_that_is_published(visit: Callable[..., Any]) -> None:
    writer, reviewer, reader = visit("tanaka"), visit("sato"), visit("kobayashi")
    number = publish(writer, reviewer)
    made = upload(writer, number, photograph()).json
    assert made["shown"] is False
    assert reader.get(made["url"]).status_code == 404
    assert made["url"] not in reader.get(f"/articles/{number}").get_data(as_text=True)
    assert "次の版で公開" in writer.get(f"/articles/{number}").get_data(as_text=True)
    coming = writer.api("PUT", f"/api/knowledge/{number}", {**ARTICLE, "status": "review", "revision": 1})
    assert coming.json["next"]["status"] == "review"
    assert reader.get(made["url"]).status_code == 404
    step = {"step": "approve", "revision": coming.json["revision"]}
    assert reviewer.api("POST", f"/api/knowledge/{number}/steps", step).status_code == 200
    assert reader.get(made["url"]).status_code == 200


def test_a_file_is_found_under_its_own_article_alone(visit: Callable[..., Any]) -> None:
    person = visit("tanaka")
    one, other = write(person), write(person)
    made = upload(person, one, PDF).json
    assert person.api("GET", f"/api/knowledge/{other}/attachments/{made['id']}").status_code == 404
    assert person.api("DELETE", f"/api/knowledge/{other}/attachments/{made['id']}").status_code == 404
    assert person.api("GET", f"/api/knowledge/{one}/attachments/{made['id']}").status_code == 200


# Of a telephone that was held upright: 64 x 48 pixels, turned by 90 degrees, with maker and position.
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAchtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAA"
    "AAAAADRpbG9jAAAAAERAAAIAAQAAAAAB7AABAAAAAAAAACoAAgAAAAACFgABAAAAAAAAAKgAAAA4aWluZgAAAAAAAgAAABVp"
    "bmZlAgAAAAABAABodmMxAAAAABVpbmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAABB2lwcnAAAADmaXBjbwAAAHZo"
    "dmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAA"
    "AwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAA"
    "AAAAQAAAAEAAAAAoY2xhcAAAAEAAAAABAAAAMAAAAAEAAAAAAAAAAv////AAAAACAAAAEHBpeGkAAAAAAwgICAAAAAlpcm90"
    "AwAAABlpcG1hAAAAAAAAAAEAAQaBAgMFhIYAAAAaaXJlZgAAAAAAAAAOY2RzYwACAAEAAQAAANptZGF0AAAAJigBrxOA5TH3"
    "/9BREHRUQ/SyZk6gxCi1wf+Xwy6a4sQb3Zt+LDfwAAAABkV4aWYAAE1NACoAAAAIAAMBDwACAAAABQAAADIBEgADAAAAAQAG"
    "AACIJQAEAAAAAQAAADgAAAAAQUNNRQAAAAQAAQACAAAAAk4AAAAAAgAFAAAAAwAAAG4AAwACAAAAAkUAAAAABAAFAAAAAwAA"
    "AIYAAAAAAAAAIwAAAAEAAAApAAAAAQAAABYAAAABAAAAiwAAAAEAAAApAAAAAQAAAB4AAAAB"
)


def test_photographs_of_telephones_become_upright_jpegs_without_position(
    visit: Callable[..., Any], app: Any
) -> None:
    assert b"ACME" in HEIC
    person = visit("tanaka")
    number = write(person)
    # As many as go at once, most of them in a format that needs no process of its own.
    contents = [HEIC if each < 3 else photograph() for each in range(30)]
    files = [(io.BytesIO(content), f"IMG_{each:04}.HEIC") for each, content in enumerate(contents)]
    form = person.get(f"/articles/{number}/edit")
    assert form.status_code == 200
    fields = {"csrf_token": person.token, "file": files}
    assert person.send("POST", f"/articles/{number}/attachments", data=fields).status_code == 303
    assert len(rows(app)) == 30
    kept = rows(app)[:3]
    assert [(file.name, file.content_type) for file in kept] == [
        (f"IMG_{each:04}.jpg", "image/jpeg") for each in range(3)
    ]
    assert {(file.width, file.height) for file in kept} == {(48, 64)}
    content = person.get(f"/files/{kept[0].id}").get_data()
    assert b"ACME" not in content
    with Image.open(io.BytesIO(content)) as picture:
        assert not picture.getexif()
        left, right = picture.getpixel((2, 30)), picture.getpixel((45, 30))
    assert left[0] > 150 > left[2]
    assert right[2] > 150 > right[0]
    assert stored(app) >= {file.digest for file in kept}


def test_each_refused_photograph_has_its_message(
    visit: Callable[..., Any], app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = visit("tanaka")
    number = write(person)
    assert upload(person, number, HEIC[:400], "a.heic").json["errors"][0]["code"] == "file-damaged"
    person.get(f"/articles/{number}/edit")
    contents = {"good.heic": HEIC, "cut.heic": HEIC[:400], "<b>.txt": b"no picture", "empty.heic": b""}
    files = [(io.BytesIO(content), name) for name, content in contents.items()]
    data = {"csrf_token": person.token, "file": files}
    refused = person.send("POST", f"/articles/{number}/attachments", data=data)
    assert refused.status_code == 422
    page = refused.get_data(as_text=True)
    for name, reason in {
        "cut.heic": "ファイルが壊れている",
        "&lt;b&gt;.txt": "この種類のファイルは受け付けていません",
        "empty.heic": "ファイルが空です",
    }.items():
        assert f'<p class="error">{name}: {reason}' in page
    assert "good.heic" not in page
    assert rows(app) == []
    monkeypatch.setattr(upload_intake, "find_spec", lambda _name: None)
    assert upload(person, number, HEIC, "a.heic").json["errors"][0]["code"] == "file-heic"


def test_photographs_that_are_converted_occupy_two_threads_at_most(
    visit: Callable[..., Any], app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, other = visit("tanaka"), visit("suzuki")
    number, elsewhere = write(person), write(other)
    running: list[int] = []
    counted, finish = threading.Lock(), threading.Event()

    def convert(*_: Any) -> bytes:
        with counted:
            running.append(1)
            assert len(running) == 1
        finish.wait(60)
        running.pop()
        return photograph()

    monkeypatch.setattr(upload_intake.bounded_process, "run", convert)
    intake = app.extensions["knowledge"].intake
    with ThreadPoolExecutor(12) as pool:
        photos = [pool.submit(intake.checked, "a.heic", HEIC) for _ in range(12)]
        refused = list(islice(as_completed(photos, timeout=60), 10))  # before any of the two is converted
        assert {error.code for each in refused if isinstance(error := each.exception(), Problem)} == {
            "pictures-busy"
        }
        busy = upload(person, number, HEIC, "b.heic")
        assert (busy.status_code, busy.headers["Retry-After"]) == (503, "10")
        assert "ほかの HEIC の写真を変換している" in busy.json["detail"]
        assert upload(other, elsewhere, photograph()).status_code == 201  # needs no conversion
        finish.set()
        converted = [each.result() for each in photos if each not in refused]
    assert [each.name for each in converted] == ["a.jpg", "a.jpg"]
    assert upload(person, number, HEIC, "b.heic").status_code == 201


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "form", "code"),
    [
        (b"", {}, "file-empty"),
        (b"<svg><script>alert(1)</script></svg>", {}, "file-kind"),
        (photograph()[:-60], {}, "file-damaged"),
        (PDF + bytes(100_000), {}, "file-too-large"),
        (PDF, {"status": "published"}, "unknown"),
        (PDF, {"other": (io.BytesIO(PDF), "x.pdf")}, "unknown"),
        (PDF, {"file": ""}, "missing"),
        (PDF, {"file": [(io.BytesIO(PDF), "1"), (io.BytesIO(PDF), "2")]}, "too-many"),
    ],
)
def test_what_is_refused_leaves_nothing(
    make_app: Callable[..., Any],
    visit: Callable[..., Any],
    content: bytes,
    form: dict[str, Any],
    code: str,
) -> None:
    app = make_app()
    app.extensions["knowledge"].intake.limit = 100_000
    person = visit("tanaka", at=app)
    answer = upload(person, write(person), content, **form)
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert code in {error["code"] for error in answer.json["errors"]}
    assert stored(app) == set()
    assert rows(app) == []
    assert not [*(app.extensions["knowledge"].intake.store.folder / ".new").glob("*")]


def test_other_bodies_than_forms_are_no_files(visit: Callable[..., Any], app: Any) -> None:
    person = visit("tanaka")
    path = f"/api/knowledge/{write(person)}/attachments"
    app.extensions["knowledge"].intake.limit = 1000
    form = {"Content-Type": "multipart/form-data; boundary=x", "Accept": "application/json"}
    assert person.send("POST", path, data=bytes(600_000), headers=form).status_code == 413
    assert person.api("POST", path, {"file": "x"}).status_code == 415
    assert person.send("POST", path, data=b"--y\r\nnothing", headers=form).status_code == 422
    assert (
        person.send("POST", path, data=b"", headers={"Content-Type": "multipart/form-data"}).status_code
        == 422
    )


def test_an_article_has_so_many_files_and_no_more(
    visit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(article_attachments, "MOST", 2)
    person = visit("tanaka")
    number = write(person)
    assert [upload(person, number, PDF).status_code for _ in range(3)] == [201, 201, 422]


# --- when something does not work -------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"), [(errno.ENOSPC, 507), (errno.EDQUOT, 507), (errno.EROFS, 503), (errno.EACCES, 503)]
)
def test_a_disk_that_takes_nothing(
    visit: Callable[..., Any], app: Any, monkeypatch: pytest.MonkeyPatch, error: int, status: int
) -> None:
    person = visit("tanaka")
    number = write(person)

    def fail(_descriptor: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fsync", fail)
    answer = upload(person, number, photograph())
    monkeypatch.undo()
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    store = app.extensions["knowledge"].intake.store
    assert stored(app) == set()
    assert not [*(store.folder / ".new").glob("*")]
    assert rows(app) == []
    assert upload(person, number, photograph()).status_code == 201


def test_a_lost_file_is_not_found_and_told(visit: Callable[..., Any], app: Any, caplog: Any) -> None:
    person = visit("tanaka")
    made = upload(person, write(person), PDF).json
    app.extensions["knowledge"].intake.store.path(made["sha256"]).unlink()
    assert person.get(made["url"]).status_code == 404
    assert f"attachment {made['id']} is missing" in caplog.text


@contextmanager
def clamd(reply: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """What speaks ``INSTREAM``, and what it was given."""
    given: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as incoming:
            given.append(incoming.read(10))
            content = b""
            while size := struct.unpack(">I", incoming.read(4))[0]:
                content += incoming.read(size)
            given.append(content)
            connection.sendall(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}", given
    finally:
        thread.join(10)
        listener.close()


@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        (b"stream: OK\0", 201, None),
        (b"stream: Eicar-Test-Signature FOUND\0", 422, "file-infected"),
        (b"INSTREAM size limit exceeded. ERROR\0", 503, None),
        (b"stream: OK FOUND OK\0", 503, None),
        (b"", 503, None),
        (b"x" * 9000, 503, None),
    ],
)
def test_clamd(visit: Callable[..., Any], app: Any, reply: bytes, status: int, code: str | None) -> None:
    person = visit("tanaka")
    number = write(person)
    intake = app.extensions["knowledge"].intake
    with clamd(reply) as (address, given):
        intake._scanner = ClamdScanner(address, timeout=5)
        answer = upload(person, number, PDF * 2000)
    assert given == [b"zINSTREAM\0", PDF * 2000]
    assert answer.status_code == status
    if code:
        assert answer.json["errors"][0]["code"] == code
    assert len(stored(app)) == (status == 201)


@pytest.mark.parametrize(
    ("program", "found"),
    [
        ("import sys; sys.exit(b'EICAR' in sys.stdin.buffer.read())", True),
        ("import sys; sys.exit(2)", None),
        ("import time; time.sleep(60)", None),
    ],
)
def test_a_command_that_scans(tmp_path: Path, program: str, *, found: bool | None) -> None:
    script = tmp_path / "scan.py"
    script.write_text(program)
    scan = CommandScanner(f"{sys.executable} '{script}'", timeout=20 if found else 0.5).scan
    if found is None:
        with pytest.raises(ScanFailedError):
            scan(b"x")
        return
    assert scan(b"clean") == ""
    assert scan(b"EICAR")


def test_a_scanner_that_is_away_refuses(tmp_path: Path) -> None:
    for away in (
        CommandScanner("/no/such/program"),
        ClamdScanner(str(tmp_path / "none")),
        ClamdScanner("nonsense"),
    ):
        with pytest.raises(ScanFailedError):
            away.scan(b"x")
    assert isinstance(scanner("", ""), NoScanner)
    assert isinstance(scanner("true", ""), CommandScanner)
    assert isinstance(scanner("", "/run/clamd"), ClamdScanner)


def test_check_tells_what_uploads_lack(settings_at: Callable[..., AppSettings], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = replace(
        settings_at(f"sqlite:///{tmp_path / 'x.db'}", areas=frozenset({"db"})),
        uploads=tmp_path / "file" / "uploads",
        scan_command="/no/such/program",
    )
    page_text = [finding.text for finding in configuration_check.findings(settings, clock=FrozenClock())]
    assert any("MKS_UPLOADS" in text for text in page_text)
    assert any("scanner does not respond" in text for text in page_text)


@pytest.mark.parametrize(
    "variables",
    [
        {"MKS_UPLOAD_LIMIT": "15"},
        {"MKS_UPLOAD_LIMIT": "0m"},
        {"MKS_UPLOADS_REDIRECT": "uploads"},
        {"MKS_UPLOADS_REDIRECT": "/a/"},
        {"MKS_UPLOADS_REDIRECT": "/../x"},
        {"MKS_SCAN_COMMAND": "a", "MKS_SCAN_SOCKET": "/b"},
    ],
)
def test_settings_of_uploads(variables: dict[str, str]) -> None:
    environ = {"DATABASE_URL": "sqlite://", "MKS_AREAS_OFF": "security,wsgi", **variables}
    with pytest.raises(SettingsError, match="|".join(variables)):
        AppSettings.from_env(environ)


# --- crossings --------------------------------------------------------------------------------


def test_two_people_attach_the_same_file_at_once(visit: Callable[..., Any], app: Any) -> None:
    people = [visit("tanaka"), visit("sato")]
    number = write(people[0])
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda person: upload(person, number, PDF), people))
    assert [answer.status_code for answer in answers] == [201, 201]
    assert len(rows(app)) == 2
    assert len(stored(app)) == 1
    path = f"/api/knowledge/{number}/attachments"
    assert people[0].api("DELETE", f"{path}/{answers[0].json['id']}").status_code == 204
    assert people[0].get(answers[1].json["url"]).get_data() == PDF


def test_an_article_that_is_removed_takes_its_files_along(
    visit: Callable[..., Any], app: Any, clock: FrozenClock
) -> None:
    person = visit("ito")
    number = write(person)
    made = upload(person, number, photograph()).json
    store = app.extensions["knowledge"].intake.store
    path = store.path(made["sha256"])
    with path.open("rb") as downloading:
        tag = person.api("GET", f"/api/knowledge/{number}").headers["ETag"]
        assert person.api("DELETE", f"/api/knowledge/{number}", **{"If-Match": tag}).status_code == 204
        assert person.get(made["url"]).status_code == 404
        assert rows(app) == []
        for file in store.digests():  # files live by the machine's clock
            os.utime(store.path(file), (clock.time(), clock.time()))
        clean(app, clock, days=0)
        assert path.exists()  # an upload whose row is not there yet looks the same
        clean(app, clock, days=2)
        assert not path.exists()
        assert downloading.read() == photograph()
    assert store.path(made["sha256"]).exists()  # a database from before the removal names it again
    clean(app, clock, days=2)
    clean(app, clock, days=8)
    with pytest.raises(FileNotFoundError):
        store.path(made["sha256"])


def clean(app: Any, clock: FrozenClock, *, days: int) -> None:
    clock.advance(days * 86_400)
    parts = app.extensions["knowledge"]
    with parts.engine.begin() as connection:
        parts.background.tasks.known["cleaning.uploads"].enqueue(connection)
    assert list(TaskWorker(parts.background.tasks, schedule=False).run_pending()) == ["done"]


def test_the_clean_up_leaves_what_is_written_meanwhile(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    digest = store.keep(b"x")
    written = store.path(digest).stat().st_mtime
    assert not store.put_aside(digest, unless_since=written - 1, now=written)
    assert store.put_aside(digest, unless_since=written + 1, now=written)
    assert [*store.digests()] == []
    assert store.keep(b"x") == digest
    assert store.read(digest) == b"x"
    with pytest.raises(ValueError, match="digest"):
        store.path("../../etc/passwd")


def test_a_new_article_says_where_a_paste_saves_it_and_goes_on_from_there(
    visit: Callable[..., Any], app: Any
) -> None:
    """What ``uploads.js`` does: a draft by the API, the file to it, the form to its page of editing."""
    writer = visit("tanaka")
    page = writer.get("/articles/new").get_data(as_text=True)
    assert 'data-create="/api/knowledge"' in page
    assert 'action="/articles/new"' in page  # without JavaScript nothing changes
    made = writer.api("POST", "/api/knowledge", {**ARTICLE, "title": "無題の記事", "body": "…"}).json
    assert (made["status"], made["revision"]) == ("draft", 1)
    url = upload(writer, made["id"], photograph(), "画面.jpg").json["url"]
    edit = f"/articles/{made['id']}/edit"
    assert "data-create" not in writer.get(edit).get_data(as_text=True)

    typed = {
        **ARTICLE,
        "title": "貼った記事",
        "body": f"![画面]({url})",
        "tags": "",
        "summary": "",
        "site": "",
    }
    assert writer.post(edit, {**typed, "revision": "1"}).status_code == 303
    assert f'src="{url}"' in writer.get(f"/articles/{made['id']}").get_data(as_text=True)
    # It is a draft like any other: nobody else sees it or its picture, and with it the picture goes.
    other = visit("suzuki")
    assert other.get(f"/articles/{made['id']}").status_code == other.get(url).status_code == 404
    tag = writer.api("GET", f"/api/knowledge/{made['id']}").headers["ETag"]
    assert writer.api("DELETE", f"/api/knowledge/{made['id']}", **{"If-Match": tag}).status_code == 204
    assert writer.get(url).status_code == 404
    assert rows(app) == []
    # Readers cannot begin one.
    assert visit("kobayashi").get("/articles/new").status_code == 403


# --- articles as a zip ------------------------------------------------------------------------


def unpacked(answer: Any) -> dict[str, bytes]:
    assert answer.status_code == 200
    with zipfile.ZipFile(io.BytesIO(answer.get_data())) as made:
        return {name: made.read(name) for name in made.namelist()}


def bring(person: Any, entries: dict[str, bytes]) -> Any:
    person.get("/exchange/import")
    file = io.BytesIO(b"".join(write_zip(entries.items())))
    data = {"csrf_token": person.token, "file": (file, "articles.zip")}
    return person.send("POST", "/exchange/import", data=data)


def test_what_goes_out_comes_in_again(visit: Callable[..., Any], app: Any) -> None:
    writer, reviewer = visit("tanaka"), visit("sato")
    number = write(writer, title='題名: "二つ"\u3000の点', tags=["養生", "rc"], site="北工区")
    urls = [upload(writer, number, photograph(colour=c), "断面 (1).jpg").json["url"] for c in ("red", "blue")]
    drawing = upload(writer, number, PDF, "図面.pdf").json["url"]
    body = f'# 手順\n\n![赤]({urls[0]}) ![青]({urls[1]} "題")\n\n[図面]({drawing}) [他]({"/files/99999"})'
    values = {**ARTICLE, "title": "a: b", "tags": ["養生", "rc"], "site": "北工区", "body": body}
    assert writer.api("PUT", f"/api/knowledge/{number}", {**values, "revision": 1}).status_code == 200
    first = unpacked(reviewer.get(f"/exchange/export?ids={number}"))
    folder = f"article-{number:05d}"
    files = {f"{folder}/files/{name}" for name in ("断面 (1).jpg", "断面 (1)-2.jpg", "図面.pdf")}
    assert first.keys() == {f"{folder}/article.md", *files}
    assert '](files/%E6%96%AD%E9%9D%A2%20%281%29-2.jpg "題")' in first[f"{folder}/article.md"].decode()

    done = bring(reviewer, first)
    assert done.status_code == 303, done.get_data(as_text=True)
    [new] = [
        each["id"]
        for each in reviewer.api("GET", "/api/knowledge?status=draft").json["items"]
        if each["author_username"] == "sato" and each["title"] == "a: b"
    ]
    again = unpacked(reviewer.get(f"/exchange/export?ids={new}"))

    def comparable(bundle: dict[str, bytes], number: int) -> dict[str, Any]:
        result = {name.replace(f"{number:05d}", "n"): content for name, content in bundle.items()}
        facts, text = front_matter.load(result.pop("article-n/article.md").decode())
        return {
            **result,
            "facts": {name: facts[name] for name in ("title", "category", "summary", "tags", "site")},
            "body": text,
        }

    assert comparable(again, new) == comparable(first, number)
    # The files are the same ones, and stand under new addresses.
    article = reviewer.api("GET", f"/api/knowledge/{new}").json
    assert article["status"] == "draft"
    assert urls[0] not in article["body"]
    assert len(stored(app)) == 5
    assert reviewer.get("/exchange/export?ids=99999").status_code == 404
    assert visit("suzuki").get(f"/exchange/export?ids={number}").status_code == 404


def test_a_list_goes_out_as_it_is_filtered(visit: Callable[..., Any]) -> None:
    person = visit("kobayashi")
    listed = person.api("GET", "/api/knowledge?category=足場").json["items"]
    out = unpacked(person.get("/exchange/export?category=足場"))
    assert len(out) == len(listed) > 1
    # What narrows and orders the list narrows the bundle, and a search too.
    for narrowed in (
        "since=2025-12-01&until=2025-12-31&sort=newest",
        "q=養生",
        "q=養生&category=コンクリート",
    ):
        listed = person.api("GET", f"/api/knowledge?{narrowed}").json["items"]
        assert 1 <= len(listed) < 20
        out = unpacked(person.get(f"/exchange/export?{narrowed}"))
        assert {f"article-{each['id']:05d}/article.md" for each in listed} == {
            name for name in out if name.endswith("article.md")
        }
    for path in ("/exchange/export?ids=1%27", "/exchange/export?x=1", "/exchange/export?category=x"):
        assert person.get(path).status_code == 422


def test_some_of_a_list_are_picked(visit: Callable[..., Any]) -> None:
    person = visit("kobayashi")
    listed = person.get("/articles?q=養生").get_data(as_text=True)
    assert 'href="/exchange/choose?q=%E9%A4%8A%E7%94%9F"' in listed
    page = person.get("/exchange/choose?q=養生").get_data(as_text=True)
    offered = re.findall(r'name="id-(\d+)"', page)
    assert 1 < len(offered) <= 20
    assert f"{len(offered)} 件すべて" in page
    out = unpacked(person.get(f"/exchange/export?q=養生&picked=on&id-{offered[0]}=on&id-{offered[1]}=on"))
    assert {name.partition("/")[0] for name in out} == {f"article-{int(one):05d}" for one in offered[:2]}

    # Nothing was picked: not everything goes out, and the page says so where one picks.
    nothing = person.get("/exchange/export?q=養生&picked=on")
    assert nothing.status_code == 422
    assert nothing.mimetype == "text/html"
    assert "記事を一つ以上選んでください" in nothing.get_data(as_text=True)
    assert re.findall(r'name="id-(\d+)"', nothing.get_data(as_text=True)) == offered


def test_what_one_may_not_see_can_be_neither_picked_nor_searched_out(visit: Callable[..., Any]) -> None:
    writer, other = visit("tanaka"), visit("suzuki")
    number = write(writer, title="秘密の養生")
    assert f'name="id-{number}"' in writer.get("/exchange/choose?status=draft").get_data(as_text=True)
    assert f'name="id-{number}"' not in other.get("/exchange/choose?status=draft").get_data(as_text=True)
    assert other.get(f"/exchange/export?picked=on&id-{number}=on").status_code == 404
    assert other.get("/exchange/export?status=draft&q=秘密の養生").status_code == 404
    assert len(unpacked(writer.get("/exchange/export?status=draft&q=秘密の養生"))) == 1


def test_picks_of_other_pages_stay_picked(visit: Callable[..., Any]) -> None:
    person = visit("kobayashi")
    boxes = re.compile(r'name="id-(\d+)"')
    first = boxes.findall(person.get("/exchange/choose").get_data(as_text=True))
    # What the browser sends when the button of page two is pressed.
    second = person.get(f"/exchange/choose?picked=on&id-{first[0]}=on&id-{first[3]}=on&to=2")
    shown = second.get_data(as_text=True)
    here = boxes.findall(shown)
    assert set(here).isdisjoint(first)
    assert "ほかのページで 2 件選んでいます" in shown
    kept = re.search(r'name="ids" value="([0-9.]+)"', shown)[1]
    assert set(kept.split(".")) == {first[0], first[3]}

    out = unpacked(person.get(f"/exchange/export?picked=on&page=2&ids={kept}&id-{here[1]}=on"))
    folders = {name.partition("/")[0] for name in out}
    assert folders == {f"article-{int(one):05d}" for one in (first[0], first[3], here[1])}
    # Back on the first page they are ticked, and one that is no longer ticked is gone.
    back = person.get(f"/exchange/choose?picked=on&page=2&ids={kept}&id-{here[1]}=on&to=1").get_data(
        as_text=True
    )
    assert re.findall(r'name="id-(\d+)" value="on" checked', back) == [first[0], first[3]]
    assert f'name="ids" value="{here[1]}"' in back

    many = ".".join(map(str, range(1, 302)))
    refused = person.get(f"/exchange/export?picked=on&ids={many}")
    assert refused.status_code == 422
    assert "300 個以内" in refused.get_data(as_text=True)


def test_more_than_a_bundle_takes_goes_out_in_parts(
    visit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_import, "MOST_ARTICLES", 20)
    person = visit("kobayashi")
    page = person.get("/exchange/choose?sort=confirmed").get_data(as_text=True)
    assert "件すべて" not in page
    total = int(re.search(r"全部で (\d+) 件あります。20 件ずつ", page)[1])
    parts = re.findall(r'name="part" value="(\d+)"[^>]*>([^<]+)<', page)
    assert [number for number, _ in parts] == ["1", "2", "3"]
    assert parts[-1][1] == f"41–{total} 件目"
    # Together they are everything, and nothing twice.
    found = [
        name
        for number, _ in parts
        for name in unpacked(person.get(f"/exchange/export?sort=confirmed&part={number}"))
        if name.endswith("article.md")
    ]
    assert len(found) == len(set(found)) == total
    assert person.get("/exchange/export?part=4").status_code == 404
    assert person.get("/exchange/export").status_code == 422


GOOD = dump({"title": "よい", "category": "土工"}, "本文").encode()


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"readme.txt": b"x"}, "article.md がありません"),
        ({"a/article.md": b"no facts"}, "先頭の項目"),
        ({"a/article.md": b"\xff"}, "UTF-8"),
        ({"a/article.md": dump({"title": "x"}, "y").encode()}, "category"),
        ({"a/article.md": dump({"title": "x", "category": "土工", "role": "admin"}, "y").encode()}, "role"),
        ({"a/article.md": dump({"title": 1, "category": "土工"}, "y").encode()}, "title"),
        ({"a/article.md": GOOD, "a/files/x.svg": b"<svg/>"}, "a/files/x.svg"),
        ({"a/article.md": GOOD, "a/files/x.jpg": photograph()[:-60]}, "a/files/x.jpg"),
        ({"a/article.md": GOOD, "b/files/x.pdf": PDF}, "b/files/x.pdf"),
        ({"a/article.md": GOOD, "a/../../article.md": GOOD}, "名前が正しくありません"),
    ],
)
def test_one_error_in_a_bundle_adds_nothing(
    visit: Callable[..., Any], app: Any, entries: dict[str, bytes], said: str
) -> None:
    person = visit("sato")
    answer = bring(person, {"good/article.md": GOOD, **entries} if "readme.txt" not in entries else entries)
    assert answer.status_code == 422
    assert said in answer.get_data(as_text=True)
    titles = [each["title"] for each in person.api("GET", "/api/knowledge?status=draft").json["items"]]
    assert "よい" not in titles
    assert stored(app) == set()


def test_bundles_are_for_reviewers(visit: Callable[..., Any]) -> None:
    for name, status in (("sato", 303), ("ito", 303), ("tanaka", 403), ("kobayashi", 403)):
        assert bring(visit(name), {"a/article.md": GOOD}).status_code == status


def test_a_bundle_goes_out_while_it_is_written(visit: Callable[..., Any], app: Any) -> None:
    person = visit("tanaka")
    numbers = [write(person, title=f"記事 {each}") for each in range(3)]
    lost = upload(person, numbers[0], photograph(), "失われた.jpg").json["sha256"]
    app.extensions["knowledge"].intake.store.path(lost).unlink()
    answer = person.client.open(
        f"/exchange/export?ids={','.join(map(str, numbers))}",
        base_url="https://localhost:8443",
        environ_base={"REMOTE_ADDR": "127.0.0.1"},
    )
    assert "Content-Length" not in answer.headers
    pieces = answer.iter_encoded()
    received = next(pieces)
    # Nothing of the database is held while somebody reads slowly, and what is gone by then is left out.
    tag = person.api("GET", f"/api/knowledge/{numbers[2]}").headers["ETag"]
    assert person.api("DELETE", f"/api/knowledge/{numbers[2]}", **{"If-Match": tag}).status_code == 204
    received += b"".join(pieces)
    with zipfile.ZipFile(io.BytesIO(received)) as made:
        assert made.testzip() is None
        assert made.namelist() == [f"article-{each:05d}/article.md" for each in numbers[:2]]
    assert list(app.extensions["knowledge"].intake.store.folder.glob(".new/*")) == []


def test_what_is_too_much_is_refused_before_it_goes_out(
    visit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    person = visit("tanaka")
    number = write(person)
    upload(person, number, photograph(), "写真.jpg")
    monkeypatch.setattr(export_import, "MOST_BYTES", 100)
    answer = person.get(f"/exchange/export?ids={number}")
    assert answer.status_code == 422
    assert "いくつかの zip に分けてください" in answer.get_data(as_text=True)


def test_a_bundle_of_more_pictures_than_can_be_looked_at(
    visit: Callable[..., Any], app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_import, "MOST_PIXELS", 3 * 64 * 48)
    person = visit("sato")
    entries = {f"a/files/{each}.jpg": photograph(colour=each) for each in ("red", "blue", "green", "white")}
    answer = bring(person, {"a/article.md": GOOD, **entries})
    assert answer.status_code == 422
    assert "百万画素を超えています" in answer.get_data(as_text=True)
    assert stored(app) == set()
    del entries["a/files/white.jpg"]
    assert bring(person, {"a/article.md": GOOD, **entries}).status_code == 303


def test_whoever_added_a_file_does_not_approve_it_alone(visit: Callable[..., Any]) -> None:
    writer, reviewer, other = visit("tanaka"), visit("sato"), visit("yamamoto")
    number = write(writer, status="review")
    assert upload(reviewer, number, photograph(), "写真.jpg").status_code == 201
    step = {"step": "approve", "revision": 1}
    refused = reviewer.api("POST", f"/api/knowledge/{number}/steps", step)
    assert (refused.status_code, refused.json["type"]) == (403, "/problems/own-work")
    assert other.api("POST", f"/api/knowledge/{number}/steps", step).status_code == 200
    # What has been approved once binds nobody any more.
    values = {**ARTICLE, "body": "次の版", "status": "review", "revision": 1}
    assert writer.api("PUT", f"/api/knowledge/{number}", values).status_code == 200
    step = {"step": "approve", "revision": 2}
    assert reviewer.api("POST", f"/api/knowledge/{number}/steps", step).status_code == 200


def test_whoever_took_a_file_away_does_not_approve_it_alone(visit: Callable[..., Any]) -> None:
    writer, reviewer, other = visit("tanaka"), visit("sato"), visit("yamamoto")
    number = write(writer, status="review")
    files = [upload(writer, number, photograph(), name).json["url"] for name in ("一.jpg", "二.jpg")]
    own = upload(reviewer, number, photograph(), "三.jpg").json["url"]
    steps, removed = f"/api/knowledge/{number}/steps", f"/api/knowledge/{number}/attachments"

    def take_away(person: Any, url: str) -> None:
        assert person.api("DELETE", f"{removed}/{url.rpartition('/')[2]}").status_code == 204

    take_away(reviewer, own)  # which was there because of the reviewer alone
    take_away(writer, files[0])
    assert writer.api("GET", f"/api/knowledge/{number}").json["revision"] == 1
    take_away(reviewer, files[1])
    assert other.api("POST", steps, {"step": "approve", "revision": 1}).status_code == 409
    refused = reviewer.api("POST", steps, {"step": "approve", "revision": 2})
    assert (refused.status_code, refused.json["type"]) == (403, "/problems/own-work")
    seen = other.api("GET", f"/api/knowledge/{number}").json
    assert [entry["editor"] for entry in seen["history"]] == ["佐藤 誠", "田中 健一"]
    assert other.api("POST", steps, {"step": "approve", "revision": 2}).status_code == 200
    # Of the next version too, whose readers go on seeing the text of before.
    upload(writer, number, photograph(), "四.jpg")
    values = {**ARTICLE, "body": "次の版", "status": "review", "revision": 2}
    assert writer.api("PUT", f"/api/knowledge/{number}", values).status_code == 200
    [file] = writer.api("GET", removed).json["items"]
    take_away(other, file["url"])
    assert other.api("POST", steps, {"step": "approve", "revision": 4}).status_code == 403
    assert other.api("GET", f"/api/knowledge/{number}").json["body"] == ARTICLE["body"]
    assert reviewer.api("POST", steps, {"step": "approve", "revision": 4}).status_code == 200
    assert other.api("GET", f"/api/knowledge/{number}").json["body"] == "次の版"


def test_files_are_approved_as_they_were_seen(visit: Callable[..., Any]) -> None:
    writer, reviewer = visit("tanaka"), visit("sato")
    number = publish(writer, reviewer)
    values = {**ARTICLE, "body": "次の版", "status": "review", "revision": 1}
    assert writer.api("PUT", f"/api/knowledge/{number}", values).status_code == 200
    seen = upload(writer, number, photograph(), "見た写真.jpg").json["id"]
    page = reviewer.get(f"/articles/{number}/history/2").get_data(as_text=True)
    assert "見た写真.jpg" in page
    assert f'name="files" value="{seen}"' in page
    later = upload(writer, number, photograph(colour="red"), "後からの写真.jpg").json["id"]
    step = {"step": "approve", "revision": "2", "comment": "", "files": str(seen)}
    again = reviewer.post(f"/articles/{number}/steps", step)
    assert again.status_code == 409
    assert "後からの写真.jpg" in again.get_data(as_text=True)
    assert reviewer.post(f"/articles/{number}/steps", {**step, "files": f"{seen},{later}"}).status_code == 303

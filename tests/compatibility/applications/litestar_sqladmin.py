"""Litestar with the admin of SQLAdmin: forms, uploads, a WebSocket, server-sent events, pages of its OpenAPI."""

from __future__ import annotations

from compatibility_walks import Application, Visit


def walk(visit: Visit) -> None:
    page = visit.page
    with visit.step("sign in"):
        visit.go("/admin/login")
        visit.sees("input[name=username]").fill("admin")
        page.fill("input[name=password]", "compatibility")
        page.click("[type=submit]")
        visit.sees("a:has-text('Orders')")
    with visit.step("write and upload"):
        visit.go("/admin/order/create")
        visit.sees("#customer").fill("Ada")
        page.set_input_files("#receipt", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"a receipt"})
        page.click("input[value=Save]")
        visit.sees("td:has-text('Ada')")
    with visit.step("edit"):
        visit.sees("a[href*='/admin/order/edit/']").click()
        visit.sees("#customer").fill("Ada Byron")
        page.click("input[value=Save]")
        visit.sees("td:has-text('Ada Byron')")
    with visit.step("search"):
        visit.go("/admin/order/list")
        visit.sees("#search-input").fill("Byron")
        page.click("#search-button")
        page.wait_for_url("**/list?search=*")
        visit.sees("td:has-text('Ada Byron')")
    with visit.step("download"):
        visit.go("/admin/order/list")
        visit.sees("button:has-text('Export'), a:has-text('Export')").click()
        assert b"Ada Byron" in visit.download(lambda: visit.sees("a:has-text('CSV')").click())
    with visit.step("file"):
        visit.go("/files/a.txt")
        visit.sees("text=a receipt")
    with visit.step("upload by a script"):
        visit.go("/admin/")
        answer = page.evaluate(
            """async () => {
            const data = new FormData();
            data.append("data", new File(["x".repeat(300000)], "b.txt"));
            const r = await fetch("/receipts", {method: "POST", body: data});
            return await r.text() }"""
        )
        assert answer == '{"size":300000}', answer
    with visit.step("WebSocket"):
        said = page.evaluate(
            """() => new Promise((resolve, reject) => {
            const socket = new WebSocket(location.origin.replace("http", "ws") + "/echo");
            socket.onopen = () => socket.send("good morning");
            socket.onmessage = event => { socket.close(); resolve(event.data) };
            socket.onerror = () => reject(new Error("no connection")) })"""
        )
        assert said == "you wrote good morning"
    with visit.step("server-sent events"):
        parts = page.evaluate(
            """() => new Promise((resolve, reject) => {
            const source = new EventSource("/events"), parts = [];
            source.onmessage = event => { parts.push(event.data); if (parts.length == 3) done() };
            source.onerror = () => reject(new Error("no stream"));
            const done = () => { source.close(); resolve(parts) } })"""
        )
        assert parts == ["part 0", "part 1", "part 2"]
    with visit.step("pages of the API"):
        visit.go("/schema/swagger")
        visit.go("/schema/scalar")
        assert "/receipts" in visit.fetch("/schema/openapi.json")
    with visit.step("delete"):
        visit.go("/admin/order/list")
        visit.sees("a[data-bs-target='#modal-delete'][data-pk]").click()
        visit.sees("#modal-delete-button").click()
        page.locator("td:has-text('Ada')").wait_for(state="detached")
    with visit.step("sign out"):
        visit.go("/admin/logout")
        visit.go("/admin/order/list")
        visit.sees("input[name=password]")


APPLICATION = Application(
    name="litestar_sqladmin",
    distribution="litestar",
    kind="asgi",
    framework="Litestar",
    files={"files/.keep": ""},
    start="""
import asyncio
from pathlib import Path
from typing import Annotated, Any

from fastapi_storages import FileSystemStorage
from fastapi_storages.integrations.sqlalchemy import FileType
from litestar import Litestar, get, post, websocket
from litestar.datastructures import UploadFile
from litestar.enums import RequestEncodingType
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import ScalarRenderPlugin, SwaggerRenderPlugin
from litestar.params import Body
from litestar.response import ServerSentEvent
from litestar.static_files import create_static_files_router
from sqladmin import ModelView
from sqladmin.authentication import AuthenticationBackend
from sqladmin_litestar_plugin import SQLAdminPlugin
from sqlalchemy import String, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

home = Path(__file__).parent
engine = create_engine(f"sqlite:///{home}/app.db", connect_args={"check_same_thread": False})


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str] = mapped_column(String(80))
    receipt: Mapped[Any] = mapped_column(FileType(FileSystemStorage(path=str(home / "files"))), nullable=True)


Base.metadata.create_all(engine)


class OrderAdmin(ModelView, model=Order):
    column_list = [Order.id, Order.customer, Order.receipt]
    column_searchable_list = [Order.customer]


class Password(AuthenticationBackend):
    async def login(self, request):
        form = await request.form()
        if form["password"] != "compatibility":
            return False
        request.session["user"] = form["username"]
        return True

    async def logout(self, request):
        request.session.clear()
        return True

    async def authenticate(self, request):
        return "user" in request.session


@post("/receipts")
async def upload(data: Annotated[UploadFile, Body(media_type=RequestEncodingType.MULTI_PART)]) -> dict[str, int]:
    content = await data.read()
    (home / "files" / "received.txt").write_bytes(content)
    return {"size": len(content)}


@get("/events")
async def events() -> ServerSentEvent:
    async def parts():
        for number in range(3):
            yield {"data": f"part {number}"}
            await asyncio.sleep(0.05)

    return ServerSentEvent(parts())


@websocket("/echo")
async def echo(socket: Any) -> None:
    await socket.accept()
    while True:
        await socket.send_text("you wrote " + await socket.receive_text())


app = Litestar(
    route_handlers=[upload, events, echo, create_static_files_router("/files", directories=[home / "files"])],
    openapi_config=OpenAPIConfig(
        title="Site", version="1", render_plugins=[SwaggerRenderPlugin(), ScalarRenderPlugin()]
    ),
    plugins=[
        SQLAdminPlugin(views=[OrderAdmin], engine=engine, authentication_backend=Password("compatibility"))
    ],
)
""",
    walk=walk,
    headers="""\
["/schema/"]
csp.script-src = ["https://cdn.jsdelivr.net", "'unsafe-inline'"]
csp.style-src = ["https://cdn.jsdelivr.net", "'unsafe-inline'"]
csp.img-src = ["https://cdn.jsdelivr.net"]
""",
    looser=(
        "the pages of the API load Swagger UI and Scalar from a CDN and contain scripts and styles",
        "API のページでは、CDN の Swagger UI と Scalar、ページ内のスクリプトとスタイルを許可",
    ),
    page="/admin/login",
)

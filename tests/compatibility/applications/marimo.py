"""A notebook of marimo served as an application: Starlette, a session over a WebSocket, workers of the browser."""

from __future__ import annotations

from compatibility_walks import Application, Visit

_NOTEBOOK = """
import marimo

app = marimo.App()


@app.cell
def _():
    import marimo as mo

    return (mo,)


@app.cell
def _(mo):
    number = mo.ui.number(1, 10, label="Number")
    name = mo.ui.text(label="Name")
    file = mo.ui.file(label="File")
    mo.vstack([number, name, file])
    return file, name, number


@app.cell
def _(file, mo, name, number):
    mo.md(f"Twice is {number.value * 2}, name is {name.value}, file is {(file.contents() or b'').decode()}.")
    return


@app.cell
def _(mo):
    mo.vstack([mo.ui.table([{"place": "Nara"}]), mo.download(b"content", filename="report.txt", label="Report")])
    return


if __name__ == "__main__":
    app.run()
"""


def walk(visit: Visit) -> None:
    page = visit.page
    with visit.step("open the notebook"):
        visit.go("/")
        visit.sees("text=Twice is 2")
    with visit.step("change a number over the WebSocket"):
        page.locator("marimo-number input").first.fill("4")
        page.locator("marimo-number input").first.press("Enter")
        visit.sees("text=Twice is 8")
    with visit.step("type a text"):
        page.locator("marimo-text input").first.fill("Ann")
        page.locator("marimo-text input").first.press("Enter")
        visit.sees("text=name is Ann")
    with visit.step("upload a file"):
        file = {"name": "a.txt", "mimeType": "text/plain", "buffer": b"uploaded"}
        page.locator("input[type=file]").first.set_input_files(file)
        visit.sees("text=file is uploaded")
    with visit.step("table"):
        visit.sees("marimo-table >> text=Nara")
    with visit.step("download"):
        assert visit.download(lambda: page.locator("marimo-download >> text=Report").click()) == b"content"


APPLICATION = Application(
    name="marimo",
    distribution="marimo",
    kind="asgi",
    framework="Starlette",
    files={"notebook.py": _NOTEBOOK},
    start="""
from pathlib import Path

import marimo

app = marimo.create_asgi_app().with_app(path="", root=str(Path(__file__).with_name("notebook.py"))).build()
""",
    walk=walk,
    headers="""\
csp.script-src = ["'unsafe-inline'", "'wasm-unsafe-eval'"]
csp.style-src = ["'unsafe-inline'"]
csp.font-src = ["data:"]
csp.base-uri = ["'self'"]
""",
    looser=(
        "Pages may contain scripts and styles, fonts in `data:` addresses, and a `base` element",
        "ページ内のスクリプトとスタイル、`data:` のフォント、`base` 要素を許可",
    ),
)

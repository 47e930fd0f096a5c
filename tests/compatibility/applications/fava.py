"""Fava shows a Beancount ledger: a single-page front end with WebAssembly and an editor."""

from __future__ import annotations

from compatibility_walks import Application, Visit

_LEDGER = """
option "title" "Site"
option "operating_currency" "EUR"
option "documents" "documents"
2026-01-01 open Assets:Bank EUR
2026-01-01 open Expenses:Food EUR
2026-01-01 commodity EUR
2026-01-02 * "Baker" "Bread"
  Expenses:Food  3.00 EUR
  Assets:Bank
"""


def walk(visit: Visit) -> None:
    page = visit.page
    with visit.step("front page"):
        visit.go("/site/income_statement/")
        visit.sees("svg")
    for name in ("balance_sheet", "journal", "holdings", "statistics", "options"):
        with visit.step(name.replace("_", " ")):
            visit.go(f"/site/{name}/")
            visit.sees("article h2, article table, article ol, article svg, article p")
    with visit.step("query"):
        visit.go("/site/query/")
        visit.sees("article .cm-content").fill("select account, sum(position) group by account")
        page.keyboard.press("Control+Enter")
        visit.sees("article td:has-text('Expenses:Food')")
    with visit.step("write a transaction"):
        visit.go("/site/income_statement/#add-transaction")
        visit.sees("form input[placeholder=Payee]").fill("Grocer")
        page.locator("form input[placeholder=Account]").nth(0).fill("Expenses:Food")
        page.locator("form input[placeholder=Amount]").nth(0).fill("7.00 EUR")
        page.locator("form input[placeholder=Account]").nth(1).fill("Assets:Bank")
        page.locator("form button[type=submit]").first.click()
        page.locator("form input[placeholder=Payee]").wait_for(state="detached")
        visit.go("/site/journal/")
        visit.sees("article >> text=Grocer")
    with visit.step("edit the file"):
        visit.go("/site/editor/")
        visit.sees("article .cm-content").click()
        page.keyboard.press("Control+Home")
        page.keyboard.insert_text("2026-01-01 open Assets:Cash EUR\n")
        with page.expect_response(lambda response: response.request.method == "PUT") as saved:
            page.keyboard.press("Control+s")
        assert saved.value.ok
        visit.go("/site/editor/")
        visit.sees("article .cm-content:has-text('Assets:Cash')")
    with visit.step("download the ledger"):
        assert b"Baker" in visit.download(lambda: page.evaluate("location = '/site/download-journal/'"))
    with visit.step("upload a document"):
        visit.go("/site/balance_sheet/")
        assert "Uploaded" in visit.page.evaluate(
            """async () => {
            const data = new FormData();
            data.append("file", new File(["receipt"], "2026-01-03 receipt.txt"));
            data.append("folder", "documents"); data.append("account", "Assets:Bank"); data.append("hash", "");
            const r = await fetch("/site/api/add_document", {method: "PUT", body: data});
            return await r.text() }"""
        )


APPLICATION = Application(
    name="fava",
    distribution="fava",
    kind="wsgi",
    framework="Flask",
    files={"site.beancount": _LEDGER, "documents/.keep": ""},
    start="""
from pathlib import Path
from fava.application import create_app

app = create_app([Path(__file__).with_name("site.beancount")])
""",
    walk=walk,
    headers="""\
csp.script-src = ["'wasm-unsafe-eval'"]
csp.style-src-elem = ["'unsafe-inline'"]
csp.style-src-attr = ["'unsafe-inline'"]
""",
    looser=(
        "The editor may compile WebAssembly for its parser, and insert styles",
        "エディターによる WebAssembly のコンパイル（構文解析）とスタイルの挿入を許可",
    ),
    page="/site/income_statement/",
)

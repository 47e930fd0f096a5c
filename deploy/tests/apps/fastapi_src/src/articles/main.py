"""The application."""

import json
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from fastapi.staticfiles import StaticFiles
from sqlalchemy import select

from articles.config import get_settings
from articles.database import Article, Session

STATIC = Path(__file__).parent / "static"


def create_app() -> FastAPI:
    app = FastAPI(title="Articles")
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.get("/", response_class=PlainTextResponse)
    async def index() -> str:
        async with Session.begin() as session:
            session.add(Article(title="nail"))
            titles = await session.scalars(select(Article.title).limit(get_settings().page_size))
            return f"items: {', '.join(titles)}"

    @app.get("/healthz", response_class=PlainTextResponse)
    async def healthz() -> str:
        return "ok"

    return app


app = create_app()

if __name__ == "__main__":
    (STATIC / "openapi.json").write_text(json.dumps(app.openapi()), encoding="utf-8")

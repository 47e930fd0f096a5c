"""Spans of statements that a real PostgreSQL has answered or refused."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import create_async_engine

from mks_hardening.contrib.otel_observer import OpenTelemetryObserver
from mks_hardening.db import hardened_engine

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

pytestmark = pytest.mark.postgres


def observed() -> tuple[OpenTelemetryObserver, InMemorySpanExporter]:
    kept = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    return OpenTelemetryObserver(tracer_provider=provider), kept


def result(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def test_an_answer_and_a_refusal(postgres_url: str) -> None:
    observer, kept = observed()
    engine = hardened_engine(postgres_url)
    observer.watch_engine(engine)
    with engine.connect() as connection:
        connection.execute(text("select relname from pg_class where relname = 'secret' limit 2")).all()
        with pytest.raises(ProgrammingError):
            connection.execute(text("select * from nowhere"))
    engine.dispose()
    url = make_url(postgres_url)
    answered, refused = (
        span for span in kept.get_finished_spans() if "pg_class" in span.name or "nowhere" in span.name
    )
    assert answered.name == "SELECT pg_class"
    where = {"db.system.name": "postgresql", "db.namespace": url.database}
    if url.host:
        where |= {"server.address": url.host, "server.port": url.port}
    assert {**result(answered), **where} == result(answered)
    assert result(refused)["db.response.status_code"] == "42P01"
    assert result(refused)["error.type"] == "UndefinedTable"
    assert "secret" not in answered.to_json()


def test_an_engine_for_asyncio(postgres_url: str) -> None:
    observer, kept = observed()
    url = make_url(postgres_url).set(drivername="postgresql+asyncpg")

    async def ask() -> None:
        engine = create_async_engine(url)
        observer.watch_engine(engine)
        async with engine.connect() as connection:
            (await connection.execute(text("select 1 from pg_class limit 1"))).all()
        observer.unwatch_engine(engine)
        await engine.dispose()

    asyncio.run(ask())
    assert "SELECT pg_class" in [span.name for span in kept.get_finished_spans()]

"""Template environment: user, times in Japan, CSRF field, versioned static files."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

from flask import Flask, Response, request
from markupsafe import Markup, escape

from knowledge_system.domain import labels, permissions, translations
from knowledge_system.domain.problems import FieldError, error_text
from knowledge_system.web import current_request
from mks_hardening.contrib.flask_app import csp_nonce


def install(app: Flask) -> None:
    """Register filters and template globals."""
    app.jinja_env.filters.update(
        jst=lambda value: translations.written(_jst(value), "minute", current_request.language()),
        jst_date=lambda value: translations.written(_jst(value), "day", current_request.language()),
        jst_time=lambda value: _jst(value).strftime("%H:%M"),
        jst_seconds=lambda value: translations.written(_jst(value), "second", current_request.language()),
        duration=_duration,
        marked=_marked,
        spaced=lambda secret: " ".join(secret[i : i + 4] for i in range(0, len(secret), 4)),
        error_text=_error_text,
        said=current_request.say,
        in_its_language=_in_its_language,
        bytes=_bytes,
    )
    app.jinja_env.add_extension("jinja2.ext.i18n")
    app.jinja_env.extend(newstyle_gettext=True)
    app.jinja_env.policies["ext.i18n.trimmed"] = True
    app.jinja_env.globals.update(zip=zip, _=_said, gettext=_said)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.context_processor(_values)
    app.after_request(_add_language_fields)


def _values() -> dict[str, Any]:
    left = _whole_seconds(current_request.handle().expires_in) if current_request.actor_or_none() else None
    token = current_request.csrf_token()
    language = current_request.language()
    settings, background = current_request.services().settings, current_request.services().background
    return {
        "_": _translator(language),
        "actor": current_request.actor_or_none(),
        "asset": asset,
        "csp_nonce": csp_nonce(),
        "csrf_field": partial(_csrf_field, token),
        "once_field": _once_field,
        "csrf_token": token,
        "demo": settings.demo,
        "done": current_request.say(labels.DONE.get(request.args.get("done", ""), "")),
        "labels": labels,
        "language": language,
        "languages": translations.LANGUAGES if token or not current_request.is_hardened() else {},
        "request_id": current_request.request_id(),
        "rules": permissions,
        "say": current_request.say,
        "session_ends_soon": left is not None and left <= settings.warn_before,
        # Viewing a page resets the idle timeout: a remaining time below it comes from the absolute timeout.
        "session_can_extend": left is not None and left >= settings.hardening.wsgi.session_idle_timeout - 2,
        "session_expires_in": left,
        "warn_before": int(settings.warn_before),
        "with_passkeys": current_request.services().passkeys is not None,
        "with_tasks": background is not None,
        "with_mail": background is not None and background.sends_mail,
    }


def asset(name: str) -> str:
    """Return the URL of the current version of a static file."""
    return f"/static/{name}?v={_digest(name)}"


def _marked(pieces: Iterable[Mapping[str, Any]] = ()) -> Markup:
    """Render the pieces of a text with the search matches highlighted."""
    texts = ((escape(piece["text"]), piece["found"]) for piece in pieces)
    # One join per text: a macro for each of sixty texts took a fifth of the rendering time.
    return Markup("".join(f"<mark>{text}</mark>" if found else text for text, found in texts))  # noqa: S704 - escaped above


def _csrf_field(token: str) -> Markup:
    return Markup('<input type="hidden" name="csrf_token" value="{}">').format(token) if token else Markup("")


def _once_field() -> Markup:
    return Markup('<input type="hidden" name="{}" value="{}">').format(
        current_request.ONCE, secrets.token_urlsafe(16)
    )


def _jst(value: str | float | datetime) -> datetime:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    elif isinstance(value, (int, float)):
        value = datetime.fromtimestamp(value, UTC)
    return value.astimezone(permissions.JST)


def _duration(seconds: int) -> str:
    minutes, rest = divmod(int(seconds), 60)
    if minutes >= 60:
        return current_request.say("%(hours)s 時間 %(minutes)s 分", hours=minutes // 60, minutes=minutes % 60)
    if not minutes:
        return current_request.say("%(seconds)s 秒", seconds=rest)
    return current_request.say("%(minutes)s 分 %(seconds)s 秒", minutes=minutes, seconds=rest)


def _bytes(size: int) -> str:
    return f"{size / 1_048_576:.1f} MB" if size >= 1_048_576 else f"{max(1, size // 1024)} KB"


def _whole_seconds(value: float | None) -> int | None:
    return None if value is None else max(0, int(value))


def _error_text(error: FieldError) -> Markup:
    return escape(error_text(error, language=current_request.language()))


def _said(text: str, **values: object) -> Markup:
    """Translate a text into the language of the request, for templates without the values of a page."""
    return _translator(current_request.language())(text, **values)


@cache
def _translator(language: str) -> Callable[..., Markup]:
    """Return the function that translates a text of a template, which may contain tags; its values are escaped.

    A text that is not in the catalogue, like the name of a site, is shown unchanged. A page has a hundred texts,
    most of them without values: these are translated once.
    """
    known: dict[str, Markup] = {}

    def said(text: str, **values: object) -> Markup:
        if not values and text in known:
            return known[text]
        if text not in translations.english():
            return escape(text)
        safe = {name: value if isinstance(value, int) else escape(value) for name, value in values.items()}
        sentence = Markup(translations.say(text, language, **safe))  # noqa: S704 - escaped above
        if not values:
            known[text] = sentence
        return sentence

    return said


def _in_its_language(text: str) -> Markup:
    """Return the ``lang`` attribute of a text in another language than its page (WCAG 2.2, 3.1.2)."""
    foreign = current_request.language() != "ja" and translations.is_japanese(text)
    return Markup(' lang="ja"') if foreign else Markup("")


def _add_language_fields(response: Response) -> Response:
    if response.mimetype == "text/html":
        current_request.add_language_fields(response)
    return response


@cache
def _digest(name: str) -> str:
    path = Path(__file__).parent.parent / "static" / name
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]

"""Tables shared by the templates: headers, stripped request headers, error pages, systemd units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from mks_hardening.wsgi import HeaderPolicy

if TYPE_CHECKING:
    from mks_deploy.settings.definitions import Settings

__all__ = [
    "EDGE_ERRORS",
    "EDGE_HEADERS",
    "STRIPPED_HEADERS",
    "UNITS",
    "EdgeError",
    "Slot",
    "Timer",
    "Unit",
    "page_headers",
    "timers",
]

Slot = Literal["blue", "green"]
"""A place where a version runs; two exist side by side."""

EDGE_HEADERS: Final = dict(HeaderPolicy.web(hsts=None, csp=None).fields)
"""Headers of nginx's own pages and of files that users uploaded."""

_SHARED: Final = {
    "X-Frame-Options": "SAMEORIGIN",
    # A window that signs in elsewhere can report back.
    "Cross-Origin-Opener-Policy": "same-origin-allow-popups",
    "Cross-Origin-Resource-Policy": "same-site",
    # Empty: only the application knows what its pages load, and which features they use.
    "Cross-Origin-Embedder-Policy": "",
    "Permissions-Policy": "",
}


def page_headers(settings: Settings) -> dict[str, str]:
    """Return the headers of pages and static files for which the application sends none; empty for no field.

    They take nothing from a page that was written without them; ``mks_hardening`` sends its own.
    """
    if settings.app.hardened:
        return dict(EDGE_HEADERS)
    embedded = {"X-Frame-Options": "", "Cross-Origin-Resource-Policy": "cross-origin"}
    return {**EDGE_HEADERS, **_SHARED, **(embedded if settings.edge.embeddable else {})}


STRIPPED_HEADERS: Final = (
    # httpoxy, CVE-2016-5385
    "Proxy",
    # non-standard forms of client address, scheme, host and method, each of which some framework trusts
    "Forwarded",
    "Forwarded-For",
    "X-Forwarded",
    "X-Forwarded-By",
    "X-Forwarded-Prefix",
    "X-Forwarded-Protocol",
    "X-Forwarded-Scheme",
    "X-Forwarded-Server",
    "X-Forwarded-Ssl",
    "X-Forwarded-Path",
    "X-Forwarded-Uri",
    "X-Url-Scheme",
    "Front-End-Https",
    "X-Real-IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "X-Originating-IP",
    "X-Remote-Addr",
    "X-ProxyUser-Ip",
    "True-Client-IP",
    "CF-Connecting-IP",
    "Fastly-Client-IP",
    "X-Host",
    "X-HTTP-Host-Override",
    "X-Original-Host",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Original-Method",
    "X-HTTP-Method",
    "X-HTTP-Method-Override",
    "X-Method-Override",
    "X-Script-Name",
    "Script-Name",
    "Remote-User",
    "X-Remote-User",
    "X-Forwarded-User",
    "X-Accel-Redirect",
    "X-Sendfile",
)


@dataclass(frozen=True, slots=True)
class EdgeError:
    """An error page that nginx serves itself."""

    status: int
    title: str
    reason: str
    japanese: str


EDGE_ERRORS: Final = (
    EdgeError(
        400, "Bad Request", "The request could not be understood.", "リクエストを解釈できませんでした。"
    ),
    EdgeError(403, "Forbidden", "This is not open to you.", "このページは公開されていません。"),
    EdgeError(404, "Not Found", "There is nothing here.", "ページが見つかりません。"),
    EdgeError(405, "Method Not Allowed", "This cannot be done here.", "この操作はできません。"),
    EdgeError(
        408, "Request Timeout", "The request took too long to arrive.", "受信に時間がかかりすぎました。"
    ),
    EdgeError(413, "Content Too Large", "What you sent is too large.", "送信されたデータが大きすぎます。"),
    EdgeError(414, "URI Too Long", "The address is too long.", "アドレスが長すぎます。"),
    EdgeError(421, "Misdirected Request", "This name is not served here.", "このホスト名は扱っていません。"),
    EdgeError(
        429,
        "Too Many Requests",
        "Too many requests; wait a moment.",
        "アクセスが集中しています。少し待ってください。",
    ),
    EdgeError(500, "Internal Server Error", "Something went wrong here.", "内部エラーが発生しました。"),
    EdgeError(502, "Bad Gateway", "The application cannot be reached.", "アプリケーションに接続できません。"),
    EdgeError(
        503,
        "Service Unavailable",
        "Under maintenance; back soon.",
        "ただいまメンテナンス中です。しばらくお待ちください。",
    ),
    EdgeError(504, "Gateway Timeout", "The application took too long.", "応答に時間がかかりすぎました。"),
)


def _always(_settings: Settings) -> bool:
    return True


def _copies(settings: Settings) -> bool:
    return bool(settings.offsite.repository) and settings.is_main


def _renews(settings: Settings) -> bool:
    return settings.tls.source == "acme" and settings.has_role("edge")


@dataclass(frozen=True, slots=True)
class Unit:
    """A systemd unit, its template and condition. ``{name}`` in ``file`` is the name of the site."""

    template: str
    file: str
    wanted: Callable[[Settings], bool] = _always


@dataclass(frozen=True, slots=True)
class Timer:
    """The schedule of a unit."""

    unit: str
    what: str
    when: tuple[str, ...]
    spread: str = ""


UNITS: Final = (
    Unit("app.service", "{name}@.service", lambda s: s.edge.mode == "nginx" and s.has_role("web")),
    Unit("app.service", "{name}.service", lambda s: s.edge.mode == "direct"),
    Unit("redirect.service", "{name}-redirect.service", lambda s: s.edge.mode == "direct"),
    Unit("app.socket", "{name}@.socket", lambda s: s.edge.mode == "nginx" and s.has_role("web")),
    Unit("app.socket", "{name}.socket", lambda s: s.edge.mode == "direct"),
    Unit("redirect.socket", "{name}-redirect.socket", lambda s: s.edge.mode == "direct"),
    Unit("worker.service", "{name}-worker.service", lambda s: s.runs_tasks),
    Unit("beat.service", "{name}-beat.service", lambda s: s.runs_beat),
    Unit("pooler.service", "{name}-pooler.service", lambda s: s.pools_here),
    Unit("renew.service", "{name}-renew.service", _renews),
    Unit("rehearse.service", "{name}-rehearse.service", lambda s: bool(s.rehearsal_directory) and _renews(s)),
    Unit("migrate.service", "{name}-migrate@.service", lambda s: bool(s.app.migrate) and s.is_main),
    Unit("backup.service", "{name}-backup.service", lambda s: s.is_main),
    Unit("base.service", "{name}-base.service", lambda s: s.serves_database),
    Unit("guard.service", "{name}-guard.service", lambda s: s.guards_primary),
    Unit("offsite.service", "{name}-offsite.service", _copies),
    Unit("offsite-rehearse.service", "{name}-offsite-rehearse.service", _copies),
    Unit("logrotate.service", "{name}-logrotate.service"),
    Unit("watch.service", "{name}-watch.service"),
    Unit("sink.service", "{name}-sink.service", lambda s: s.upkeep.mail_sink),
    Unit("logs.service", "{name}-logs.service", lambda s: bool(s.logs.ship)),
    Unit("alert.service", "{name}-alert@.service"),
    Unit("firewall.service", "{name}-firewall.service", lambda s: s.host.firewall),
    Unit("firewall-undo.service", "{name}-firewall-undo.service", lambda s: s.host.firewall),
    Unit("firewall-undo.timer", "{name}-firewall-undo.timer", lambda s: s.host.firewall),
)


def timers(settings: Settings) -> tuple[Timer, ...]:
    """Return the timers of a deployment."""
    chosen = [
        # Hourly, so that a fast-growing file is rotated before the disk is full.
        Timer("logrotate", "hourly rotation of log files", ("hourly",), "2min"),
        Timer("watch", "looks every five minutes", ("*:0/5",)),
    ]
    if settings.serves_database:
        when = f"Sun *-*-* {settings.upkeep.backup_at}:00"
        chosen.insert(0, Timer("base", "the weekly base backup of PostgreSQL", (when,)))
    if settings.is_main:
        chosen.insert(0, Timer("backup", "the daily backup", (f"*-*-* {settings.upkeep.backup_at}:00",)))
    if _copies(settings):
        when = f"Mon *-*-* {settings.offsite.rehearse_at}:00"
        chosen.append(Timer("offsite-rehearse", "the weekly restore from a copy elsewhere", (when,)))
    if _renews(settings):
        # Twice a day: early enough if the CA requests an early renewal (ARI).
        chosen.append(Timer("renew", "looks twice a day whether to renew", ("*-*-* 00,12:00:00",), "11h"))
    return tuple(chosen)

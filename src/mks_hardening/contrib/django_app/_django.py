"""The parts of Django in use, with types, because Django ships none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from mks_hardening._core.optional_imports import optional

__all__ = [
    "DEFAULT_TIMEOUT",
    "REDIRECT_FIELD_NAME",
    "AppConfig",
    "BaseCache",
    "BaseCommand",
    "CommandError",
    "FromDjango",
    "HttpResponse",
    "HttpResponseBase",
    "PermissionDenied",
    "SafeString",
    "SessionBase",
    "SessionInterrupted",
    "SessionMiddleware",
    "UpdateError",
    "cached_property",
    "checks",
    "connection_of",
    "environ_of",
    "get_resolver",
    "import_string",
    "in_tests",
    "model_classes",
    "model_of",
    "project",
    "setting_changed",
    "signals",
    "signing",
    "username_field",
    "validate_host",
]

FromDjango: TypeAlias = Any
"""An object from Django."""

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    DEFAULT_TIMEOUT: object
    REDIRECT_FIELD_NAME: str
    HttpResponse: FromDjango
    HttpResponseBase: type
    SafeString: type[str]
    cached_property: type
    checks: FromDjango
    get_resolver: FromDjango
    import_string: Callable[[str], object]
    mail: object
    setting_changed: FromDjango
    signals: FromDjango
    signing: FromDjango

    def validate_host(host: str, allowed_hosts: Sequence[str]) -> bool: ...

    class CommandError(Exception):
        """From ``django.core.management.base``."""

        def __init__(self, *args: object, returncode: int = 1) -> None: ...

    class BaseCommand:
        """From ``django.core.management.base``."""

        help: str
        stdout: FromDjango

    class AppConfig:
        """From ``django.apps``."""

        name: str
        label: str
        verbose_name: str

        def ready(self) -> None: ...

    class BaseCache:
        """From ``django.core.cache.backends.base``."""

        default_timeout: float | None

        def __init__(self, params: Mapping[str, object]) -> None: ...
        def make_key(self, key: str, version: int | None = None) -> str: ...
        def make_and_validate_key(self, key: str, version: int | None = None) -> str: ...

    class SessionBase:
        """From ``django.contrib.sessions.backends.base``."""

        modified: bool
        _session_cache: dict[str, object]

        def __init__(self, session_key: str | None = None) -> None: ...
        def __contains__(self, key: str) -> bool: ...
        def __getitem__(self, key: str) -> object: ...
        def __setitem__(self, key: str, value: object) -> None: ...
        def clear(self) -> None: ...
        def update(self, dict_: Mapping[str, object]) -> None: ...
        def get_expire_at_browser_close(self) -> bool: ...
        def get_expiry_age(self) -> float: ...
        def _get_session(self, no_load: bool = False) -> dict[str, object]: ...  # noqa: FBT001, FBT002

    class SessionMiddleware:
        """From ``django.contrib.sessions.middleware``."""

        SessionStore: type[FromDjango]

        def __init__(self, get_response: Callable[..., FromDjango]) -> None: ...
        def process_request(self, request: FromDjango) -> None: ...
        def process_response(self, request: FromDjango, response: FromDjango) -> FromDjango: ...

    class PermissionDenied(Exception):  # noqa: N818
        """From ``django.core.exceptions``."""

    class SessionInterrupted(Exception):  # noqa: N818
        """From ``django.contrib.sessions.exceptions``."""

    class UpdateError(Exception):
        """From ``django.contrib.sessions.backends.base``."""

else:
    with optional("django", extra="django"):
        from django.apps import AppConfig
        from django.contrib.auth import REDIRECT_FIELD_NAME, signals
        from django.contrib.sessions.backends.base import SessionBase, UpdateError
        from django.contrib.sessions.exceptions import SessionInterrupted
        from django.contrib.sessions.middleware import SessionMiddleware
        from django.core import checks, mail, signing
        from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache
        from django.core.exceptions import PermissionDenied
        from django.core.management.base import BaseCommand, CommandError
        from django.core.signals import setting_changed
        from django.http import HttpResponse
        from django.http.request import validate_host
        from django.http.response import HttpResponseBase
        from django.urls import get_resolver
        from django.utils.functional import cached_property
        from django.utils.module_loading import import_string
        from django.utils.safestring import SafeString


def project() -> FromDjango:
    """Return the settings of the project; late, because inspecting the object already loads the settings."""
    from django.conf import settings

    return settings


def environ_of(request: FromDjango) -> dict[str, FromDjango]:
    """Return the WSGI environ or the ASGI scope of a request, which our middleware outside Django has filled."""
    found: dict[str, FromDjango] = getattr(request, "scope", None) or request.META
    return found


def in_tests() -> bool:
    """Return whether Django's test environment is active, which replaces the mail backend with an outbox."""
    return hasattr(mail, "outbox")


def username_field() -> str:
    """Return the name of the credential that names a user; late, because it needs the project's models."""
    from django.contrib.auth import get_user_model

    find: Callable[[], FromDjango] = get_user_model
    return str(find().USERNAME_FIELD)


def connection_of(alias: str | None) -> FromDjango:
    """Return the connection of this thread to a database; by default to the default one."""
    from django.db import transaction

    module: FromDjango = transaction
    return module.get_connection(alias)


def model_classes() -> tuple[FromDjango, FromDjango]:
    """Return the classes ``Model`` and ``QuerySet``; late, because ``settings.py`` may import this module."""
    from django.db.models import Model, QuerySet

    return Model, QuerySet


def model_of(label: str) -> FromDjango:
    """Return a model class by application and name, such as ``shop.article``.

    Raises:
        LookupError: there is none.
    """
    from django.apps import apps

    registry: FromDjango = apps
    return registry.get_model(label)

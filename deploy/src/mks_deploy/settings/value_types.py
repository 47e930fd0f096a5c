"""Value types of ``deploy.toml``: each validates strictly and describes its format.

``read`` returns the value or raises ``ValueError`` with a text that completes "... must be". Messages never contain
the given value: it may be a misplaced secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Final, Generic, TypeVar
from urllib.parse import urlsplit

__all__ = [
    "Kind",
    "a_celery_app",
    "a_choice",
    "a_command",
    "a_flag",
    "a_host",
    "a_host_label",
    "a_list_of",
    "a_mapping",
    "a_module_object",
    "a_network",
    "a_number",
    "a_path",
    "a_policy",
    "a_private_address",
    "a_reason",
    "a_relative_path",
    "a_repository",
    "a_seconds",
    "a_size",
    "a_slug",
    "a_time_of_day",
    "a_token",
    "a_url",
    "a_url_path",
    "a_variable",
    "a_webhook",
    "an_address",
    "an_image",
    "an_ssh_name",
]

T = TypeVar("T")
K = TypeVar("K")

_HOST: Final = re.compile(
    r"(?=.{1,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
)
_LABEL: Final = re.compile(r"[a-z](?:[a-z0-9-]{0,22}[a-z0-9])?")
_SLUG: Final = re.compile(r"[a-z][a-z0-9-]{1,22}[a-z0-9]")
# Characters that are safe in every rendered format: no space, quote, semicolon, brace, dollar or percent
# sign.
_PATH: Final = re.compile(r"/[A-Za-z0-9._@+/-]*")
_AMOUNT: Final = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)")
_SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_SIZE: Final = re.compile(r"([0-9]{1,9})([kmg])")
_BYTES: Final = {"k": 1024, "m": 1024**2, "g": 1024**3}
_ADDRESS: Final = re.compile(r"[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9.-]{1,253}")
_OBJECT: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*(\(\))?", re.ASCII)
_IMAGE: Final = re.compile(r"[a-z0-9][a-z0-9._/-]{0,200}:[A-Za-z0-9._-]{1,128}(@sha256:[0-9a-f]{64})?")
_TIME: Final = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")
_CELERY: Final = re.compile(r"[A-Za-z_][\w.]*(:[A-Za-z_]\w*)?", re.ASCII)
_URL_PATH: Final = re.compile(r"/[A-Za-z0-9._~-]*(?:/[A-Za-z0-9._~-]+)*/?")
_RELATIVE: Final = re.compile(r"[A-Za-z0-9_.@+-][A-Za-z0-9._@+-]*(?:/[A-Za-z0-9._@+-]+)*")
_WORD: Final = re.compile(r"[A-Za-z0-9._@+=:/,()-]{1,200}")
_REASON: Final = re.compile(r"[^\x00-\x1f\x7f%]{10,200}")
_VARIABLE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,99}")
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{0,200}")


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """A type of value.

    Attributes:
        form: short description of the format, for the example file.
        read: converts a TOML value to its Python value.
    """

    form: str
    read: Callable[[object], T]


def _matching(form: str, pattern: re.Pattern[str]) -> Kind[str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ValueError(form)
        return value

    return Kind(form, read)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")  # noqa: TRY004 - collected with all other errors
    return value


a_flag: Final = Kind("true or false", _flag)
a_host: Final = _matching("a host name in lower case, without port", _HOST)
a_host_label: Final = _matching("1 to 24 of a-z, 0-9 and -, beginning with a letter", _LABEL)
a_slug: Final = _matching("3 to 24 of a-z, 0-9 and -, beginning with a letter", _SLUG)
an_address: Final = _matching("a mail address", _ADDRESS)
a_module_object: Final = _matching("module:object or module:function()", _OBJECT)
a_celery_app: Final = _matching("module or module:object", _CELERY)
a_token: Final = _matching("letters, digits, - and _", _TOKEN)
an_image: Final = _matching("an image with a tag, and best with @sha256:... and its 64 digits", _IMAGE)
a_time_of_day: Final = _matching("a time of day, HH:MM", _TIME)


a_url_path: Final = _matching("a path such as /healthz, of letters, digits and . _ ~ - /", _URL_PATH)
a_variable: Final = _matching("the name of an environment variable, in capitals", _VARIABLE)
a_reason: Final = _matching("a reason of 10 to 200 characters in one line, without a percent sign", _REASON)


def _relative(value: object) -> str:
    if not isinstance(value, str) or not _RELATIVE.fullmatch(value) or ".." in value.split("/"):
        raise ValueError("a path below the source tree, such as shop/static, without ..")
    return value


a_relative_path: Final = Kind("a path below the source tree", _relative)


def _command(value: object) -> tuple[str, ...]:
    """Read the words of a command; units and shells parse words of these characters alike."""
    words = value if isinstance(value, list) else []
    if not words or not all(isinstance(word, str) and _WORD.fullmatch(word) for word in words):
        raise ValueError(
            'a list of words, such as ["python", "manage.py", "migrate"]: no quotes, blanks or $ %'
        )
    if "/" in words[0] or "=" in words[0]:
        raise ValueError(
            "a list of words that begins with a program of the virtual environment, without a path"
        )
    return tuple(words)


a_command: Final = Kind("a list of words, the program first", _command)


def _path(value: object) -> str:
    if not isinstance(value, str) or not _PATH.fullmatch(value) or ".." in value.split("/") or "//" in value:
        raise ValueError("an absolute path of letters, digits and . _ @ + - /, without ..")
    return value.rstrip("/") or "/"


a_path: Final = Kind("an absolute path", _path)


def _policy(value: object) -> str:
    from mks_hardening.exceptions import ConfigurationError
    from mks_hardening.wsgi import ContentSecurityPolicy, HeaderPolicy

    if value in _PRESETS:
        # Framing by the site itself, as X-Frame-Options of these pages says.
        return str(getattr(HeaderPolicy, str(value))().csp.framed_by("'self'").header_value())
    # In a quoted word of nginx, these would end it or begin a variable.
    if not isinstance(value, str) or not re.fullmatch(r"[ -~]{1,4000}", value) or set(value) & set('"\\$'):
        raise ValueError(a_policy.form)
    directives = [part.split() for part in value.split(";") if part.strip()]
    named = {name.lower(): words or True for name, *words in directives}
    try:
        # default-src may be missing: the policy is for applications that have none at all.
        ContentSecurityPolicy({"default-src": "*", **named})
    except ConfigurationError:
        raise ValueError(a_policy.form) from None
    if len(named) != len(directives):
        raise ValueError(a_policy.form)
    return "; ".join(" ".join(words) for words in directives)


_PRESETS: Final = ("web", "legacy", "api")
a_policy: Final = Kind(
    "a Content-Security-Policy such as default-src 'self'; img-src 'self' data:, or web, legacy or api, with each "
    'directive once and keywords in single quotes, without comma, ", \\ and $',
    _policy,
)


def a_number(minimum: int, maximum: int) -> Kind[int]:
    """Return the type of an integer within the limits."""
    form = f"a whole number from {minimum} to {maximum}"

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
            raise ValueError(form)
        return value

    return Kind(form, read)


def a_choice(*words: str) -> Kind[str]:
    """Return the type of one of several words."""
    form = " or ".join(words)

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError(form)
        return value

    return Kind(form, read)


def a_seconds(minimum: int, maximum: int) -> Kind[int]:
    """Return the type of a duration with unit, read as whole seconds."""
    form = f'a duration with its unit, such as "30s", "5m" or "90d", from {minimum} s to {maximum} s'

    def read(value: object) -> int:
        found = _AMOUNT.fullmatch(value) if isinstance(value, str) else None
        if found is None or not minimum <= (seconds := int(found[1]) * _SECONDS[found[2]]) <= maximum:
            raise ValueError(form)
        return int(seconds)

    return Kind(form, read)


def a_size(minimum: int, maximum: int) -> Kind[int]:
    """Return the type of a size with unit, read as bytes."""
    form = f'a size such as "16m", from {minimum // 1024}k to {maximum // 1024**2}m'

    def read(value: object) -> int:
        found = _SIZE.fullmatch(value) if isinstance(value, str) else None
        if found is None or not minimum <= (size := int(found[1]) * _BYTES[found[2]]) <= maximum:
            raise ValueError(form)
        return size

    return Kind(form, read)


def a_url(*schemes: str) -> Kind[str]:
    """Return the type of a URL with one of the schemes, without credentials, whitespace or fragment."""
    form = (
        f"an address beginning with {' or '.join(f'{scheme}://' for scheme in schemes)}, without credentials"
    )

    def read(value: object) -> str:
        if (
            not isinstance(value, str)
            or not re.fullmatch(r"[!-~]{1,500}", value)
            or set(value) & set("\"'`\\{}$;")
        ):
            raise ValueError(form)
        parts = urlsplit(value)
        if parts.scheme not in schemes or not parts.hostname or parts.username or parts.fragment:
            raise ValueError(form)
        return value

    return Kind(form, read)


_TOKEN_IN_PATH: Final = re.compile(r"/(?=[^/]*[0-9])[^/]{16,}")


def _webhook(value: object) -> str:
    if value in {"", "file"}:
        return str(value)
    url = a_url("https", "http").read(value)
    parts = urlsplit(url)
    # As the hooks of chats have them: each account of a host can read its settings.
    if parts.query or _TOKEN_IN_PATH.search(parts.path):
        raise ValueError(a_webhook.form)
    return url


a_webhook: Final = Kind(
    '"file", for an address in the secret alert_webhook_url, or an address without a token, which each account '
    "of the host can read",
    _webhook,
)

_REPOSITORY: Final = re.compile(
    r"sftp:(?:[a-z_][a-z0-9_-]{0,31}@)?[a-z0-9.-]{1,253}:/[A-Za-z0-9._/-]{1,200}"
    r"|sftp://(?:[a-z_][a-z0-9_-]{0,31}@)?[a-z0-9.-]{1,253}:[0-9]{1,5}//[A-Za-z0-9._/-]{1,200}"
    r"|rest:https://[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?/[A-Za-z0-9._/-]{0,200}"
    r"|rest:http://(?:localhost|127\.0\.0\.1)(?::[0-9]{1,5})?/[A-Za-z0-9._/-]{0,200}"
    r"|s3:https://[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?/[A-Za-z0-9._/-]{1,200}"
    r"|/[A-Za-z0-9._@+/-]{1,200}"
)


def _repository(value: object) -> str:
    if value == "":
        return ""
    if not isinstance(value, str) or not _REPOSITORY.fullmatch(value):
        raise ValueError(a_repository.form)
    return value


a_repository: Final = Kind(
    "an address of restic without credentials: sftp:user@host:/path, rest:https://host/path, "
    "s3:https://host/bucket/path, or a path",
    _repository,
)


def _without_zone(value: object) -> str:
    """Return the text of an address; a zone (RFC 4007) may hold any character, and Python accepts each."""
    if not isinstance(value, str) or "%" in value:
        raise ValueError
    return value


def _network(value: object) -> str:
    try:
        return str(ip_network(_without_zone(value)))
    except ValueError:
        raise ValueError(a_network.form) from None


a_network: Final = Kind("a network such as 203.0.113.0/24", _network)


# RFC 1918, 6598 and 4193; Python's `is_private` counts addresses of documentation too.
_PRIVATE: Final = tuple(
    ip_network(text)
    for text in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "fc00::/7",
        "::1/128",
    )
)


def _private_address(value: object) -> str:
    try:
        address = ip_address(_without_zone(value))
    except ValueError:
        address = None
    if address is None or not any(address in network for network in _PRIVATE):
        raise ValueError(f"{a_private_address.form}, because PostgreSQL, Redis and plain http listen there")
    return str(address)


a_private_address: Final = Kind("an address of a private network, such as 10.0.0.11", _private_address)


def _ssh_name(value: object) -> str:
    # A name that began with a dash would be an option of ssh.
    if not isinstance(value, str) or not _SSH.fullmatch(value):
        raise ValueError(an_ssh_name.form)
    return value


_SSH: Final = re.compile(
    r"(?:[a-z_][a-z0-9_-]{0,31}@)?[A-Za-z0-9\[](?:[A-Za-z0-9.:\]-]{0,250}[A-Za-z0-9\]])?"
)

an_ssh_name: Final = Kind("what ssh calls it, such as root@server", _ssh_name)


def a_list_of(kind: Kind[T]) -> Kind[tuple[T, ...]]:
    """Return the type of a list of distinct values of one type."""
    form = f"a list, each {kind.form}"

    def read(value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise ValueError(form)  # noqa: TRY004 - collected with all other errors
        items = tuple(kind.read(item) for item in value)
        if len(set(items)) != len(items):
            raise ValueError("a list without repetition")
        return items

    return Kind(form, read)


def a_mapping(key: Kind[K], kind: Kind[T]) -> Kind[tuple[tuple[K, T], ...]]:
    """Return the type of a table whose keys and values have one type each."""
    form = f"a table; its keys: {key.form}; its values: {kind.form}"

    def read(value: object) -> tuple[tuple[K, T], ...]:
        if not isinstance(value, Mapping):
            raise ValueError(form)  # noqa: TRY004 - collected with all other errors
        return tuple((key.read(name), kind.read(item)) for name, item in value.items())

    return Kind(form, read)

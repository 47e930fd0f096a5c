"""Settings that an application declares itself, read together with those of this package."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field
from inspect import get_annotations
from typing import (
    Any,
    ClassVar,
    Final,
    Self,
    TypeVar,
    cast,
    dataclass_transform,
    overload,
)

from mks_hardening._core.checks import boolean, choice, function, text_of
from mks_hardening.exceptions import ConfigurationError, SettingsError, SettingsWarning
from mks_hardening.settings._annotation_parsers import AnyParser, Bound, Kind, custom_parser, parser_of
from mks_hardening.settings._variables import Source
from mks_hardening.settings.hardening import HardeningSettings, environment_of, read_hardening
from mks_hardening.settings.variable_table import (
    Variable,
    register_variables,
    table_row,
    unknown_variables,
    variables,
)

__all__ = ["ApplicationSettings", "setting"]

T = TypeVar("T")

_KEY: Final = "mks_hardening.setting"
_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]*", re.ASCII)


@overload
def setting(
    description: str,
    *,
    default: T,
    minimum: Bound | None = None,
    maximum: Bound | None = None,
    kind: Kind | None = None,
    parse: Callable[[str], T] | None = None,
    form: str = "",
    secret: bool = False,
    required_in_production: bool = False,
    name: str | None = None,
) -> T: ...
@overload
def setting(
    description: str,
    *,
    minimum: Bound | None = None,
    maximum: Bound | None = None,
    kind: Kind | None = None,
    parse: Callable[[str], object] | None = None,
    form: str = "",
    secret: bool = False,
    name: str | None = None,
) -> Any: ...
def setting(
    description: str,
    *,
    default: object = MISSING,
    minimum: Bound | None = None,
    maximum: Bound | None = None,
    kind: Kind | None = None,
    parse: Callable[[str], object] | None = None,
    form: str = "",
    secret: bool = False,
    required_in_production: bool = False,
    name: str | None = None,
) -> Any:
    """Declare one variable of an ``ApplicationSettings`` class.

    The annotation of the field decides how the text is read: ``bool``, ``int``, ``float``, ``str``, ``timedelta``
    (``250ms``, ``30s``, ``8h``, ``7d``), ``Path``, a ``Literal`` of texts, and ``tuple[T, ...]`` or
    ``frozenset[T]`` for comma-separated lists of these; ``T | None`` is read as ``T``.

    Args:
        description: what the setting is for, as one sentence.
        default: value if the variable is not set; without a default, the variable is required.
        minimum: smallest accepted number or duration.
        maximum: largest accepted number or duration.
        kind: ``"size"`` for an ``int`` of bytes (``64KiB``, ``100MB``), ``"duration"`` for a ``float`` of seconds
            (``30s``), ``"url"`` for a ``str`` with the URL of a web server.
        parse: function that converts the text, for any other type; it raises ``ValueError`` if the text is invalid.
        form: what ``parse`` accepts, completing "the variable must be …".
        secret: whether the value is hidden in the ``repr`` and in errors, and may be read from the file that the
            variable with the suffix ``_FILE`` names.
        required_in_production: whether the variable must be set while ``MKS_ENV`` is ``production``.
        name: whole name of the variable; by default the prefix of the class and the name of the field in capitals.

    Raises:
        ConfigurationError: an option has the wrong type, or ``parse`` and ``form`` are not given together.
    """
    text_of(description, parameter="description", empty=False)
    boolean(secret, parameter="secret")
    boolean(required_in_production, parameter="required_in_production")
    text_of(form, parameter="form")
    if kind is not None:
        choice(kind, ("duration", "size", "url"), parameter="kind")
    if parse is not None:
        function(parse, parameter="parse")
        if kind is not None or minimum is not None or maximum is not None:
            raise ConfigurationError(
                "parse replaces kind, minimum and maximum: check the bounds in parse", parameter="parse"
            )
    if (parse is None) != (form == ""):
        raise ConfigurationError("parse and form must be given together", parameter="form")
    if name is not None and not (isinstance(cast("object", name), str) and _NAME.fullmatch(name)):
        raise ConfigurationError(
            "name must be the whole name of a variable: capitals, digits and '_'", parameter="name"
        )
    if required_in_production and default is MISSING:
        raise ConfigurationError(
            "required_in_production requires a default for other environments", parameter="default"
        )
    declared = _Declared(
        description, minimum, maximum, kind, parse, form, secret, required_in_production, name
    )
    return field(default=default, repr=not secret, metadata={_KEY: declared})


@dataclass(frozen=True, slots=True)
class _Declared:
    """Options of ``setting``, until the annotation and the prefix are known."""

    description: str
    minimum: Bound | None
    maximum: Bound | None
    kind: Kind | None
    parse: Callable[[str], object] | None
    form: str
    secret: bool
    required_in_production: bool
    name: str | None

    def parser(self, annotation: object) -> AnyParser:
        if self.parse is not None:
            return custom_parser(self.parse, self.form, secret=self.secret)
        return parser_of(
            annotation, kind=self.kind, minimum=self.minimum, maximum=self.maximum, secret=self.secret
        )

    def source(self, field_name: str, prefix: str, annotation: object, default: object) -> Source:
        parser = self.parser(annotation)
        if default is not MISSING and default is not None and self.parse is None:
            _check_default(parser, default, field_name)
        return Source(
            name=f"={self.name or prefix + field_name.upper()}",
            parse=parser,
            default=None if default is MISSING else default,
            meaning=self.description,
            secret=self.secret,
            required="always" if default is MISSING else "production" if self.required_in_production else "",
        )


def _check_default(parser: AnyParser, default: object, field_name: str) -> None:
    if default in ("", (), frozenset()):
        return
    try:
        is_valid = parser(parser.show(default)) == default
    except (ValueError, TypeError, AttributeError):
        is_valid = False
    if not is_valid:
        raise ConfigurationError(
            f"{field_name}: the default {default!r} must be a value of the form: {parser.form}",
            parameter="default",
        )


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(setting, field))
class _Declaration:
    """Makes each subclass a frozen dataclass."""

    _prefix: ClassVar[str] = ""
    _sources: ClassVar[Mapping[str, Source]] = {}

    def __init_subclass__(cls, *, prefix: str | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if prefix is not None:
            cls._prefix = _checked_prefix(prefix)
        declared = _declared_by(cls)
        cls._sources = {**cls._sources, **declared}
        dataclass(frozen=True, kw_only=True)(cls)
        register_variables(*(source.name[1:] for source in declared.values()))
        register_variables(*(f"{source.name[1:]}_FILE" for source in declared.values() if source.secret))


def _checked_prefix(prefix: str) -> str:
    if not (isinstance(cast("object", prefix), str) and _NAME.fullmatch(prefix) and prefix.endswith("_")):
        raise ConfigurationError(
            f"prefix must be capitals, digits and '_', and end with '_', such as SHOP_, not {prefix!r}",
            parameter="prefix",
        )
    return prefix


def _declared_by(cls: type[_Declaration]) -> dict[str, Source]:
    """Return the sources of the fields that a class itself declares.

    Raises:
        ConfigurationError: a field has no annotation or an unsuitable one, or two variables have one name.
    """
    options = {
        name: (value.metadata[_KEY], value.default)
        for name, value in vars(cls).items()
        if _KEY in getattr(value, "metadata", ())
    }
    if not options:
        return {}
    if not cls._prefix:
        raise ConfigurationError(
            f"class {cls.__name__} must have a prefix: class {cls.__name__}(ApplicationSettings, prefix='SHOP_')",
            parameter="prefix",
        )
    try:
        annotations = get_annotations(cls, eval_str=True)
    except (NameError, TypeError) as error:
        raise ConfigurationError(
            f"a type of {cls.__name__} is unknown at run time ({error}): import it outside of TYPE_CHECKING",
            parameter="annotation",
        ) from None
    found: dict[str, Source] = {}
    for name, (option, default) in options.items():
        if name not in annotations:
            raise ConfigurationError(f"{cls.__name__}.{name} has no type", parameter="annotation")
        try:
            found[name] = option.source(name, cls._prefix, annotations[name], default)
        except ConfigurationError as error:
            raise ConfigurationError(f"{cls.__name__}.{name}: {error}", parameter=error.parameter) from None
    _reject_duplicates(cls, [*cls._sources.values(), *found.values()], variables())
    return found


def _reject_duplicates(cls: type[object], sources: Iterable[Source], ours: Iterable[Variable]) -> None:
    taken = {name: f"{row.area}.{row.field} of mks_hardening" for row in ours for name in _names(row)}
    for source in sources:
        row = table_row("", "", source, "")
        for name in _names(row):
            if name in taken:
                raise ConfigurationError(
                    f"{cls.__name__}: the variable {name} is already that of {taken[name]}; give another name",
                    parameter="name",
                )
            taken[name] = f"another field of {cls.__name__}"


def _names(row: Variable) -> tuple[str, ...]:
    return (row.name, f"{row.name}_FILE") if row.secret else (row.name,)


class ApplicationSettings(_Declaration):
    """Base class of the settings of an application: its own variables, and those of this package.

    A subclass is a frozen dataclass without a decorator; each field declares one variable::

        class ShopSettings(ApplicationSettings, prefix="SHOP_"):
            currency: Literal["JPY", "EUR"] = setting("Currency of all prices.", default="JPY")
            page_size: int = setting("Articles of one page.", default=20, minimum=1, maximum=200)
            payment_key: str = setting("Key of the payment provider.", secret=True)

        settings = ShopSettings.from_env()
        app = harden_wsgi(app, settings.hardening)

    ``mks-hardening settings list --target shop.settings:ShopSettings`` prints the variables; ``check`` and
    ``template`` instead of ``list`` check the environment and print a template for it. Fields without ``setting``
    are not read from the environment.

    Attributes:
        hardening: the settings of this package.

    Raises:
        ConfigurationError: when the class is declared: a prefix is missing, a type has no parser, a default is
            invalid, or a variable has the name of another one.
    """

    hardening: HardeningSettings = field(default_factory=HardeningSettings)

    @classmethod
    def from_env(cls, *, environ: Mapping[str, str] | None = None, hardening_prefix: str = "MKS_") -> Self:
        """Read the variables of the application and of this package.

        Args:
            environ: variables, instead of the process's environment.
            hardening_prefix: prefix of the variables of this package.

        Raises:
            ConfigurationError: ``environ`` is not a mapping, or ``hardening_prefix`` is not a ``str`` or is empty.
            SettingsError: at least one variable or combination is invalid, or a required variable is missing; all
                errors are listed.

        Warns:
            SettingsWarning: an unknown variable has one of the two prefixes.
        """
        source = environment_of(environ)
        hardening = read_hardening(HardeningSettings, source, hardening_prefix)
        rows = [*variables(hardening_prefix), *cls.variables()]
        if hardening_prefix != "MKS_":
            _reject_duplicates(cls, cls._sources.values(), variables(hardening_prefix))
        values: dict[str, Any] = {"hardening": hardening}
        in_production = hardening.core.environment == "production"
        for name, each in cls._sources.items():
            errors = len(source.errors)
            value = source.read(each.name[1:], each.parse, file=each.secret)
            if value is not None:
                values[name] = value
            elif len(source.errors) == errors and (
                each.required == "always" or (in_production and each.required == "production")
            ):
                source.errors.append(f"{each.name[1:]} is missing: {each.meaning}")
        if any(each.required == "always" and name not in values for name, each in cls._sources.items()):
            raise SettingsError(tuple(source.errors))
        settings = cls(**values)
        invalid = {error.split(maxsplit=1)[0].removesuffix("_FILE") for error in source.errors}
        source.errors.extend(
            error for error in settings.cross_check_errors() if error.split(maxsplit=1)[0] not in invalid
        )
        if source.errors:
            raise SettingsError(tuple(source.errors))
        names = {*source.names(hardening_prefix), *source.names(cls._prefix or hardening_prefix)}
        for warning in unknown_variables(sorted(names), rows):
            warnings.warn(warning, SettingsWarning, stacklevel=2)
        return settings

    def cross_check_errors(self) -> Iterable[str]:
        """Yield one sentence for each invalid combination of settings; override it, the default has none.

        A sentence begins with the name of a variable. It is omitted if that variable itself is invalid: then its
        field has the default.
        """
        return ()

    @classmethod
    def variables(cls) -> list[Variable]:
        """Return the variables of the application, in the order of the fields."""
        return [table_row("application", name, source, "") for name, source in cls._sources.items()]

"""Settings as options: the flags, the environment's names, the file's names and the help, all out of the class
`Settings`.

Flags win over environment over file over defaults.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterator
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec
from click.core import ParameterSource
from msgspec.inspect import BoolType, FloatType, IntType, LiteralType, Metadata, StructType, Type, VarTupleType

from .endpoint import host_port, parse
from .errors import Misuse
from .settings import Settings

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType

PREFIX = "FORECASTD_RUN_"


class Setting(NamedTuple):
    """One setting: its name in the file (`limits.series`), type, default and description."""

    name: str
    type: Type
    default: Any
    description: str

    @property
    def flag(self) -> str:
        return "--" + self.name.replace(".", "-").replace("_", "-")

    @property
    def variable(self) -> str:
        return PREFIX + self.name.replace(".", "_").upper()

    @property
    def key(self) -> str:
        """Its name among the parameters of a command."""
        return self.name.replace(".", "_")

    @property
    def kind(self) -> str:
        """Its type and bounds, in words."""
        return _kind(self.type)


class Resolved(NamedTuple):
    """Settings, and where each comes from: `flag`, `environment`, the file's name, or `default`. `again` reads them
    once more, None where no file is involved."""

    settings: Settings
    sources: dict[str, str]
    again: Callable[[], Settings] | None = None


class Items(ParamType):
    """Several values in one option: `naive,ar,rnn`."""

    def __init__(self, item: ParamType) -> None:
        self.item = item
        self.name = item.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(self.item.convert(text, param, ctx) for text in value.replace(",", " ").split())


def declared(struct: type[msgspec.Struct] = Settings, prefix: str = "") -> Iterator[Setting]:
    """All settings, in the order in which they are declared."""
    inspected = msgspec.inspect.type_info(struct)
    assert isinstance(inspected, StructType)
    for field in inspected.fields:
        kind, described = field.type, ""
        if isinstance(kind, Metadata):
            described = (kind.extra_json_schema or {}).get("description", "")
            kind = kind.type
        if isinstance(kind, VarTupleType) and isinstance(kind.item_type, StructType):
            continue  # tables of the file alone
        if isinstance(kind, StructType):
            yield from declared(kind.cls, f"{prefix}{field.name}.")
        else:
            yield Setting(prefix + field.name, kind, field.default, described)


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command all settings as options, and `--config`; it is called with `resolved` in their place."""

    def resolving(**parameters: Any) -> Any:
        context, given = click.get_current_context(), dict(parameters)
        resolved = resolve(context, parameters)
        if given["config"] or resolved.settings.clients:
            resolved = resolved._replace(again=lambda: resolve(context, dict(given)).settings)
        return command(resolved=resolved, **parameters)

    update_wrapper(resolving, command)
    for setting in reversed(list(declared())):
        _option(setting)(resolving)
    path = click.Path(exists=True, dir_okay=False)
    text = "Settings as a TOML file; `forecastd config init` writes one."
    return click.option("-c", "--config", type=path, envvar=PREFIX + "CONFIG", metavar="FILE", help=text)(resolving)


def resolve(context: click.Context, parameters: dict[str, Any]) -> Resolved:
    """Takes the settings out of a command's `parameters` (they are removed), and adds file and defaults."""
    path = parameters.pop("config")
    document = read(path) if path else {}
    sources: dict[str, str] = {}
    for setting in declared():
        value = parameters.pop(setting.key)
        table, name = _place(document, setting.name)
        sources[setting.name] = Path(path).name if name in table else "default"
        if value is not None and value != ():
            table[name] = _flat(value) if isinstance(setting.type, VarTupleType) else value
            given = context.get_parameter_source(setting.key)
            sources[setting.name] = "environment" if given is ParameterSource.ENVIRONMENT else "flag"
    return Resolved(settings_of(document), sources)


def read(path: str) -> dict[str, Any]:
    """The settings of a file, checked; Misuse says in one line what is wrong with it."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise Misuse(f"{path}: {(error.strerror or str(error)).lower()}") from None
    return parsed(data, path)


def parsed(data: bytes, path: str) -> dict[str, Any]:
    """As `read`, of what is in the file."""
    try:
        document = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misuse(f"{path}: this is not TOML: {error}") from None
    except RecursionError:
        raise Misuse(f"{path}: this is nested too deeply") from None
    # TOML has one name for both: a model for all, or tables of models for some.
    if isinstance(document.get("model"), list):
        document["models"] = document.pop("model")
    settings_of(document, path)
    return document


def settings_of(document: dict[str, Any], path: str = "") -> Settings:
    """The settings of a nested table; Misuse, with `path` in front, when they are none."""
    where = f"{path}: " if path else ""
    try:
        settings = msgspec.convert(document, Settings)
    except msgspec.ValidationError as error:
        raise Misuse(where + _explained(str(error))) from None
    for name, problem in problems(settings):
        raise Misuse(f"{where}{name}: {problem}")
    return settings


def problems(settings: Settings) -> Iterator[tuple[str, str]]:
    """What no type can say: the settings whose text means nothing, and why."""
    checks: list[tuple[str, Callable[[str], object], tuple[str, ...]]] = [
        ("ingest", parse, settings.ingest),
        ("publish", lambda text: parse(text, ("publish",)), (settings.publish,)),
        ("web", host_port, (settings.web,) if settings.web else ()),
    ]
    for name, check, texts in checks:
        for text in texts:
            try:
                check(text)
            except ValueError as error:
                yield name, str(error)
    if bool(settings.key) != bool(settings.clients):
        lacking = "clients" if settings.key else "key"
        yield lacking, "it is missing: a daemon with a key lets nobody in but its clients, so it needs both or neither"
    if bool(settings.web_key) != bool(settings.web_certificate):
        lacking = "web_certificate" if settings.web_key else "web_key"
        yield lacking, "it is missing: HTTPS needs a certificate and its private key"
    for name in settings.web_hosts:
        if "*" in name[1:] or (name.startswith("*") and not name.startswith("*.")):
            yield "web_hosts", f"{name!r} is no name; write example.org, or *.example.org for all below it"
    known = Settings().experts
    for expert in settings.experts:
        if expert not in known:
            yield "experts", f"no expert is called {expert!r}{_similar(expert, known)}; there are {', '.join(known)}"


def _option(setting: Setting) -> Callable[[Any], Any]:
    words: dict[str, Any] = {
        "default": None,
        "envvar": setting.variable,
        "help": f"{setting.description}  [default: {_text(setting.default)}]",
        "hidden": "." in setting.name,
    }
    if isinstance(setting.type, BoolType):
        return click.option(f"{setting.flag}/--no-{setting.flag[2:]}", setting.key, **words)
    if isinstance(setting.type, VarTupleType):
        kind = Items(_click_type(setting.type.item_type))
        return click.option(setting.flag, setting.key, type=kind, multiple=True, **words)
    return click.option(setting.flag, setting.key, type=_click_type(setting.type), **words)


def _click_type(kind: Type) -> ParamType:
    if isinstance(kind, Metadata):
        return _click_type(kind.type)
    if isinstance(kind, LiteralType):
        return click.Choice([str(value) for value in kind.values])
    if not isinstance(kind, IntType | FloatType):
        return click.STRING
    range_of: Any = click.IntRange if isinstance(kind, IntType) else click.FloatRange
    low = kind.ge if kind.ge is not None else kind.gt
    high = kind.le if kind.le is not None else kind.lt
    return range_of(low, high, min_open=kind.gt is not None, max_open=kind.lt is not None)  # type: ignore[no-any-return]


def _kind(kind: Type) -> str:
    if isinstance(kind, Metadata):
        return _kind(kind.type)
    if isinstance(kind, VarTupleType):
        return f"list of {_kind(kind.item_type)}"
    if isinstance(kind, LiteralType):
        return " or ".join(map(str, kind.values))
    name = {BoolType: "true or false", IntType: "integer", FloatType: "number"}.get(type(kind), "text")
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    bounds = [f"{sign} {getattr(kind, word)}" for word, sign in signs.items() if getattr(kind, word, None) is not None]
    return ", ".join([name, *bounds])


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (",".join(map(str, value)) if isinstance(value, tuple) else str(value)) or "none"


def _flat(values: tuple[Any, ...]) -> list[Any]:
    return [item for value in values for item in (value if isinstance(value, tuple) else (value,))]


def _place(document: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    """The table of a setting in the document, made if need be, and its name there."""
    *path, last = name.split(".")
    for step in path:
        document = document.setdefault(step, {})
    return document, last


def _explained(error: str) -> str:
    """msgspec's message, the place in front: `limits.series: expected int >= 1`."""
    what, _, where = error.replace("`", "").partition(" - at ")
    place = where.removeprefix("$").removeprefix(".")
    if what.startswith("Object contains unknown field "):
        table = f"{place}." if place else ""
        name = table + what.rpartition(" ")[2]
        return f"there is no setting {name!r}{_similar(name, [setting.name for setting in declared()])}"
    place = place.replace("models[", "model[")
    return f"{place or 'settings'}: {what[0].lower()}{what[1:]}"


def _similar(name: str, names: Any) -> str:
    close = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""

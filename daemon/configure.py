"""`forecastd config`: the settings as a file, as they are, and as the page `docs/configuration.md`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from . import exposure, options
from .errors import Failure
from .options import Resolved, Setting, declared
from .settings import Group, Settings


@click.group()
def config() -> None:
    """Write, check and show the configuration of `forecastd run`."""


@config.command(epilog="\b\nExample:\n  forecastd config init && forecastd run --config forecastd.toml")
@click.argument("path", type=click.Path(dir_okay=False), default="forecastd.toml")
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def init(path: str, force: bool) -> None:
    """Write a file with every setting at its default, to be edited."""
    try:
        with Path(path).open("w" if force else "x", encoding="utf-8") as file:
            file.write(template())
    except FileExistsError:
        raise Failure(f"{path} is there already; --force overwrites it") from None
    except OSError as error:
        raise Failure(f"{path}: {(error.strerror or str(error)).lower()}") from None
    click.echo(f"{path}: written; start with: forecastd run --config {path}")


@config.command(epilog="\b\nExample:\n  forecastd config check forecastd.toml")
@click.argument("path", type=click.Path(dir_okay=False), default="forecastd.toml")
def check(path: str) -> None:
    """Say whether a file can be run with; exit status 2 and one line if it cannot."""
    exposure.check(options.settings_of(options.read(path), path))
    click.echo(f"{path}: ok")


@config.command(epilog="\b\nExample:\n  FORECASTD_RUN_LEVEL=0.95 forecastd config show --horizon 12")
@options.options
def show(resolved: Resolved) -> None:
    """Show the settings `forecastd run` would take, as TOML, and where each comes from.

    Takes the same options, environment and file.
    """
    tables: dict[str, list[str]] = {}
    for setting in declared():
        table, _, name = setting.name.rpartition(".")
        line = f"{name} = {toml(_value(resolved.settings, setting))}"
        if setting.name == "model" and resolved.settings.models:
            line = f"# {line}"  # it is for the series that no [[model]] names; a file cannot say both
        tables.setdefault(table, []).append(f"{line}  # {resolved.sources[setting.name]}")
    click.echo(_document(tables) + "".join(map(_group, resolved.settings.models)), nl=False)


@config.command(hidden=True)
def page() -> None:
    """Print `docs/configuration.md`."""
    click.echo(reference(), nl=False)


def template() -> str:
    """A file with every setting as a comment, at its default, under what it is for."""
    tables: dict[str, list[str]] = {"": ["# Settings of `forecastd run`; each line shows a default.", ""]}
    for setting in declared():
        table, _, name = setting.name.rpartition(".")
        described = [f"# {setting.description} ({setting.kind})", f"# {name} = {toml(setting.default)}", ""]
        tables.setdefault(table, []).extend(described)
    return _document(tables) + _GROUPS


def reference() -> str:
    """The page `docs/configuration.md`."""
    rows = [_row(setting) for setting in declared()]
    return _PAGE.format(rows="\n".join(rows))


def _group(group: Group) -> str:
    return f"\n[[model]]\nmatch = {toml(group.match)}\nmodel = {toml(group.model)}\n"


def _row(setting: Setting) -> str:
    cells = (
        *(f"`{setting.name}`", setting.kind, f"`{toml(setting.default)}`", setting.description.replace("|", "\\|")),
        *(f"`{setting.flag}`", f"`{setting.variable}`"),
    )
    return f"| {' | '.join(cells)} |"


def toml(value: Any) -> str:
    """A setting's value as TOML."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(toml(item) for item in value)}]"
    # Strings, numbers, true and false are written alike in TOML and JSON.
    return json.dumps(value, ensure_ascii=False)


def _value(settings: Settings, setting: Setting) -> Any:
    value: Any = settings
    for name in setting.name.split("."):
        value = getattr(value, name)
    return value


def _document(tables: dict[str, list[str]]) -> str:
    parts = ["\n".join([f"[{table}]", *lines] if table else lines).rstrip() for table, lines in tables.items()]
    return "\n\n".join(parts) + "\n"


_GROUPS = """
# Series whose names match have a shared model of their own; the first match counts. Instead of `model` above: TOML has
# one name for both.
# [[model]]
# match="boiler.*"
# model="boiler.npz"
"""

_PAGE = """\
# Configuration

`forecastd run` takes its settings from flags, from the environment, from a file (`--config FILE`, or
`FORECASTD_RUN_CONFIG`) and from the defaults below: flags win over environment over file over defaults.

```
forecastd config init              # writes forecastd.toml with every setting at its default
forecastd config check             # says in one line what is wrong with it, if anything is
forecastd config show              # shows what `run` would take, and where each value comes from
```

In the file, a name with a dot stands in a table (`limits.series` is `series` under `[limits]`). Lists are written
`["naive", "ar"]` in the file and `naive,ar` in a flag or in the environment; a flag that takes a list may be repeated.
A setting the daemon does not know is an error, so a misspelt one is found out.

Series whose names match a pattern (`*` stands for anything, `?` for one character) may have a shared model of their
own, a name or a file; the first match counts, and `--model` is for all others. In the file alone:

```toml
[[model]]
match = "boiler.*"
model = "boiler.npz"
```

TOML has one name for both, so a file with such tables has no `model = "…"`; a last table with `match = "*"` says the
same. All of them need the same input channels, window and output.

An ingest endpoint is `[router+|pull+|sub+][connect+]ADDRESS`. `router` is the default; `connect+` makes the daemon
connect to the address instead of binding it, for publishers that bind. An address is `tcp://HOST:PORT` or
`ipc://PATH`; port 0 means any free one, and `run` prints the address really bound.

| setting | type | default | what it is | flag | environment |
|---|---|---|---|---|---|
{rows}

This page is made by `forecastd config page` from `daemon/settings.py`, where each setting is declared once.
"""

"""`forecastd keys`: pairs of CURVE keys, for the daemon and for who connects to it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from ..producers.key import BadKey, public, read
from .errors import Failure, Misuse

FOLDER = "forecastd-keys"
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,199}\Z")

_dir = click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=FOLDER,
    show_default=True,
    metavar="DIR",
    help="Where the keys are.",
)


@click.group()
def keys() -> None:
    """Make and list CURVE keys: who has one may be let in, and all it sends is encrypted.

    \b
    forecastd keys new daemon
    forecastd keys new plc-7
    forecastd run --key forecastd-keys/daemon.key --clients clients.toml
    forecastd produce sine --key forecastd-keys/plc-7.key --server-key forecastd-keys/daemon.pub
    """


@keys.command(epilog="\b\nExamples:\n  forecastd keys new daemon\n  forecastd keys new plc-7 --dir /etc/forecastd/keys")
@click.argument("name")
@_dir
def new(name: str, folder: Path) -> None:
    """Make a pair of keys for NAME: the daemon, or a producer of that name.

    NAME.key has the secret one, for its owner alone (mode 0600), NAME.pub the public one. Files that are there are
    never overwritten.
    """
    if not _FILE.match(name):
        raise Misuse(f"{name!r} is no name for a key: letters, digits and . _ @ -, beginning with a letter or digit")
    from .sockets import new_pair

    made, secret = new_pair()
    head = f'name = "{name}"\npublic = "{made}"\n'
    closed, open_ = folder / f"{name}.key", folder / f"{name}.pub"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(closed, f'# A secret: whoever has it is {name}.\n{head}secret = "{secret}"\n', 0o600)
    try:
        _write(open_, head, 0o644)
    except Failure:
        closed.unlink()
        raise
    click.echo(f"{closed}  the secret key: for {name} alone, and never by mail")
    click.echo(f"{open_}  the public key: for everybody")
    click.echo(f'\nTo let it in, in the file of the daemon\'s `clients`:\n\n[[client]]\nproducer = "{name}"')
    click.echo(f'key = "{made}"\nseries = ["*"]\nwatch = true')


@keys.command("list", epilog="\b\nExample:\n  forecastd keys list --dir /etc/forecastd/keys")
@_dir
def show(folder: Path) -> None:
    """List the keys of a folder: the public one, the file of the secret one, and what is wrong with it.

    Exit status 1 where a secret key can be read by others.
    """
    if not folder.is_dir():
        raise Misuse(f"{folder}: no such folder; `forecastd keys new NAME` makes it")
    wrong = 0
    for file in sorted([*folder.glob("*.key"), *folder.glob("*.pub")]):
        if file.suffix == ".pub" and file.with_suffix(".key").exists():
            continue
        try:
            text = f"{read(file).public}  secret" if file.suffix == ".key" else f"{public(file)}  public"
        except BadKey as error:
            text, wrong = str(error), wrong + 1
        click.echo(f"{file.stem}  {text}")
    if wrong:
        raise Failure(f"{wrong} of the keys are not in order")


def _write(path: Path, text: str, mode: int) -> None:
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
            os.fchmod(file.fileno(), mode)  # whatever the umask made of it
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise Failure(f"{path} is there already, and keys are never overwritten; choose another name") from None
    except OSError as error:
        raise Failure(f"{path}: {(error.strerror or str(error)).lower()}") from None

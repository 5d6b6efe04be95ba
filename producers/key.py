"""CURVE keys in files, as `forecastd keys new` writes them: a secret one for its owner, a public one for everybody.

    name = "plc-7"
    public = "…"                # 40 characters of Z85, the text form of ZeroMQ
    secret = "…"                # in NAME.key, not in NAME.pub

A secret that others can read is none, so such a file is refused.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import NamedTuple

import msgspec

#: Anything longer is neither a key nor a list of them.
FILE_CHARACTERS_MAX = 4 << 20
_Z85 = re.compile(r"[0-9A-Za-z.:+=^!/*?&<>()\[\]{}@%$#-]{40}\Z")


class BadKey(ValueError):
    """A key, or a file that should have one, is of no use; the message is one line that says what to do."""


class Key(msgspec.Struct, frozen=True):
    """A pair of keys, 40 characters each, and whose it is; `secret` is empty where only the public one is known."""

    name: str
    public: str
    secret: str = ""

    def __repr__(self) -> str:
        return f"Key({self.name!r}, {self.public!r})"  # a log must never have the secret


class Curve(NamedTuple):
    """What a client needs for an encrypted connection: its own secret key, and the server's public one."""

    secret: bytes
    server: bytes


def curve(key: str | Path | None, server_key: str | Path | None) -> Curve | None:
    """The keys of a connection out of the file of the client's key and the server's public key (the 40 characters, or
    a file); None where neither is given. BadKey for one without the other."""
    if key is None and server_key is None:
        return None
    if key is None or server_key is None:
        missing = "the client's own key (a file)" if key is None else "the server's public key (its text, or a file)"
        raise BadKey(f"an encrypted connection needs {missing}, too")
    return Curve(read(key).secret.encode(), public(server_key).encode())


def read(path: str | Path) -> Key:
    """The secret key in a file that its owner alone can read. BadKey says what is wrong with it."""
    key = _key(path, private(path))
    if not is_key(key.secret):
        raise BadKey(f"{path}: there is no secret key in it; `forecastd keys new NAME` makes one")
    return key


def public(text: str | Path) -> str:
    """A public key given as it is, or as the file that has it."""
    if is_key(str(text)):
        return str(text)
    key = _key(text, _text(text))
    if not is_key(key.public):
        raise BadKey(f"{text}: there is no public key in it; it is written as 40 characters")
    return key.public


def is_key(text: str) -> bool:
    """Whether it looks like one: 40 characters of Z85."""
    return bool(_Z85.match(text))


def private(path: str | Path) -> str:
    """The text of a file that its owner alone can read; BadKey, with the chmod to do, where others can."""
    return _text(path, 0o077, "can be read by others", "600")


def unforgeable(path: str | Path) -> str:
    """The text of a file that its owner alone can write; BadKey, with the chmod to do, where others can."""
    return _text(path, 0o022, "can be written by others", "go-w")


def _text(path: str | Path, forbidden: int = 0, because: str = "", mode: str = "") -> str:
    try:
        with open(path, encoding="utf-8") as file:
            # Asked of the open file: what the name stands for may change.
            if os.fstat(file.fileno()).st_mode & forbidden:
                raise BadKey(f"{path} {because}: chmod {mode} {path}")
            return file.read(FILE_CHARACTERS_MAX)
    except UnicodeDecodeError:
        raise BadKey(f"{path}: this is no text") from None
    except OSError as error:
        raise BadKey(f"{path}: {(error.strerror or str(error)).lower()}") from None


def _key(path: str | Path, text: str) -> Key:
    try:
        return msgspec.convert(tomllib.loads(text), Key)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError):
        raise BadKey(f"{path}: this is no key file; `forecastd keys new NAME` makes one") from None

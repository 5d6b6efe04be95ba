"""A trained model as a file: plain arrays and a manifest in one `.npz`, checked before anything of it is used.

Written by `forecastd train` and by fine-tuning, read by the engine at its start. Nothing in such a file is ever run: no
pickle, no configuration that names code. The same model always gives the same bytes, on any day, so a checksum says
what a model is.
"""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .weights import UNITS_MAX, WINDOW_MAX, Weights, check, digest, restored, structure

#: Version of the layout below; a file that says a higher one is refused, not guessed at.
FORMAT = 1
SUFFIX = ".npz"
#: The shipped model that knows the way ahead.
AHEAD = "path"
FILE_BYTES_MAX = 32 << 20
MANIFEST_BYTES_MAX = 1 << 20

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment a zip can name: a real one would make each file different


class CheckpointError(ValueError):
    """This file is no model of ours, or no longer; the message is one line for the user."""


@dataclass(frozen=True)
class Checkpoint:
    """A model and where it comes from.

    `manifest` is JSON: name, version, parent, recipe, command, seed, data, scores and, filled in by `seal`, format,
    sha256 and the structure of the weights.
    """

    weights: Weights
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.manifest.get("name", ""))

    @property
    def sha256(self) -> str:
        return str(self.manifest.get("sha256", "")) or digest(self.weights)


def seal(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with format, structure and checksum in its manifest; CheckpointError for unsound weights."""
    _sound(checkpoint.weights)
    sealed = {"format": FORMAT, **structure(checkpoint.weights), "sha256": digest(checkpoint.weights)}
    return Checkpoint(checkpoint.weights, {**checkpoint.manifest, **sealed})


def encode(checkpoint: Checkpoint) -> bytes:
    """The file's bytes: a zip without compression, its dates fixed, so that equal checkpoints are equal files."""
    sealed = seal(checkpoint)
    text = _json(sealed.manifest)
    if len(text) > MANIFEST_BYTES_MAX:
        raise CheckpointError(f"the manifest has {len(text)} bytes, more than {MANIFEST_BYTES_MAX}")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        members: dict[str, NDArray[Any]] = {"manifest": np.frombuffer(text, np.uint8), **sealed.weights.arrays}
        for name, array in members.items():
            member = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            member.create_system = 3  # as on Unix, everywhere
            member.external_attr = 0o644 << 16
            archive.writestr(member, _npy(array))
    return file.getvalue()


def decode(data: bytes) -> Checkpoint:
    """The checkpoint in `encode`'s bytes. CheckpointError, in one line, on all else: cut, flipped, foreign, newer."""
    if not data:
        raise CheckpointError("the file is empty")
    if len(data) > FILE_BYTES_MAX:
        raise CheckpointError(f"the file has more than {FILE_BYTES_MAX} bytes: no model of ours")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            manifest = _manifest(_member(archive, "manifest", MANIFEST_BYTES_MAX))
            weights = _weights(archive, manifest)
    except CheckpointError:
        raise
    # Which of these the zip and array readers raise depends on which byte is wrong; all of them mean the same.
    except (
        zipfile.BadZipFile,
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        KeyError,
        TypeError,
        OverflowError,
    ) as error:
        raise CheckpointError(f"the file is damaged ({_line(error)}); take a backup or train again") from None
    _sound(weights)
    if digest(weights) != manifest.get("sha256"):
        raise CheckpointError("the checksum does not match: the file is damaged; take a backup or train again")
    return Checkpoint(weights, manifest)


def save(path: str | Path, checkpoint: Checkpoint) -> Checkpoint:
    """Write `path` (.npz), whole or not at all, and beside it the manifest as .json for people: it is never read.

    Returns the checkpoint as sealed. CheckpointError where it is unsound, OSError where it cannot be written.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise CheckpointError(f"{path} must end in {SUFFIX}")
    sealed = seal(checkpoint)
    _replace(path, encode(sealed))
    _replace(path.with_suffix(".json"), (json.dumps(sealed.manifest, indent=2, sort_keys=True) + "\n").encode())
    return sealed


def load(source: str | Path) -> Checkpoint:
    """The shipped model of that name, or the file at that path; CheckpointError, in one line, if it cannot be."""
    if isinstance(source, str) and _NAME.fullmatch(source):
        if source not in shipped():
            raise CheckpointError(
                f"no model is called {source!r}: there are {', '.join(shipped())}, or name a {SUFFIX} file"
            )
        data = (_shelf() / f"{source}{SUFFIX}").read_bytes()
    else:
        data = _read(Path(source))
    try:
        return decode(data)
    except CheckpointError as error:
        raise CheckpointError(f"model {source}: {error}") from None


def serving(source: str | Path, experts: Sequence[str], horizon: int) -> Checkpoint | None:
    """The model that these experts need for so many steps ahead, None where none does. A model that does not know the
    way ahead gets the shipped one beside it that does; its checksum then speaks of both. CheckpointError as `load`."""
    if "path" not in experts or horizon == 1:
        return load(source) if "rnn" in experts else None
    if "rnn" not in experts:
        return load(AHEAD)
    return equipped(load(source), experts, horizon)


def equipped(model: Checkpoint, experts: Sequence[str], horizon: int) -> Checkpoint:
    """The model with one beside it that knows the way ahead, where these experts need that and it does not itself."""
    if "path" not in experts or horizon == 1 or model.weights.decoder is not None:
        return model
    return seal(replace(model, weights=replace(model.weights, ahead=load(AHEAD).weights)))


def shipped() -> list[str]:
    """The names of the models that come with the package, sorted."""
    return sorted(entry.name[: -len(SUFFIX)] for entry in _shelf().iterdir() if entry.name.endswith(SUFFIX))


def _shelf() -> Any:
    return resources.files(__package__ or "forecastd.models") / "shipped"


def _sound(weights: Weights) -> None:
    try:
        check(weights)
    except ValueError as error:
        raise CheckpointError(str(error)) from None


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)
    return file.getvalue()


def _member(archive: zipfile.ZipFile, name: str, bytes_max: int) -> bytes:
    """The bytes of one member, its size known before it is read (stored, so it cannot grow on reading)."""
    member = archive.getinfo(f"{name}.npy")
    if member.compress_type != zipfile.ZIP_STORED or member.file_size > bytes_max:
        raise CheckpointError(f"array {name} is compressed or larger than {bytes_max} bytes: no model of ours")
    return archive.read(member)


def _array(data: bytes, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The array in .npy bytes, after its header has said that it is what is expected."""
    file = io.BytesIO(data)
    if np.lib.format.read_magic(file) != (1, 0):
        raise CheckpointError(f"array {name} has an unknown layout")
    found, fortran, kind = np.lib.format.read_array_header_1_0(file)
    body = data[file.tell() :]
    if found != shape or kind != dtype or (fortran and len(shape) > 1):
        raise CheckpointError(f"array {name} is {kind}{found}, not {dtype}{shape}")
    if len(body) != dtype.itemsize * int(np.prod(shape, dtype=np.int64)):
        raise CheckpointError(f"array {name} is cut short")
    return np.frombuffer(body, dtype).reshape(shape)


def _manifest(data: bytes) -> dict[str, Any]:
    file = io.BytesIO(data)
    np.lib.format.read_magic(file)
    count = np.lib.format.read_array_header_1_0(file)[0]
    text = _array(data, "manifest", tuple(count), np.dtype(np.uint8)).tobytes()
    manifest = json.loads(text)
    if not isinstance(manifest, dict):
        raise CheckpointError("the manifest is no JSON object")
    version = manifest.get("format")
    if type(version) is not int or version < 1:
        raise CheckpointError("the manifest names no format")
    if version > FORMAT:
        raise CheckpointError(f"it has format {version}, newer than the {FORMAT} known here; use a newer forecastd")
    return manifest


def _weights(archive: zipfile.ZipFile, manifest: dict[str, Any]) -> Weights:
    units, window, inner = manifest["units"], manifest["window"], manifest.get("ahead", {}).get("units", 1)
    bounded = all(type(number) is int and 1 <= number <= UNITS_MAX for number in (units, inner))
    if not bounded or type(window) is not int:
        raise CheckpointError(f"units or window out of bounds (at most {UNITS_MAX} and {WINDOW_MAX})")
    return restored(
        manifest,
        lambda name, shape: _array(_member(archive, name, FILE_BYTES_MAX), name, shape, np.dtype("<f4")),
    )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise CheckpointError(f"model {path} cannot be read: {error.strerror or error}") from None


def _replace(path: Path, data: bytes) -> None:
    """Write beside, force to disk, rename: a crash at any moment leaves the old file or the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__

"""Whatever the bytes are: the same targets that `make soak` gives to a fuzzer, here with hypothesis."""

from __future__ import annotations

import json
import struct
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from forecastd.daemon.configure import template, toml
from forecastd.daemon.options import declared
from forecastd.tests.fuzz import target as fuzz

NAMES = st.sampled_from(["a", "b", "z", "", " a", "a\n", "x" * 300]) | st.text(max_size=5)
NUMBERS = st.integers() | st.floats() | st.none() | st.booleans() | st.text(max_size=3)
PRODUCERS = st.sampled_from(["plc", "lab", ""]) | st.text(max_size=3)
FIELDS = {
    "series": NAMES | st.lists(NAMES, max_size=4),
    "value": NUMBERS,
    "time": NUMBERS,
    "seq": st.integers(-1, 5) | NUMBERS,
    "epoch": st.integers(-1, 5) | NUMBERS,
    "producer": PRODUCERS | NUMBERS,
    "columns": st.integers(0, 2),
    "n": st.integers(-1, 5),
    "time0": NUMBERS,
    "step": NUMBERS,
}
OBJECTS = st.fixed_dictionaries({}, optional=FIELDS)
JSON = (OBJECTS | st.lists(OBJECTS, max_size=4)).map(lambda found: json.dumps(found).encode())
ARRAYS = st.lists(st.floats(), max_size=6).map(lambda values: struct.pack(f"<{len(values)}d", *values))
FRAMES = JSON | ARRAYS | st.binary(max_size=40) | st.sampled_from([b"a", b"z", b"71.3", b"nan", b"[" * 5000])


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2), st.lists(FRAMES, min_size=1, max_size=4))
def test_no_message_raises_and_a_key_is_never_good_for_more_than_it_is(sender: int, frames: list[bytes]) -> None:
    """Messages that are nearly right, from one without a key and one with it."""
    fuzz.wire(bytes([sender]) + fuzz.CUT.join(frames))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_raise(data: bytes) -> None:
    fuzz.wire(data)
    fuzz.configuration(data)


VALUES: st.SearchStrategy[Any] = st.one_of(
    st.integers(),
    st.floats(allow_nan=False),
    st.booleans(),
    st.text(max_size=8),
    st.lists(st.text(max_size=4), max_size=3),
)
KNOWN = [setting.name for setting in declared()] + ["", "limits", "client", "horizn", "limits.", "web.x"]


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(KNOWN), VALUES, max_size=4))
def test_a_configuration_is_in_order_or_one_line_says_what_is_not(found: dict[str, Any]) -> None:
    """Every setting with values of every kind."""
    tables: dict[str, list[str]] = {}
    for name, value in found.items():
        table, _, last = name.rpartition(".")
        tables.setdefault(table, []).append(f'"{last}" = {toml(value)}')
    text = "\n".join(f'["{table}"]\n' * bool(table) + "\n".join(lines) for table, lines in sorted(tables.items()))
    fuzz.configuration(text.encode(errors="replace"))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_file_with_a_few_wrong_bytes_is_in_order_or_one_line_says_so(data: st.DataObject) -> None:
    """The file of `config init` without its marks, and a list of clients."""
    whole = (
        template().replace("\n# ", "\n") if data.draw(st.booleans()) else f'[[client]]\nproducer="a"\nkey="{"k" * 40}"'
    )
    mangled = bytearray(whole.encode())
    for _ in range(data.draw(st.integers(0, 3))):
        mangled[data.draw(st.integers(0, len(mangled) - 1))] = data.draw(st.integers(0, 255))
    fuzz.configuration(bytes(mangled))

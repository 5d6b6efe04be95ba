"""Lines of text as samples: however the bytes are cut, and whatever is wrong with them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecastd.producers.lines import LINE_BYTES_MAX, Malformed, Sample, Splitter, parse, seconds


def split(*chunks: bytes) -> list[Sample | Malformed]:
    splitter = Splitter()
    found = [item for chunk in chunks for item in splitter.feed(chunk)]
    return [*found, *splitter.end()]


def test_a_line_is_a_name_a_value_and_perhaps_a_time() -> None:
    assert parse("boiler 71.3\n") == Sample("boiler", 71.3, None)
    assert parse("  boiler\t-1e3   1700000000.5 ") == Sample("boiler", -1000.0, 1700000000.5)
    assert parse("boiler 1 2023-11-14T22:13:20Z").time == 1_700_000_000.0
    assert parse("kühler{ort=a} 1").series == "kühler{ort=a}"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("boiler", "'boiler' is not `name value [time]`"),
        ("boiler 1 2 3", "is not `name value [time]`"),
        ("boiler warm", "'warm' is not a number"),
        ("boiler 1 later", "'later' is not a time"),
        ("boiler 1 nan", "'nan' is not a time"),
    ],
)
def test_a_line_that_is_no_sample_says_why(line: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(line)
    assert message in str(caught.value)


def test_lines_without_names_are_of_the_series_given() -> None:
    splitter = Splitter("my boiler")
    assert list(splitter.feed(b"71.3\n72 1700000000\nx 1 2\n")) == [
        Sample("my boiler", 71.3, None),
        Sample("my boiler", 72.0, 1.7e9),
        Malformed(3, "'x 1 2' is not `value [time]`"),
    ]


def test_bad_lines_are_told_with_their_number_and_the_others_go_on() -> None:
    found = split(b"# a comment\na 1\n\nb\nc \xff 1\nd 4")
    assert found == [
        Sample("a", 1.0, None),
        Malformed(4, "'b' is not `name value [time]`"),
        Malformed(5, "not UTF-8 text"),
        Sample("d", 4.0, None),
    ]
    assert str(found[1]) == "line 4: 'b' is not `name value [time]`"


def test_an_endless_line_is_reported_once_and_held_in_bounds() -> None:
    splitter = Splitter()
    found = []
    for _ in range(100):
        found += splitter.feed(b"x" * 1000)
        assert len(splitter._rest) <= LINE_BYTES_MAX
    found += splitter.feed(b"tail\nok 1\n")
    assert found == [Malformed(1, f"longer than {LINE_BYTES_MAX} bytes"), Sample("ok", 1.0, None)]
    assert split(b"y" * (LINE_BYTES_MAX + 1) + b"\nok 1\n")[0] == Malformed(1, f"longer than {LINE_BYTES_MAX} bytes")
    assert splitter.line == 2


@given(st.lists(st.tuples(st.sampled_from(["a", "ü.b", "x y", ""]), st.floats(allow_nan=False))), st.data())
def test_cuts_change_nothing(samples: list[tuple[str, float]], data: st.DataObject) -> None:
    text = "".join(f"{name} {value!r}\n" for name, value in samples).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert split(*pieces) == split(text)


@given(st.binary(max_size=300))
def test_no_bytes_raise(noise: bytes) -> None:
    for item in split(noise, noise):
        assert isinstance(item, Sample | Malformed)


def test_a_time_without_a_zone_is_utc() -> None:
    assert seconds("2023-11-14 22:13:20") == seconds("2023-11-14T23:13:20+01:00") == seconds("1700000000") == 1.7e9

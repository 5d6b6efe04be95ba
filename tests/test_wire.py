"""What the frames of a message mean: each payload of docs/protocol.md, and each way not to be one."""

from __future__ import annotations

import json
import math
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecastd.daemon.batch import REASONS, Batch, Forecasts, Parcel, Reply
from forecastd.daemon.settings import Limits
from forecastd.daemon.wire import SALVAGE_MAX, Inbox, Origin, encode_forecasts, encode_reply

PROTOCOL = (Path(__file__).resolve().parent.parent / "docs" / "protocol.md").read_text()
DEALER = Origin(b"\0\0plc", True, "plc")
OTHER = Origin(b"\0\0pump", True, "pump")


def taken(*messages: list[bytes], origin: Origin = DEALER) -> Batch:
    inbox = Inbox(Limits())
    for frames in messages:
        inbox.add(frames, origin)
    return inbox.take()


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}d", *values)


def samples(batch: Batch) -> list[tuple[str, float, float | None]]:
    """Name, value and time of each sample; None for a time that was not given."""
    times = [None if math.isnan(time) else time for time in batch.time.tolist()]
    return list(zip(batch.series, batch.value.tolist(), times, strict=True))


def header(**fields: Any) -> bytes:
    return json.dumps({"columns": 1, **fields}).encode()


# ---- payloads


def test_a_sample_is_an_object() -> None:
    """`{"series": "boiler", "value": 71.3}`, with and without a time."""
    batch = taken(
        [b'{"series": "boiler", "value": 71.3}'], [b'{"series": "pump", "value": 2, "time": 1.5, "unit": "bar"}']
    )
    assert samples(batch) == [("boiler", 71.3, None), ("pump", 2.0, 1.5)]
    assert batch.refused == {}


def test_an_array_is_its_samples_in_order() -> None:
    """`[{...}, {...}]`."""
    batch = taken([b'[{"series":"a","value":1},{"series":"b","value":2,"time":7},{"series":"a","value":3}]'])
    assert samples(batch) == [("a", 1.0, None), ("b", 2.0, 7.0), ("a", 3.0, None)]


def test_a_topic_and_a_number_are_a_sample() -> None:
    """Frames `[topic, number-as-text]`, blanks and a line end allowed."""
    batch = taken([b"boiler", b"71.3"], ["kessel.größe".encode(), b" -2e-3\n"])
    assert samples(batch) == [("boiler", 71.3, None), ("kessel.größe", -0.002, None)]


def test_a_number_that_is_not_finite_is_left_to_the_pipeline_to_refuse() -> None:
    """So that it is called `nonfinite`, however it was written."""
    written = [[b"a", b"nan"], [b"a", b"-Infinity"], [b"a", b"1e999"], [b'{"series":"a","value":NaN}']]
    written += [
        [b'{"series":"a","value":1e400}'],
        [b'{"series":"a","value":null}'],
        [b'{"series":"a","value":-Infinity}'],
    ]
    written += [[b'{"series":"a","value":1' + b"0" * digits + b"}"] for digits in (400, 100_000)]
    batch = taken(*written)
    assert not np.isfinite(batch.value).any()
    assert len(batch) == len(written)
    assert batch.refused == {}


def test_a_time_that_is_not_finite_does_not_pass_for_none() -> None:
    """The sample is refused by its value, instead of being taken as of now."""
    batch = taken([b'{"series":"a","value":1,"time":NaN}'])
    assert math.isnan(batch.value[0])


def test_columns_of_one_round_are_one_sample_a_name() -> None:
    """A header with k names and k values."""
    batch = taken([header(series=["a", "b"], n=2, time0=5.0), floats(1.5, 2.5)])
    assert samples(batch) == [("a", 1.5, 5.0), ("b", 2.5, 5.0)]


def test_columns_of_several_rounds_run_through_the_names_again_and_again() -> None:
    """Each round is a `step` later than the one before."""
    batch = taken([header(series=["a", "b"], time0=5.0, step=0.5), floats(1, 2, 3, 4)])
    assert samples(batch) == [("a", 1.0, 5.0), ("b", 2.0, 5.0), ("a", 3.0, 5.5), ("b", 4.0, 5.5)]


def test_columns_with_one_name_are_its_samples_oldest_first() -> None:
    """A thousand of one series need one name."""
    batch = taken([header(series="a", time0=10.0, step=2.0), floats(*range(1000))])
    assert batch.series == ["a"] * 1000
    assert batch.value.tolist() == list(range(1000))
    assert batch.time[[0, 1, 999]].tolist() == [10.0, 12.0, 2008.0]


def test_a_third_frame_has_a_time_a_round_or_one_a_value() -> None:
    """It wins over `time0`; NaN in it is no time."""
    of_rounds = taken([header(series=["a", "b"], time0=99.0), floats(1, 2, 3, 4), floats(7, 8)])
    assert of_rounds.time.tolist() == [7.0, 7.0, 8.0, 8.0]
    of_values = taken([header(series=["a", "b"]), floats(1, 2), floats(7, math.nan)])
    assert samples(of_values) == [("a", 1.0, 7.0), ("b", 2.0, None)]


def test_payloads_of_all_kinds_make_one_batch_in_the_order_they_came() -> None:
    """JSON before and after columns keeps its place."""
    batch = taken([b"x", b"1"], [header(series=["a", "b"]), floats(2, 3)], [b'{"series":"y","value":4}'], [b"z", b"5"])
    assert [(name, value) for name, value, _ in samples(batch)] == [("x", 1), ("a", 2), ("b", 3), ("y", 4), ("z", 5)]
    assert batch.value.dtype == batch.time.dtype == np.float64


def test_the_names_of_a_header_that_comes_again_are_the_same_list() -> None:
    """So that who comes after the wire may know them by identity."""
    inbox, frames = Inbox(Limits()), [header(series=["a", "b"]), floats(1, 2)]
    inbox.add(frames)
    first = inbox.take()
    inbox.add(frames)
    assert inbox.take().series is first.series
    inbox.add(frames)
    inbox.add([b"c", b"3"])
    assert inbox.take().series == ["a", "b", "c"]
    assert first.series == ["a", "b"]


def test_an_inbox_is_empty_after_it_was_taken() -> None:
    """Neither samples nor refusals are told twice."""
    inbox = Inbox(Limits())
    inbox.add([b"a", b"1"])
    inbox.refuse("oversize")
    assert inbox
    assert (len(inbox.take()), bool(inbox)) == (1, False)
    assert (len(inbox.take()), inbox.take().refused) == (0, {})


# ---- numbers


def test_numbers_that_follow_each_other_are_one_parcel() -> None:
    """A batch of a thousand messages of one producer is one parcel, so that it costs one look at the ledger."""
    batch = taken(*[[json.dumps({"series": "a", "value": n, "seq": n}).encode()] for n in range(5, 1005)])
    assert batch.parcels == [Parcel(0, 1000, b"\0\0plc", True, "plc", 0, 5)]


def test_a_jump_another_producer_or_another_epoch_start_a_new_parcel() -> None:
    """Each parcel's numbers are without a hole, and of one life of one producer."""
    inbox = Inbox(Limits())
    for origin, fields in (
        (DEALER, {"seq": 1}),
        (DEALER, {"seq": 3}),
        (DEALER, {"seq": 4, "epoch": 2}),
        (DEALER, {"seq": 5, "epoch": 2, "producer": "me"}),
        (OTHER, {"seq": 6, "epoch": 2, "producer": "me"}),
        (OTHER, {"seq": 7}),
    ):
        inbox.add([json.dumps({"series": "a", "value": 1, **fields}).encode()], origin)
    assert [(p.start, p.stop, p.peer[2:], p.producer, p.epoch, p.seq) for p in inbox.take().parcels] == [
        (0, 1, b"plc", "plc", 0, 1),
        (1, 2, b"plc", "plc", 0, 3),
        (2, 3, b"plc", "plc", 2, 4),
        (3, 4, b"plc", "me", 2, 5),
        (4, 5, b"pump", "me", 2, 6),
        (5, 6, b"pump", "pump", 0, 7),
    ]


def test_samples_without_numbers_are_one_parcel_whoever_sent_them() -> None:
    """Nobody is answered, so nobody need be told apart."""
    inbox = Inbox(Limits())
    inbox.add([b"a", b"1"], DEALER)
    inbox.add([b"[" + b'{"series":"a","value":1},' * 3 + b'{"series":"a","value":1}]'], OTHER)
    inbox.add([header(series="a"), floats(1, 2)], DEALER)
    assert inbox.take().parcels == [Parcel(0, 7)]


def test_the_samples_of_an_array_have_their_own_numbers() -> None:
    """Two producers may share a message."""
    array = [{"series": "a", "value": n, "seq": n, "producer": "x"} for n in (1, 2)]
    array += [{"series": "b", "value": 1, "seq": 1, "producer": "y"}]
    parcels = taken([json.dumps(array).encode()]).parcels
    assert [(p.start, p.stop, p.producer, p.seq) for p in parcels] == [(0, 2, "x", 1), (2, 3, "y", 1)]


def test_columns_have_a_number_a_value() -> None:
    """The next message goes on where this one ended."""
    parcels = taken([header(series="a", seq=1), floats(1, 2, 3)], [header(series="a", seq=4), floats(4)]).parcels
    assert parcels == [Parcel(0, 4, b"\0\0plc", True, "plc", 0, 1)]


def test_a_bad_sample_with_a_number_is_a_parcel_of_its_own() -> None:
    """So that the number counts as dealt with, and its sender is told."""
    numbered = [b'{"series":"a","value":1,"seq":1}', b'{"series":"a","seq":2}', b'{"series":"a","value":1,"seq":3}']
    batch = taken(*[[frame] for frame in numbered])
    assert [(p.start, p.stop, p.seq, p.refused, p.numbers) for p in batch.parcels] == [
        (0, 1, 1, "", 0),
        (1, 1, 2, "malformed", 1),
        (1, 2, 3, "", 0),
    ]
    assert batch.refused == {"malformed": 1}


def test_a_number_that_was_refused_may_come_again() -> None:
    """Its second sample does not pass for the one before it."""
    frames = [b'{"series":"a","value":1,"seq":1}', b'{"series":"a","seq":2}', b'{"series":"a","value":1,"seq":2}']
    assert [parcel.seq for parcel in taken(*[[frame] for frame in frames]).parcels] == [1, 2, 2]


def test_columns_that_do_not_fit_use_up_the_numbers_they_say() -> None:
    """A header of n values that came without them."""
    (parcel,) = taken([header(series="a", n=7, seq=3, epoch=2, producer="me"), floats(1, 2)]).parcels
    assert (parcel.seq, parcel.numbers, parcel.epoch, parcel.producer) == (3, 7, 2, "me")


# ---- what is none


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"71.3"],
        [b"null"],
        [b'"boiler"'],
        [b'{"series":"a"}'],
        [b'{"value":1}'],
        [b'{"series":1,"value":1}'],
        [b'{"series":"a","value":"1"}'],
        [b'{"series":"a","value":true}'],
        [b'{"series":"a","value":1,"seq":-1}'],
        [b'{"series":"a","value":1,"seq":1.5}'],
        [b'{"series":"a","value":1,"seq":' + b"9" * 30 + b"}"],
        [b'{"series":"a","value":1,"time":"now"}'],
        [b'{"series":"a","value":1} x'],
        [b'{"series":"a","value":1'],
        [b'{"series":"\xff\xfe","value":1}'],
        [b'{"series":"\\ud800","value":1}'],
        [b"[" * 100_000],
        [b"[" * 100_000 + b"]" * 100_000],
        [b'{"series":"a","value":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"],
        [b'{"series":"a","value":NaN,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"],
        [b'{"series":"a","value":NaN' + b"9" * 10_000 + b"}"],
        [b"NaN"],
        [b"a", b""],
        [b"a", b"one"],
        [b"a", b"1_000"],
        [b"a", b"0x10"],
        [b"a", b"1" * 1000],
        [b"a", b"\xff"],
        [b"a", b"1", b"2"],
        [b"a", b"1", b"2", b"3"],
        [b"{", floats(1)],
        [b'{"series":["a"]}', floats(1)],
        [header(series=["a"]).replace(b"1", b"2"), floats(1)],
        [header(series=[]), floats(1)],
        [header(series=["a"]), b""],
        [header(series=["a"]), floats(1)[:-1]],
        [header(series=["a", "b"]), floats(1, 2, 3)],
        [header(series=["a"], n=2), floats(1)],
        [header(series="a", time0=1.0), floats(1, 2)],
        [header(series=["a", "b"]), floats(1, 2, 3, 4), floats(1, 2, 3)],
        [header(series=["a"]), floats(1), b"x"],
        [header(series=["a"]), floats(1), floats(1), floats(1)],
        [header(series=["a", 1]), floats(1, 2)],
        [b'{"columns":1,"series":' + b"[" * 100_000 + b"]" * 100_000 + b"}", floats(1)],
    ],
    ids=lambda frames: repr(frames)[:50],
)
def test_what_cannot_be_read_is_malformed(frames: list[bytes]) -> None:
    """It is counted once, and what comes after it is taken."""
    batch = taken(frames, [b"a", b"1"])
    assert batch.refused == {"malformed": 1}
    assert samples(batch) == [("a", 1.0, None)]


def test_a_topic_that_is_no_text_is_no_name() -> None:
    """Counted as `name`, not as `malformed`."""
    assert taken([b"\xff\xfe", b"1"]).refused == {"name": 1}


def test_the_good_samples_of_an_array_survive_the_bad_ones() -> None:
    """Each bad one is counted, and told by its number."""
    batch = taken(
        [
            b'[{"series":"a","value":1,"seq":1},{"series":"a","seq":2},7,{"series":"b","value":NaN,"seq":3},{"series":"a","value":4,"seq":4}]'
        ]
    )
    assert [(name, str(value)) for name, value, _ in samples(batch)] == [("a", "1.0"), ("b", "nan"), ("a", "4.0")]
    assert batch.refused == {"malformed": 2}
    assert [(p.seq, p.refused) for p in batch.parcels] == [(1, ""), (2, "malformed"), (3, "")]


def test_many_headers_do_not_fill_the_memory() -> None:
    """What is kept decoded is bounded in bytes, and headers that cannot come again are not kept."""
    inbox = Inbox(Limits())
    for n in range(200):
        inbox.add([header(series=[f"{n}.{'x' * 150}.{i}" for i in range(100)]), floats(*range(100))])
        inbox.add([header(series="a", seq=n + 1), floats(1)])
        inbox.add([header(series="a", time0=float(n)), floats(1)])
        inbox.take()
    assert sum(len(frame) for frame in inbox._headers) <= 1 << 20
    assert all(b"time0" not in frame and b"seq" not in frame for frame in inbox._headers)


FRAGMENTS = st.sampled_from(
    [
        b"{",
        b"}",
        b"[",
        b"]",
        b'"series"',
        b'"value"',
        b":",
        b",",
        b"1",
        b"NaN",
        b"-",
        b'"a"',
        b'"seq"',
        b"1e999",
        b"\xff",
    ]
)
FRAME = st.one_of(
    st.binary(max_size=64),
    st.lists(FRAGMENTS, max_size=20).map(b"".join),
    st.just(header(series=["a", "b"])),
    st.lists(st.floats(width=64), max_size=4).map(lambda values: floats(*values)),
)


@given(st.lists(st.lists(FRAME, min_size=1, max_size=5), max_size=5))
def test_no_bytes_at_all_raise(messages: list[list[bytes]]) -> None:
    """Whatever comes is samples, or refusals by names that have a counter, and the parcels cover the samples in
    order."""
    batch = taken(*messages)
    assert len(batch) == len(batch.value) == len(batch.time)
    assert set(batch.refused) <= set(REASONS)
    edges = [edge for parcel in batch.parcels for edge in (parcel.start, parcel.stop)]
    assert edges[1:-1:2] == edges[2::2]
    assert (edges[0], edges[-1]) == (0, len(batch)) if edges else len(batch) == 0


# ---- on the way out


def forecasts(horizon: int = 2, levels: int = 3) -> Forecasts:
    """Three rows: one warming, two ready; the last expert of the last row has nothing to say."""
    n = 3
    mean = np.arange(n * horizon, dtype=float).reshape(n, horizon) + 10.0
    width = np.arange(1.0, levels + 1)
    experts = np.stack([mean + 0.25, mean - 0.25], axis=2)
    experts[2, :, 1] = np.nan
    for array in (mean, experts):
        array[0] = np.nan
    return Forecasts(
        row=np.arange(n),
        series=["new", "boiler", "größe"],
        time=np.array([100.0, 200.0, 300.0]),
        value=np.array([1.0, 2.0, 3.0]),
        step=np.array([np.nan, 1.0, 0.5]),
        count=np.array([3, 42, 43]),
        ready=np.array([False, True, True]),
        mean=mean,
        lower=mean[:, :, None] - width,
        upper=mean[:, :, None] + width,
        experts=experts,
        weights=np.broadcast_to(np.array([0.75, 0.25]), experts.shape),
        score=np.array([np.nan, 0.5, 1e-4]),
        flag=np.array([False, False, True]),
        model=np.array([3, 3, 4]),
    )


def test_a_forecast_is_the_json_of_the_contract() -> None:
    """Fields, order of the steps ahead, levels and names of the experts."""
    (message,) = encode_forecasts(forecasts(), [1], ("naive", "ar"), (0.9, 0.8, 0.95))
    assert json.loads(message) == {
        "series": "boiler",
        "time": 200.0,
        "value": 2.0,
        "step": 1.0,
        "seq": 42,
        "status": "ready",
        "anomaly": {"score": 0.5, "flag": False},
        "model": 3,
        "level": 0.9,
        "mean": [12.0, 13.0],
        "lower": [11.0, 12.0],
        "upper": [13.0, 14.0],
        "experts": {"naive": 12.25, "ar": 11.75},
        "weights": {"naive": 0.75, "ar": 0.25},
        "intervals": {
            "0.8": {"lower": [10.0, 11.0], "upper": [14.0, 15.0]},
            "0.95": {"lower": [9.0, 10.0], "upper": [15.0, 16.0]},
        },
    }


def test_a_warming_series_forecasts_nothing() -> None:
    """Neither mean nor interval nor experts; what is unknown is null."""
    message = json.loads(encode_forecasts(forecasts(), [0], ("naive", "ar"), (0.9, 0.8, 0.95))[0])
    assert message["status"] == "warming"
    assert message["step"] is None
    assert message["anomaly"] == {"score": None, "flag": False}
    assert not {"mean", "lower", "upper", "level", "experts", "weights", "intervals"} & set(message)


def test_an_expert_that_says_nothing_is_left_out() -> None:
    """With its weight."""
    message = json.loads(encode_forecasts(forecasts(), [2], ("naive", "ar"), (0.9, 0.8, 0.95))[0])
    assert message["experts"] == {"naive": 14.25}
    assert message["weights"] == {"naive": 0.75}


def test_a_choice_of_rows_gives_the_messages_all_rows_give() -> None:
    """In the order of the choice."""
    every = encode_forecasts(forecasts(), [0, 1, 2], ("naive", "ar"), (0.9, 0.8, 0.95))
    assert [json.loads(message)["series"] for message in every] == ["new", "boiler", "größe"]
    assert encode_forecasts(forecasts(), [0, 2], ("naive", "ar"), (0.9, 0.8, 0.95)) == [every[0], every[2]]


def test_replies_are_an_ack_or_a_refusal() -> None:
    """As the contract has them."""
    assert json.loads(encode_reply(Reply(b"", ack=7))) == {"ack": 7}
    assert json.loads(encode_reply(Reply(b"", refused="late", seq=7))) == {"refused": "late", "seq": 7}
    assert json.loads(encode_reply(Reply(b"", ack=0))) == {"ack": 0}


# ---- the page


def test_the_bytes_on_the_page_are_what_it_says() -> None:
    """Each dump of docs/protocol.md is read as the sample beside it."""
    dumps = dict(re.findall(r"^((?:[0-9a-f]{2} (?:\| )?)+) +(\S.*)$", PROTOCOL, re.M))
    frames = {text: [bytes.fromhex(part) for part in dump.split(" | ")] for dump, text in dumps.items()}
    assert len(frames) == 5
    assert samples(taken(frames['{"series":"boiler","value":71.3}'])) == [("boiler", 71.3, None)]
    assert samples(taken(frames["boiler | 71.3"])) == [("boiler", 71.3, None)]
    columns = [frames[text][0] for text in ('{"columns":1,"series":["a","b"]}', "1.5, 2.5", "1700000001.0")]
    assert samples(taken(columns)) == [("a", 1.5, 1700000001.0), ("b", 2.5, 1700000001.0)]


def test_the_page_names_every_refusal_there_is() -> None:
    """And none that there is not."""
    table = PROTOCOL[PROTOCOL.index("## Refusals") : PROTOCOL.index("## The feed")]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.M)) == sorted(REASONS)


def test_the_page_describes_every_field_of_a_forecast() -> None:
    """The example has the fields of the real thing, and the table has them too."""
    real = json.loads(encode_forecasts(forecasts(), [1], ("naive", "ar"), (0.9, 0.8, 0.95))[0])
    example = json.loads(re.findall(r"```json\n(.*?)```", PROTOCOL, re.S)[0])
    assert set(example) == set(real)
    described = re.findall(
        r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", PROTOCOL[PROTOCOL.index("## The feed") :], re.M))
    )
    assert set(described) == set(real)


def test_an_array_of_too_many_bad_ones_is_given_up() -> None:
    """What is no sample and has no number is counted at once; of what might have one, so many are looked into."""
    inbox = Inbox(Limits())
    bad = [1, {}, {"series": "a"}, [], None]
    inbox.add([json.dumps([*bad * 1_000, {"series": "good", "value": 1}]).encode()])
    assert inbox.take().refused == {"malformed": 5_000}
    numbered = [{"seq": n} for n in range(1, SALVAGE_MAX + 1)]
    inbox.add([json.dumps([*numbered, {"series": "late", "value": 1, "seq": SALVAGE_MAX + 1}]).encode()])
    batch = inbox.take()
    assert batch.refused == {"malformed": SALVAGE_MAX + 1}
    assert len(batch.parcels) == SALVAGE_MAX and not batch.series

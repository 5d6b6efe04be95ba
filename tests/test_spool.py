"""The spool: a window that outlives its process, whatever moment that ended at."""

from __future__ import annotations

import logging
import os
import resource
import stat
from array import array
from math import isnan, nan
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forecastd.producers.block import Block
from forecastd.producers.spool import FORMAT, Event, Head, Spool, SpoolError
from forecastd.producers.window import Window


def block(*values: float) -> Block:
    return Block("s", array("d", values), array("d", values))


def waiting(window: Window) -> list[float]:
    return [value for each in window.blocks() for value in each.value]


def begin(path: Path) -> Spool:
    spool = Spool(path)
    window = Window(100)
    assert spool.restore(window, 5) is None
    spool.rewrite(Head(FORMAT, "plc-7", 5, 0), window)
    return spool


def reopen(path: Path, size: int = 100) -> tuple[Head, Window]:
    spool, window = Spool(path), Window(size)
    head = spool.restore(window, 9)
    spool.close()
    assert head is not None
    return head, window


def test_a_restarted_producer_finds_its_name_epoch_numbers_and_samples(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    spool = begin(path)
    spool.append(Event(series="a", value=[1.5], time=[7.0]))
    spool.append_block(Block(["a", "b", "c"], array("d", [2, 3, 4]), array("d", [nan])))
    spool.append(Event(sent=3))
    spool.append(Event(ack=2))
    spool.append_block(block(5, 6))
    spool.close()
    head, window = reopen(path)
    assert (head.producer, head.epoch) == ("plc-7", 5)
    assert (window.acked, window.ever, window.waiting) == (2, 3, 4)
    assert waiting(window) == [3, 4, 5, 6]
    item = window.take()
    assert item is not None
    assert item[0] == 3 and item[1].series == ["b"] and isnan(item[1].time[0])
    assert (window.total_resent, window.total_sent) == (1, 0)


def test_drops_and_new_epochs_are_remembered(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    spool = begin(path)
    spool.append_block(block(1, 2, 3, 4))
    for event in (Event(sent=1), Event(drop=2), Event(ack=1), Event(sent=2), Event(epoch=8)):
        spool.append(event)
    spool.close()
    head, window = reopen(path)
    assert (head.epoch, window.acked, window.ever) == (8, 0, 0)
    assert waiting(window) == [4]


def test_rewriting_changes_nothing_but_the_size(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    spool = begin(path)
    for k in range(50):
        spool.append(Event(series="a", value=[float(k)], time=[7.0]))
    spool.append(Event(sent=30))
    spool.append(Event(ack=25))
    spool.close()
    before = path.stat().st_size
    spool, window = Spool(path), Window(100)
    head = spool.restore(window, 9)
    assert head is not None
    spool.rewrite(Head(FORMAT, head.producer, head.epoch, window.acked), window)
    spool.append(Event(series="a", value=[50.0], time=[7.0]))
    spool.close()
    assert path.stat().st_size < before
    head, window = reopen(path)
    assert (window.acked, window.ever) == (25, 30)
    assert waiting(window) == [float(k) for k in range(25, 51)]
    assert [entry.name for entry in tmp_path.iterdir()] == ["spool"]


def test_a_spool_that_holds_little_is_kept_small(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    spool, window = begin(path), Window(2000)
    head = Head(FORMAT, "plc-7", 5, 0)
    for _ in range(40):
        big = block(*(float(k) for k in range(1000)))
        window.put(big)
        spool.append_block(big)
        window.take()
        spool.append(Event(sent=window.ever))
        window.ack(window.ever)
        spool.append(Event(ack=window.acked))
        spool.tidy(Head(FORMAT, head.producer, head.epoch, window.acked), window)
        assert path.stat().st_size < 1 << 21
    spool.close()
    _, again = reopen(path)
    assert again.acked == window.acked and not again.waiting


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(data=st.data())
def test_a_torn_last_line_loses_that_line_alone(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "spool"
    path.unlink(missing_ok=True)
    spool = begin(path)
    sizes = [path.stat().st_size]
    for k in range(5):
        spool.append_block(block(k + 1.0))
        sizes.append(path.stat().st_size)
    spool.close()
    cut = data.draw(st.integers(sizes[0], sizes[-1]))
    with path.open("r+b") as file:
        file.truncate(cut)
    _, window = reopen(path)
    assert waiting(window) == [k + 1.0 for k in range(sum(size <= cut for size in sizes) - 1)]
    assert not path.with_name("spool.damaged").exists()


def test_damage_in_the_middle_is_set_aside_and_begins_a_new_epoch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "spool"
    spool = begin(path)
    for k in range(3):
        spool.append_block(block(k + 1.0))
    spool.append(Event(sent=2))
    spool.append(Event(ack=1))
    spool.append_block(block(4.0))
    spool.append(Event(sent=3))
    spool.close()
    lines = path.read_bytes().split(b"\n")
    lines[6] = b"\0" * len(lines[6])
    path.write_bytes(b"\n".join(lines))
    with caplog.at_level(logging.WARNING):
        head, window = reopen(path)
    assert (head.epoch, window.acked, window.ever) == (9, 0, 0)
    assert waiting(window) == [2, 3]
    assert "line 7 is damaged" in caplog.text
    assert path.with_name("spool.damaged").read_bytes().startswith(b"\0")


@pytest.mark.parametrize(
    "line",
    [
        b'{"series": ["a", "b"], "value": [1.0], "time": [7.0]}',
        b'{"series": "a", "value": [1.0, 2.0, 3.0], "time": [7.0, 8.0]}',
        b'{"series": "a", "value": [], "time": [7.0]}',
        b'{"series": "a", "value": ["x"], "time": [7.0]}',
        b'{"surprise": 1}',
        b"[]",
    ],
)
def test_lines_that_make_no_sense_are_damage(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "spool"
    begin(path).close()
    path.write_bytes(path.read_bytes() + line + b"\n")
    assert reopen(path)[0].epoch == 9


def test_two_producers_cannot_have_one_spool(tmp_path: Path) -> None:
    spool = begin(tmp_path / "spool")
    with pytest.raises(SpoolError, match="in use by another producer"):
        Spool(tmp_path / "spool")
    spool.close()
    Spool(tmp_path / "spool").close()


def test_a_file_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    newer = '{"spool": 2, "producer": "a", "epoch": 1, "acked": 0}\n'
    for text, complaint in (("dear diary\n", "is no spool"), ("dear diary", "is no spool"), (newer, "format 2")):
        path.write_text(text)
        spool = Spool(path)
        with pytest.raises(SpoolError, match=complaint):
            spool.restore(Window(10), 1)
        spool.close()
        assert path.read_text() == text


def test_the_spool_is_its_owners_alone(tmp_path: Path) -> None:
    begin(tmp_path / "spool").close()
    assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o600


def test_a_line_written_in_part_is_taken_back(tmp_path: Path) -> None:
    spool = begin(tmp_path / "spool")
    size = (tmp_path / "spool").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))
    try:
        with pytest.raises(OSError, match="no space left for the spool"):
            spool.append(Event(series="a", value=[1.0], time=[7.0]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "spool").stat().st_size == size
    spool.append(Event(series="a", value=[2.0], time=[7.0]))
    spool.close()
    assert waiting(reopen(tmp_path / "spool")[1]) == [2.0]


def test_a_full_disk_is_told_and_leaves_no_half_line(tmp_path: Path) -> None:
    spool = begin(tmp_path / "spool")
    full = os.open("/dev/full", os.O_WRONLY)
    own = os.dup(spool._fd)
    os.dup2(full, spool._fd)
    with pytest.raises(OSError, match="No space left"):
        spool.append(Event(series="a", value=[1.0], time=[7.0]))
    os.dup2(own, spool._fd)
    spool.append(Event(series="a", value=[2.0], time=[7.0]))
    spool.close()
    os.close(own)
    os.close(full)
    assert waiting(reopen(tmp_path / "spool")[1]) == [2.0]

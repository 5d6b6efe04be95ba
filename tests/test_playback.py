"""CSV recordings: every form of time, what is skipped, what is refused and where, and the order of playing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from forecastd.producers.playback import Recording, Unreadable, played, read, read_all


def write(folder: Path, text: str, name: str = "boiler.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def at(*when: int) -> float:
    return datetime(*when, tzinfo=UTC).timestamp()  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    ("cells", "times"),
    [
        (["2015-02-26 21:42:53", "2015-02-26 21:47:53"], [at(2015, 2, 26, 21, 42, 53), at(2015, 2, 26, 21, 47, 53)]),
        (["2022-03-20T11:00:00+01:00", "2022-07-20T11:00:00+02:00"], [at(2022, 3, 20, 10), at(2022, 7, 20, 9)]),
        (["2022-03-20T11:00:00Z", "2022-03-20T11:00:00.250Z"], [at(2022, 3, 20, 11), at(2022, 3, 20, 11) + 0.25]),
        (["2022-03-20", "2022-03-21"], [at(2022, 3, 20), at(2022, 3, 21)]),
        (["19580329", "19580405"], [at(1958, 3, 29), at(1958, 4, 5)]),
        (["1700", "1701"], [at(1700, 1, 1), at(1701, 1, 1)]),
        (["1700000000", "1700000000.5"], [1.7e9, 1.7e9 + 0.5]),
        (["1700000000000", "1700000000500"], [1.7e9, 1.7e9 + 0.5]),
        (["0", "1", "2", "1700"], [0.0, 1.0, 2.0, 1700.0]),
        (["-5", "5"], [-5.0, 5.0]),
    ],
)
def test_each_form_of_time_is_read_whole_and_as_utc(tmp_path: Path, cells: list[str], times: list[float]) -> None:
    path = write(tmp_path, "timestamp,value\n" + "".join(f"{cell},{k}\n" for k, cell in enumerate(cells)))
    [recording] = read(path)
    assert recording.time.tolist() == times
    assert recording.value.tolist() == list(range(len(cells)))
    assert recording.time.dtype == recording.value.dtype == np.float64


def test_a_value_column_is_named_by_its_file_and_any_other_by_itself(tmp_path: Path) -> None:
    assert [r.name for r in read(write(tmp_path, "timestamp,value\n1,2\n"))] == ["boiler"]
    assert [r.name for r in read(write(tmp_path, "timestamp,Value\n1,2\n"))] == ["boiler"]
    assert [r.name for r in read(write(tmp_path, "time,hot,cold\n1,2,3\n"))] == ["hot", "cold"]
    assert [r.name for r in read(write(tmp_path, "time,1,2\n1,2,3\n"))] == ["1", "2"]


def test_a_wide_file_skips_and_counts_the_empty_cells_of_each_series(tmp_path: Path) -> None:
    text = "timestamp,hot,cold\n1,10,20\n2,,21\n3,NaN,22\n4,13,null\n5,inf,24\n"
    hot, cold = read(write(tmp_path, text))
    assert (hot.name, hot.time.tolist(), hot.value.tolist(), hot.skipped) == ("hot", [1, 4], [10, 13], 3)
    assert (cold.time.tolist(), cold.value.tolist(), cold.skipped) == ([1, 2, 3, 5], [20, 21, 22, 24], 1)


def test_blank_lines_quotes_a_byte_order_mark_and_crlf_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "odd.csv"
    path.write_bytes(b'\xef\xbb\xbftimestamp,"value"\r\n1,"2.5"\r\n\r\n2, 3 \r\n')
    [recording] = read(path)
    assert recording.name == "odd"
    assert recording.value.tolist() == [2.5, 3.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty; it has to start with a header"),
        ("timestamp,value\n", "a header and no samples"),
        ("timestamp\n1\n", ":1: one column"),
        ("1,2\n3,4\n", ":1: numbers where the header should be"),
        ("2024-01-01,2\n2024-01-02,4\n", ":1: numbers where the header should be"),
        ("timestamp,a,a\n1,2,3\n", ":1: two columns are called 'a'"),
        ("timestamp,a,\n1,2,3\n", ":1: a column without a name"),
        ("timestamp,value\n1,2\n2,3,4\n", ":3: 3 cells, but the first line has 2"),
        ("timestamp,value\n1,2\n\n2\n", ":4: 1 cell, but the first line has 2"),
        ("timestamp,value\n1,2\n\n2,warm\n", ":4: 'warm' is not a number"),
        ("timestamp,value\n2024-01-01,2\nlater,3\n", ":3: 'later' is not a time in the form of this file (ISO 8601"),
        ("timestamp,value\n100,2\n2024-01-01,3\n", ":3: '2024-01-01' is not a time in the form of this file (seconds)"),
        ("timestamp,value\n100,2\nnan,3\n", ":3: 'nan' is not a time"),
        ("timestamp,value\n19580329,2\n19581399,3\n", ":3: '19581399' is not a time"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(Unreadable) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "picture.csv"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(Unreadable, match="not UTF-8 text"):
        read(path)


def test_a_missing_file_stays_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.csv")


def test_equal_columns_of_two_files_get_the_files_name_in_front(tmp_path: Path) -> None:
    one = write(tmp_path, "time,hot,cold\n1,2,3\n", "north.csv")
    two = write(tmp_path, "time,hot,warm\n1,2,3\n", "south.csv")
    assert [r.name for r in read_all([one, two])] == ["north.hot", "cold", "south.hot", "warm"]
    (tmp_path / "other").mkdir()
    three = write(tmp_path / "other", "time,hot,wet\n1,2,3\n", "north.csv")
    with pytest.raises(Unreadable, match=r"a second series called 'north.hot'"):
        read_all([one, three])


def series(name: str, times: list[float]) -> Recording:
    return Recording(name, np.array(times), np.arange(len(times), dtype=np.float64))


def test_recordings_are_played_by_their_times_or_in_turns() -> None:
    recordings = [series("a", [1, 2, 3]), series("b", [2.5, 2.6])]
    assert [(k, t) for k, t, _, _ in played(recordings, by_time=True)] == [(0, 1), (0, 2), (1, 2.5), (1, 2.6), (0, 3)]
    assert [(k, i) for k, _, _, i in played(recordings, by_time=False)] == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]


def test_a_recording_whose_times_step_back_keeps_its_own_order() -> None:
    recordings = [series("a", [1, 5, 3, 6]), series("b", [2, 4])]
    order = [(k, t) for k, t, _, _ in played(recordings, by_time=True)]
    assert order == [(0, 1), (1, 2), (1, 4), (0, 5), (0, 3), (0, 6)]

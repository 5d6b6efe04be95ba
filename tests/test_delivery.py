"""What `forecastd produce` says at the end, and of what goes wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from forecastd.daemon.delivery import said, summary
from forecastd.producers.client import Stats


def stats(**figures: int | dict[str, int]) -> Stats:
    nothing = {"sent": 0, "acked": 0, "refused": {}, "resent": 0, "dropped": 0, "waiting": 0, "connections": 1}
    return Stats(connected=True, **{**nothing, **figures})  # type: ignore[arg-type]


def test_the_summary_is_one_line_with_every_reason() -> None:
    assert summary(stats(sent=5, acked=5), True) == "sent 5, acknowledged 5, refused 0"
    told = summary(stats(sent=9, acked=5, refused={"nonfinite": 3, "late": 1}, resent=2), True)
    assert told == "sent 9, acknowledged 5, refused 4 (late 1, nonfinite 3), resent 2"


def test_where_nothing_comes_back_the_summary_says_so() -> None:
    assert "acknowledged none (there is no way back on this socket)" in summary(stats(sent=5), False)


def test_errors_are_said_without_their_numbers(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:
        (tmp_path / "none").open()
    assert said(caught.value) == f"{tmp_path}/none: No such file or directory"
    assert said(OSError("the producer has stopped")) == "the producer has stopped"
    assert said(ValueError("so")) == "so"

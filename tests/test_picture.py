"""The picture: a PNG for any traces, also for flat, short and very many ones."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from forecastd.daemon import picture
from forecastd.daemon.replay import replay
from forecastd.daemon.settings import Settings
from forecastd.producers.playback import Recording
from forecastd.producers.waves import WAVES

SETTINGS = Settings(experts=("naive", "ar"))


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def recordings(count: int, n: int = 120) -> list[Recording]:
    return [Recording(f"s{k}", 1e9 + np.arange(n), WAVES["sine"](k).take(n)[1]) for k in range(count)]


def test_a_row_a_series_and_none_for_what_cannot_be_scored() -> None:
    one = size(picture.png(replay(recordings(1), SETTINGS, None), 0.3))
    flat = Recording("flat", 1e9 + np.arange(90.0), np.full(90, 3.0))
    short = Recording("short", 1e9 + np.arange(4.0), np.arange(4.0))
    three = size(picture.png(replay([*recordings(2), flat, short], SETTINGS, None), 0.3))
    assert three[0] == one[0] == 1600 and three[1] == one[1] + 2 * 230


def test_nothing_to_score_is_a_picture_too() -> None:
    assert size(picture.png(replay(recordings(1, n=4), SETTINGS, None), 0.3))[0] == 1600


def test_very_many_series_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture, "ROWS_MAX", 2)
    assert size(picture.png(replay(recordings(4), SETTINGS, None), 0.3))[1] == 2 * 230 + 70

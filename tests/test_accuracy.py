"""The accuracy benchmark: it runs from the command line, its page says what was kept and missed, its yardsticks are
right."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the benchmarks are no part of the package

from benchmarks.accuracy import TABLES, page  # noqa: E402
from benchmarks.corpus import QUICK  # noqa: E402
from benchmarks.intervals import WINDOW, rolling_conformal  # noqa: E402
from benchmarks.peers import PEERS, Score  # noqa: E402
from benchmarks.section import Check, Section  # noqa: E402
from benchmarks.shocks import HOLD, recovered  # noqa: E402


def test_a_promise_is_kept_on_its_side_of_the_bound() -> None:
    least, most = Check("skill", 0.17, 0.165, 0.19, least=True), Check("error", 0.09, 0.09, 0.08)
    assert least.kept and least.row()[-1] == "kept"
    assert most.kept and Check("error", 0.0899, 0.09, 0.09).row()[-1] == "kept, aim reached"
    assert not Check("skill", 0.16, 0.165, least=True).kept
    assert Check("error", 0.091, 0.09).row()[-1] == "**missed**"
    assert not Check("nothing", float("nan"), 1.0).kept


def test_the_page_starts_with_the_promises_and_says_command_and_machine() -> None:
    section = Section("A table", "Words.", [(["what", "x"], [["a", "1"]])], [Check("a", 2.0, 1.0)])
    text = page([section], QUICK, ["tutorial"])
    assert text.index("## What was promised") < text.index("## A table")
    assert "python -m benchmarks.accuracy --only tutorial --quick" in text and "numpy" in text
    assert "| a | 2.000 | ≤ 1.000 |  | **missed** |" in text and "**A quick run" in text
    assert "`make bench-accuracy`" in page([section], QUICK.__class__(), list(TABLES))


def test_rolling_conformal_is_the_quantile_of_the_last_errors_around_the_last_value() -> None:
    values = np.random.default_rng(0).normal(size=3000).cumsum()
    lower, upper = rolling_conformal(values, 0.9)
    t = 2000
    past = np.sort(np.abs(np.diff(values))[t - WINDOW - 1 : t - 1])
    assert upper[t] - values[t - 1] == pytest.approx(past[int(np.ceil(501 * 0.9)) - 1])
    assert values[t - 1] - lower[t] == pytest.approx(upper[t] - values[t - 1])
    held = (lower <= values) & (values <= upper)
    assert held[100:].mean() == pytest.approx(0.9, abs=0.02)


def test_recovered_is_the_first_sample_from_which_it_stays_near() -> None:
    ratio = np.full(400, 1.0)
    ratio[:20] = 2.0
    assert recovered(ratio) == 20
    ratio[60] = 1.2
    assert recovered(ratio) == 61
    assert recovered(np.full(HOLD, 1.5)) == HOLD


def test_a_peer_that_is_silent_or_diverges_counts_as_the_last_value() -> None:
    values = np.random.default_rng(1).normal(size=100).cumsum()
    score = Score()
    score.add(values, np.full(100, np.nan), 30)
    score.add(values, values, 30)
    assert score.skills == [0.0, 1.0] and score.relmaes == [1.0, 0.0]


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_forecasts_each_sample_from_those_before_it(name: str) -> None:
    """A change of the samples from 60 on changes no forecast up to 60."""
    package, peer = PEERS[name]
    pytest.importorskip(package)
    values = np.random.default_rng(2).normal(size=100).cumsum() + np.sin(np.arange(100))
    changed = values.copy()
    changed[60:] += 50.0
    one, other = peer(values, 40), peer(changed, 40)
    np.testing.assert_array_equal(one[:61], other[:61])
    assert not np.array_equal(one[61:], other[61:])
    assert np.isfinite(one[60:]).all()


@pytest.mark.slow
def test_it_runs_from_the_command_line(tmp_path: Path) -> None:
    """One table, quickly: the page is written and holds its figures."""
    out = tmp_path / "accuracy.md"
    command = [sys.executable, "-m", "benchmarks.accuracy", "--quick", "--only", "tutorial", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    row = re.search(r"\| `blend` \| (0\.\d+) \| (0\.\d+) \|", out.read_text())
    assert row and 0.087 < float(row[2]) < 0.12
    assert "promises missed" in done.stderr or "written" in done.stderr

"""`forecastd backtest` as a user calls it: figures, names, wide files, settings, comparison, pictures, mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from forecastd.daemon.backtest import distinct
from forecastd.daemon.cli import main
from forecastd.models import checkpoint
from forecastd.producers.waves import WAVES

PROMISED = ["series", "n", "scored", "mae", "rmse", "mase", "skill", "coverage", "width", "experts"]
LEAN = ("--experts", "naive,ses,ar10,ar")


def write(folder: Path, name: str, columns: dict[str, np.ndarray], start: float = 1e9, step: float = 60.0) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(["timestamp", *columns])]
    lines += [",".join([f"{start + i * step}", *(f"{v!r}" for v in map(float, row))]) for i, row in enumerate(rows)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def sine(n: int = 400, seed: int = 0) -> np.ndarray:
    return WAVES["sine"](seed).take(n)[1]


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["backtest", *arguments])


def objects(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_json_is_one_object_a_series_with_the_promised_names(tmp_path: Path) -> None:
    file = write(tmp_path, "boiler.csv", {"value": sine()})
    (scores,) = objects(call(file, "--json", *LEAN))
    assert list(scores)[:10] == PROMISED
    assert (scores["series"], scores["n"], scores["scored"]) == ("boiler", 400, 280)
    for expert in ("naive", "ses", "ar10", "ar"):
        assert {"mae", "rmse", "skill"} <= set(scores["experts"][expert])
    x = sine()
    assert scores["experts"]["naive"]["rmse"] == pytest.approx(np.sqrt(np.mean(np.diff(x)[119:] ** 2)))
    assert scores["mase"] == pytest.approx(scores["mae"] / np.abs(np.diff(x[:120])).mean())
    assert scores["skill"] == pytest.approx(1 - scores["rmse"] / scores["experts"]["naive"]["rmse"])


def test_the_table_says_the_same_and_sums_up(tmp_path: Path) -> None:
    files = [
        write(tmp_path, "boiler.csv", {"value": sine()}),
        write(tmp_path, "flat.csv", {"value": np.full(100, 2.0)}),
    ]
    (scores, _) = objects(call(*files, "--json", *LEAN))
    output = call(*files, *LEAN).output
    assert f"{scores['skill']:.3f}" in output and f"{scores['relmae']:.3f}" in output
    assert "1 series: median skill" in output and "Not in the summary: 1 flat." in output


def test_wide_and_plain_files_run_together_each_series_as_if_alone(tmp_path: Path) -> None:
    wide = write(tmp_path, "plant.csv", {"hot": sine(300, 1), "cold": sine(300, 2)})
    plain = write(tmp_path, "boiler.csv", {"value": sine(200, 3)})
    together = objects(call(wide, plain, "--json", *LEAN))
    assert [s["series"] for s in together] == ["hot", "cold", "boiler"]
    (alone,) = objects(call(plain, "--json", *LEAN))
    assert together[2]["mae"] == pytest.approx(alone["mae"], rel=1e-9)


def test_files_of_one_name_and_one_file_twice_are_told_apart(tmp_path: Path) -> None:
    one = write(tmp_path, "north/boiler.csv", {"value": sine(100, 1)})
    two = write(tmp_path, "south/boiler.csv", {"value": sine(150, 2)})
    found = {s["series"]: s["n"] for s in objects(call(one, two, "--json", *LEAN))}
    assert found == {"north/boiler": 100, "south/boiler": 150}
    assert [s["series"] for s in objects(call(one, one, "--json", *LEAN))][-1].endswith("boiler#2")


def test_names_are_made_longer_only_where_they_must() -> None:
    series = [(Path("a/x.csv"), "hot"), (Path("a/x.csv"), "cold"), (Path("b/x.csv"), "hot"), (Path("b/y.csv"), "y")]
    assert distinct(series) == ["a/x.hot", "cold", "b/x.hot", "y"]
    assert distinct([(Path("x.csv"), "hot"), (Path("y.csv"), "hot")]) == ["x.hot", "y.hot"]
    assert distinct([(Path("/r/a/b/x.csv"), "x"), (Path("/r/c/b/x.csv"), "x")]) == ["a/b/x", "c/b/x"]


def test_horizon_level_and_score_from_are_obeyed(tmp_path: Path) -> None:
    file = write(tmp_path, "boiler.csv", {"value": sine()})
    (scores,) = objects(call(file, "--json", "--horizon", "5", "--level", "0.8", "--score-from", "0.5", *LEAN))
    assert [step["step"] for step in scores["steps"]] == [1, 2, 3, 4, 5]
    assert scores["level"] == 0.8 and set(scores["levels"]) == {"0.8", "0.95"}
    assert scores["scored"] == 200 and 0.6 < scores["coverage"] < 0.95


def test_only_the_experts_named_take_part_and_naive_as_the_measure(tmp_path: Path) -> None:
    file = write(tmp_path, "boiler.csv", {"value": sine()})
    (scores,) = objects(call(file, "--json", "--experts", "ses"))
    assert list(scores["experts"]) == ["naive", "ses"]


def test_a_model_file_makes_the_rnn(tmp_path: Path) -> None:
    """Weights of zero are the naive forecast."""
    from forecastd.models.weights import CHANNELS, Weights, shapes

    weights = Weights(**{name: np.zeros(shape, np.float32) for name, shape in shapes(len(CHANNELS), 4).items()})
    checkpoint.save(tmp_path / "zero.npz", checkpoint.Checkpoint(weights, {"name": "zero"}))
    file = write(tmp_path, "boiler.csv", {"value": sine()})
    (scores,) = objects(call(file, "--json", "--experts", "rnn", "--model", str(tmp_path / "zero.npz")))
    assert list(scores["experts"]) == ["naive", "rnn"]
    assert scores["experts"]["rnn"]["skill"] == pytest.approx(0.0, abs=1e-9)


def test_what_was_refused_is_counted_and_said(tmp_path: Path) -> None:
    path = tmp_path / "odd.csv"
    times = [*range(100), 99, 50, *range(100, 200)]
    path.write_text("timestamp,value\n" + "".join(f"{t},{t % 7}\n" for t in times) + "200,\n")
    (scores,) = objects(call(str(path), "--json", *LEAN))
    assert scores["refused"] == {"duplicate": 1, "late": 1}
    assert (scores["n"], scores["skipped"]) == (202, 1)
    assert (
        "odd: 1 refused as duplicate, 1 refused as late, 1 cells without a number skipped."
        in call(str(path), *LEAN).output
    )


def test_the_settings_file_of_the_daemon_serves_and_flags_win(tmp_path: Path) -> None:
    file = write(tmp_path, "boiler.csv", {"value": sine()})
    config = tmp_path / "forecastd.toml"
    config.write_text('horizon = 3\nlevel = 0.8\nlevels = [0.5]\nexperts = ["ses"]\n')
    (scores,) = objects(call(file, "--json", "-c", str(config), "--horizon", "2"))
    assert len(scores["steps"]) == 2 and set(scores["levels"]) == {"0.8", "0.5"}
    assert list(scores["experts"]) == ["naive", "ses"]


def test_two_settings_are_compared_in_words_and_in_json(tmp_path: Path) -> None:
    files = [write(tmp_path, f"s{k}.csv", {"value": sine(500, k)}) for k in range(7)]
    a, b = tmp_path / "a.toml", tmp_path / "b.toml"
    a.write_text('experts = ["naive"]\n')
    b.write_text('experts = ["naive", "ar"]\n')
    output = call(*files, "--compare", str(a), str(b)).output
    assert "B is better: RMSE" in output and "lower RMSE on 7 of 7" in output
    *matches, last = objects(call(*files, "--compare", str(a), str(b), "--json"))
    assert [m["series"] for m in matches] == [f"s{k}" for k in range(7)]
    assert matches[0]["steps"][0]["p"] < 0.05 and matches[0]["b"]["skill"] > matches[0]["a"]["skill"]
    assert last["outcome"]["leader"] == "b" and last["b"] == str(b)


def test_report_and_picture_are_written(tmp_path: Path) -> None:
    file = write(tmp_path, "boiler.csv", {"value": sine(200)})
    page, picture = tmp_path / "report.html", tmp_path / "plot.png"
    result = call(file, *LEAN, "--report", str(page), "--plot", str(picture))
    assert result.exit_code == 0, result.output
    assert page.read_text().startswith("<!doctype html>") and "boiler" in page.read_text()
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"{page} written" in result.output
    quiet = call(file, *LEAN, "--json", "--report", str(page))
    assert len(quiet.stdout.splitlines()) == 1 and f"{page} written" in quiet.stderr


def test_the_page_is_whole_though_whoever_reads_the_figures_hangs_up(tmp_path: Path) -> None:
    """As with `| head -c 1`: the files are written before a line is printed."""
    file, page = write(tmp_path, "boiler.csv", {"value": sine(100)}), tmp_path / "report.html"
    command = [sys.executable, "-m", "forecastd", "backtest", file, *LEAN, "--json", "--report", str(page)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert "Traceback" not in said
    assert page.read_text().rstrip().endswith("</html>")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "Missing argument"),
        (["none.csv"], 2, "does not exist"),
        (["{file}", "--experts", "ar,oracle"], 2, "no expert is called 'oracle'"),
        (["{file}", "--level", "1.5"], 2, "level"),
        (["{file}", "--horizon", "0"], 2, "horizon"),
        (["{file}", "--score-from", "1"], 2, "score-from"),
        (["{file}", "--model", "none-such"], 2, "none-such"),
        (["{file}", "--experts", "ar", "--model", "general"], 2, "--model is for the expert rnn"),
        (["{file}", "--experts", "ar", "--report", "{folder}/no/report.html"], 2, "there is no folder"),
        (["{file}", "--compare", "{toml}", "{toml}", "--plot", "{folder}/x.png"], 2, "--compare runs two settings"),
        (["{broken}"], 1, "broken.csv:3: 'warm' is not a number"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(
    arguments: list[str], status: int, message: str, tmp_path: Path
) -> None:
    (tmp_path / "broken.csv").write_text("timestamp,value\n1,2\n2,warm\n")
    (tmp_path / "ok.toml").write_text("horizon = 2\n")
    file = write(tmp_path, "boiler.csv", {"value": sine(50)})
    places = {"file": file, "folder": tmp_path, "toml": tmp_path / "ok.toml", "broken": tmp_path / "broken.csv"}
    result = call(*(text.format(**places) for text in arguments))
    assert result.exit_code == status, result.output
    assert message in result.stderr
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("Error: ")


def test_help_has_examples() -> None:
    assert "forecastd backtest boiler.csv" in call("--help").output


DATA = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"


@pytest.mark.skipif(not DATA.is_dir(), reason="the real recordings are not here")
def test_real_series_keep_their_promises() -> None:
    """Never materially worse than naive, and intervals that hold, on recordings of traffic, weather and machines."""
    names = (
        "nab/realTraffic/occupancy_6005",
        "statsmodels/co2",
        "nab/realAdExchange/exchange-3_cpm_results",
        "river/water-flow",
    )
    for scores in objects(call(*(str(DATA / f"{name}.csv") for name in names), "--json", *LEAN)):
        assert scores["skill"] > -0.01
        assert 0.87 < scores["coverage"] < 0.93

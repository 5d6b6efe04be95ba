"""What a forecast costs in bulk: microseconds a sample on one core, 10,000 series a step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from time import perf_counter
from typing import Any

from .corpus import Size
from .section import Check, Section, figure

SERIES, WARM = 10_000, 120
LEAN = ("naive", "ses", "ar10", "ar")
#: One core: the matrix library would take them all.
ONE_CORE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def table(size: Size) -> Section:
    """Both lattices, blend, interval and anomaly; then with all experts."""
    rows, found = [], {}
    for name, experts in (("naive, SES, both lattices, blend, interval, anomaly", LEAN), ("all experts", ())):
        micro = _apart(",".join(experts), 20 if size.quick else 60)
        found[name] = micro["forecaster"]
        rows.append(
            [
                name,
                figure(micro["forecaster"], ".2f"),
                figure(micro["pipeline"], ".2f"),
                f"{1e6 / micro['pipeline']:,.0f}",
            ]
        )
    return Section(
        "Cost",
        f"{SERIES:,} series, one sample each a step, one core; a quiet step (the tenth percentile). `Forecaster` is "
        f"the mathematics, "
        f"`Pipeline` what the daemon runs around it.",
        [(["what", "µs a sample, forecaster", "pipeline", "samples/s, pipeline"], rows)],
        [
            Check(
                "µs a sample at 10,000 series, blend + interval + anomaly + both lattices",
                next(iter(found.values())),
                3.0,
                2.0,
                form=".2f",
            )
        ],
    )


def _apart(experts: str, steps: int) -> dict[str, float]:
    """Measured in a process of its own, so that nothing else is in its caches."""
    command = [sys.executable, "-m", "benchmarks.cost", experts, str(steps)]
    done = subprocess.run(command, env={**os.environ, **ONE_CORE}, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(experts: tuple[str, ...], steps: int) -> dict[str, float]:
    """Microseconds a sample in a quiet step, the tenth percentile of so many: others may be at work on the machine."""
    import numpy as np

    from forecastd.daemon.batch import Batch, Parcel
    from forecastd.daemon.pipeline import Pipeline
    from forecastd.producers.waves import ORIGIN, WAVES

    from .corpus import settings, weights

    chosen = settings(experts=experts or None)
    model = weights() if "rnn" in chosen.experts else None
    names = [f"s{k}" for k in range(SERIES)]
    values = WAVES["sine"](seed=1, series=SERIES).rows(WARM + steps)[1]
    pipeline = Pipeline(chosen, model)
    took: dict[str, list[float]] = {"pipeline": [], "forecaster": []}
    mathematics = pipeline.forecaster.step

    def timed(*arguments: Any, **words: Any) -> Any:
        start = perf_counter()
        outlook = mathematics(*arguments, **words)
        took["forecaster"].append(perf_counter() - start)
        return outlook

    pipeline.forecaster.step = timed  # type: ignore[method-assign]
    for i in range(WARM + steps):
        batch = Batch(names, values[i], np.full(SERIES, ORIGIN + i), [Parcel(0, SERIES)])
        start = perf_counter()
        pipeline.step(batch, ORIGIN + i)
        took["pipeline"].append(perf_counter() - start)
    return {name: float(np.percentile(seconds[-steps:], 10)) / SERIES * 1e6 for name, seconds in took.items()}


if __name__ == "__main__":
    print(json.dumps(measure(tuple(name for name in sys.argv[1].split(",") if name), int(sys.argv[2]))))

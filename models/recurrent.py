"""The SimpleRNN as an expert: a window of channels a row, the kernel, and the path ahead by feeding forecasts back."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import sqrt

import numpy as np

from . import lattice, scaling
from .channels import LEVEL_CLIP, NAMES, Instant, Moment
from .kernel import Kernel, OpenWindows
from .table import Array, Column, Row
from .weights import Weights

#: Up to so many rows a step the open windows are faster than a full pass.
FEW = 4


class Recurrent:
    """last + s · f(window), or f itself where the weights say so. NaN until the window is full."""

    name = "rnn"
    recorded = True

    def __init__(self, weights: Weights) -> None:
        self.raw = weights.channels == ("value",)
        self.columns: Mapping[str, Column] = {
            "window": Column((weights.window, len(weights.channels)), dtype=np.float32, plain=False),
        }
        self.use(weights)

    def use(self, weights: Weights) -> None:
        """Forecast with other weights of the same structure from now on."""
        self.weights = weights
        self.kernel = Kernel(weights)
        self.open = OpenWindows(self.kernel)
        self.picked = None if self.raw or weights.channels == NAMES else [NAMES.index(c) for c in weights.channels]

    def update(self, state: Mapping[str, Array], moment: Moment) -> None:
        """Push the newest channels into the window."""
        window = state["window"]
        window[:, :-1] = window[:, 1:]
        window[:, -1] = self._inputs(moment.x, moment.channels)

    def forecast(self, state: Mapping[str, Array], moment: Moment, horizon: int) -> Array:
        """The forecasts, shape (n, horizon)."""
        window, count = state["window"], state["count"]
        if len(window) <= FEW:
            places = zip(state["row"].tolist(), count.tolist(), window, strict=True)
            f = np.array([self.open.forecast(row, number, inputs) for row, number, inputs in places])
        else:
            f = self.kernel.forward(window).astype(np.float64)
        first = self._output(f, moment.x, state)
        path = first[:, None] if horizon == 1 else self._roll_out(state, moment, first, horizon)
        path[state["fresh"] < self.weights.window] = np.nan
        return path

    def update_one(self, row: Row, now: Instant) -> None:
        """Push the newest channels into the window, but later: windows that are open need only those."""
        row.inputs = self._inputs(np.array([now.x], np.float32), now.channels)
        row.late.append(partial(_push, row.window, row.inputs))

    def forecast_one(self, row: Row, now: Instant) -> float:
        """The forecast of the open windows, which advance once it is out."""
        f = self.open.say(row.row, row.count, row.inputs)
        if f is None:
            row.finish()
            f = self.open.forecast(row.row, row.count, row.window)
        row.late.append(self.open.advance)
        return f if self.weights.output == "value" else now.x + sqrt(row.s2) * f

    def _inputs(self, x: Array, channels: Array) -> Array:
        if self.raw:
            return x[:, None] if channels.ndim > 1 else x
        return channels if self.picked is None else channels[..., self.picked]

    def _output(self, f: Array, x: Array, state: Mapping[str, Array]) -> Array:
        # not the unit itself, which is 1 where nothing has moved yet: such a series is forecast to stay
        return f if self.weights.output == "value" else x + np.sqrt(state["s2"]) * f

    def _roll_out(self, state: Mapping[str, Array], moment: Moment, first: Array, horizon: int) -> Array:
        """Each forecast enters window and lattice as if it had come; scales and coefficients stay as they are."""
        centre, m, s, sd = state["centre"], state["m"], moment.s, moment.sd
        kf, kb, b, prediction = (state[k] for k in ("kf", "kb", "b", "prediction"))
        window = state["window"].copy()
        path = np.empty((len(first), horizon))
        path[:, 0] = first
        x, ar = moment.x, state["ar"]
        channels = np.empty((len(first), len(NAMES)))
        for step in range(1, horizon):
            before, x = x, scaling.within_range(state, path[:, step - 1])
            b, prediction = lattice.roll(kf, kb, b, prediction, x - centre)
            residual = x - ar
            ar = scaling.within_range(state, centre - prediction[:, -1])
            for place, term in ((0, x - before), (2, ar - x), (3, residual)):
                channels[:, place] = np.arcsinh(term / s)
            channels[:, 1] = np.clip((x - m) / sd, -LEVEL_CLIP, LEVEL_CLIP)
            window[:, :-1] = window[:, 1:]
            window[:, -1] = self._inputs(x, channels)
            path[:, step] = self._output(self.kernel.forward(window).astype(np.float64), x, state)
        return path


def _push(window: Array, inputs: Array) -> None:
    window[:-1] = window[1:]
    window[-1] = inputs

"""The SimpleRNN as an expert: a window of channels a row, the kernel, and the path ahead by feeding forecasts back.

A series with a copy of its own is forecast by both, the shared model and the copy, and served a mix of the two: the
one that has been right lately, so that a copy can only help."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import isnan, nan, sqrt

import numpy as np

from . import lattice, scaling
from .channels import LEVEL_CLIP, NAMES, Instant, Moment
from .copies import Copies
from .groups import Groups
from .kernel import OpenWindows
from .table import Array, Column, Row
from .weights import Weights

#: The shares a copy may have in what is served, and the half-life, in samples, of the losses they are judged by: a
#: Huber loss of the error in units of s, a line beyond `HUBER`, no larger than `FAR`.
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
FORGETTING = 0.5 ** (1.0 / 200.0)
HUBER = 0.2
FAR = 4.0


class Recurrent:
    """last + s · f(window), or f itself where the weights say so. NaN until the window is full."""

    name = "rnn"
    recorded = True

    def __init__(self, weights: Weights) -> None:
        self.raw = weights.channels == ("value",)
        self.residual = weights.output == "residual"
        self.columns: Mapping[str, Column] = {
            "window": Column((weights.window, len(weights.channels)), dtype=np.float32, plain=False),
            # what the shared model and the copy said of the next sample, and what each share would have lost
            "rnn_due": Column((2,), np.nan),
            "rnn_losses": Column((len(SHARES),)),
        }
        self.copies = Copies()
        self.groups = Groups(weights)
        self.picked = None if self.raw or weights.channels == NAMES else [NAMES.index(c) for c in weights.channels]

    @property
    def weights(self) -> Weights:
        """Those of the model that serves all rows of no group."""
        return self.groups.models[0].weights

    def use(self, weights: Weights, group: int = 0) -> None:
        """Forecast the rows of `group` with other weights of the same structure from now on."""
        self.groups.use(weights, group)

    def update(self, state: Mapping[str, Array], moment: Moment) -> None:
        """Push the newest channels into the window, and judge what was said of this sample."""
        window = state["window"]
        window[:, :-1] = window[:, 1:]
        window[:, -1] = self._inputs(moment.x, moment.channels)
        self._judge(state, moment)

    def forecast(self, state: Mapping[str, Array], moment: Moment, horizon: int) -> Array:
        """The forecasts, shape (n, horizon)."""
        return self.read(state, moment, self.products(state, moment, horizon), horizon)

    def products(self, state: Mapping[str, Array], moment: Moment, horizon: int) -> Array:
        """The shared model's forecasts, shape (n, horizon), the steps after the first fed with what is served; and in
        one more column the copies', one step ahead, where any of these rows has one."""
        window, count = state["window"], state["count"]
        first = self._output(self.groups.forward(state["row"], count, window), moment.x, state)
        own = self.copies.forward(state["row"], count, window)
        if own is not None:
            own = self._output(own, moment.x, state)
        path = np.empty((len(first), horizon + (own is not None)))
        path[:, 0] = first
        if own is not None:
            path[:, horizon] = own
        if horizon > 1:
            served = first if own is None else _mixed(state, first, own)
            self._roll_out(state, moment, served, path[:, 1:horizon])
        path[state["fresh"] < self.weights.window] = np.nan
        return path

    def read(self, state: Mapping[str, Array], moment: Moment, products: Array, horizon: int) -> Array:
        """What is served, shape (n, horizon)."""
        due = state["rnn_due"]
        if products.shape[1] == horizon:
            due[:, 1] = np.nan
            return products
        due[:, 0], due[:, 1] = products[:, 0], products[:, horizon]
        path = products[:, :horizon].copy()
        path[:, 0] = _mixed(state, path[:, 0], products[:, horizon])
        return path

    def update_one(self, row: Row, now: Instant) -> None:
        """Push the newest channels into the window, but later: windows that are open need only those."""
        if self.raw:
            inputs = [now.x]
        else:
            inputs = now.channels if self.picked is None else [now.channels[place] for place in self.picked]
        row.memo["inputs"] = inputs
        row.late.append(partial(_push, row.window, inputs))
        shared, own = row.rnn_due
        if isnan(own):
            row.rnn_losses = [0.0] * len(SHARES)
        elif row.fresh > 1:
            errors = (abs(shared - now.x + (own - shared) * share) / now.s for share in SHARES)
            row.rnn_losses = [
                FORGETTING * lost + _loss(min(error, FAR)) for lost, error in zip(row.rnn_losses, errors, strict=True)
            ]

    def step_one(self, row: Row, now: Instant) -> float:
        """The forecast of the open windows, which advance once it is out."""
        self.update_one(row, now)
        return self.read_one(row, self.products_one(row, now))

    def products_one(self, row: Row, now: Instant) -> list[float]:
        """The shared model's forecast, and the copy's where there is one."""
        said = [self._say(self.groups.windows_of(row.row), row, now)]
        if own := self.copies.open.get(row.row):
            said.append(self._say(own, row, now))
        return said

    def read_one(self, row: Row, products: list[float]) -> float:
        """What is served."""
        if len(products) == 1:
            row.rnn_due = [nan, nan]
            return products[0]
        row.rnn_due = shared, own = products
        return shared + SHARES[row.rnn_losses.index(min(row.rnn_losses))] * (own - shared)

    def _say(self, windows: OpenWindows, row: Row, now: Instant) -> float:
        f = windows.say(row.row, row.count, row.memo["inputs"])
        if f is None:
            row.finish()
            f = windows.forecast(row.row, row.count, row.window)
        row.late.append(windows.advance)
        return now.x + sqrt(row.s2) * f if self.residual else f

    def gains(self, losses: Array) -> dict[int, float]:
        """Of each row with a copy, the share by which what is served has lost less than the shared model lately;
        `losses` is the table's column `rnn_losses`."""
        rows = list(self.copies.weights)
        shared, least = losses[rows, 0], losses[rows].min(axis=1)
        gained = 1.0 - least / np.where(shared > 0.0, shared, 1.0)
        return dict(zip(rows, np.where(shared > 0.0, gained, 0.0).tolist(), strict=True))

    def _judge(self, state: Mapping[str, Array], moment: Moment) -> None:
        """Book what each share of the copy lost. A sample that is invented or comes after a pause tells nothing; where
        there is no copy, nothing is kept for the next one."""
        due, losses = state["rnn_due"], state["rnn_losses"]
        kept = due[:, 1] == due[:, 1]
        if not kept.any():
            losses[...] = 0.0
            return
        losses[~kept] = 0.0
        judged = kept & (state["bridged"] == 0.0) & (state["fresh"] > 1)
        shared = due[judged, 0] - moment.x[judged]
        apart = due[judged, 1] - due[judged, 0]
        error = np.abs(shared[:, None] + apart[:, None] * SHARES) / moment.s[judged, None]
        np.minimum(error, FAR, out=error)
        loss = np.where(error <= HUBER, error * error * (0.5 / HUBER), error - 0.5 * HUBER)
        losses[judged] = FORGETTING * losses[judged] + loss

    def _inputs(self, x: Array, channels: Array) -> Array:
        if self.raw:
            return x[:, None]
        return self._picked(channels)

    def _picked(self, channels: Array) -> Array:
        return channels if self.picked is None else channels[..., self.picked]

    def _output(self, f: Array, x: Array, state: Mapping[str, Array]) -> Array:
        # not the unit itself, which is 1 where nothing has moved yet: such a series is forecast to stay
        return x + np.sqrt(state["s2"]) * f if self.residual else f

    def _roll_out(self, state: Mapping[str, Array], moment: Moment, first: Array, path: Array) -> None:
        """Fill `path`, shape (n, H - 1), with the shared model's steps after `first`. Each forecast enters window and
        lattice as if it had come; scales and coefficients stay as they are."""
        centre, m, s, sd = state["centre"], state["m"], moment.s, moment.sd
        kf, kb, b, prediction = (state[k] for k in ("kf", "kb", "b", "prediction"))
        window = state["window"].copy()
        x, ar, ahead = moment.x, state["ar"], first
        channels = np.empty((len(first), len(NAMES)))
        for step in range(path.shape[1]):
            before, x = x, scaling.within_range(state, ahead)
            b, prediction = lattice.roll(kf, kb, b, prediction, x - centre)
            residual = x - ar
            ar = scaling.within_range(state, centre - prediction[:, -1])
            for place, term in ((0, x - before), (2, ar - x), (3, residual)):
                channels[:, place] = np.arcsinh(term / s)
            channels[:, 1] = np.clip((x - m) / sd, -LEVEL_CLIP, LEVEL_CLIP)
            window[:, :-1] = window[:, 1:]
            window[:, -1] = self._inputs(x, channels)
            path[:, step] = ahead = self._output(self.groups.through(state["row"], window), x, state)


def _push(window: Array, inputs: list[float]) -> None:
    window[:-1] = window[1:]
    window[-1] = inputs


def _mixed(state: Mapping[str, Array], shared: Array, own: Array) -> Array:
    """Shared model and copy, shape (n,) each, by the share that has lost least; where there is no copy, the former."""
    share = np.array(SHARES)[state["rnn_losses"].argmin(axis=1)]
    return np.where(np.isnan(own), shared, shared + share * (own - shared))


def _loss(error: float) -> float:
    return error * error * (0.5 / HUBER) if error <= HUBER else error - 0.5 * HUBER

"""The path ahead by an encoder–decoder SimpleRNN: the window read once, then a step of the decoder for each step ahead.

With h the state after the window (`kernel`), x the newest sample, s its unit, and â_k what order-32 linear prediction,
fed back, says of step k, q_k = (â_k - x) / s:

    d_1 = h                                                          f_1 = wᵀ d_1 + b_out
    d_k = relu(Uᵀ d_{k-1} + Vᵀ z_k + c)        k = 2 … H             f_k = wᵀ d_k + b_out + (gᵀ d_k + b_g) q_k
    z_k = (asinh(q_k), clip((â_k - m) / sd, ±4))

and the forecast of step k is x + s · f_k. No forecast of its own is fed back. The gate g says how far linear prediction
is to be followed: the network alone would know that path only as coarsely as its input tells.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from . import lattice, scaling
from .channels import LEVEL_CLIP, Instant, Moment
from .kernel import CHUNK, Kernel
from .table import Array, Column, Row
from .weights import Weights


def linear(state: Mapping[str, Array], horizon: int) -> Array:
    """What linear prediction says of the steps 2 … `horizon`, fed back and held near the range: shape (n, horizon -
    1)."""
    path = state["centre"][:, None] + lattice.ahead(state, lattice.ORDER, horizon)[:, 1:]
    for step in range(horizon - 1):
        path[:, step] = scaling.within_range(state, path[:, step])
    return path


def cues(state: Mapping[str, Array], moment: Moment, path: Array) -> tuple[Array, Array]:
    """Of a `path` of shape (n, K): the decoder's input z, shape (K, 2, n), float32, and q, shape (K, n), float64."""
    q = (path.T - moment.x) / moment.s
    z = np.empty((len(q), 2, len(moment.x)), np.float32)
    z[:, 0] = np.arcsinh(q)
    z[:, 1] = np.clip((path.T - state["m"]) / moment.sd, -LEVEL_CLIP, LEVEL_CLIP)
    return z, q


class Way:
    """A model's encoder and decoder, laid out for the matrix product."""

    def __init__(self, weights: Weights) -> None:
        decoder = weights.decoder
        assert decoder is not None
        self.kernel = Kernel(weights)
        self.matrix = np.asfortranarray(np.concatenate([decoder.recurrent, decoder.kernel, decoder.bias[None]]).T)
        self.heads = np.stack([weights.readout, decoder.gate])
        self.offsets = np.array([weights.readout_bias, decoder.gate_bias])

    def forward(self, windows: Array, z: Array, q: Array) -> Array:
        """f, shape (n, 1 + K), float64, for `windows`, shape (n, window, C), float32, and their `cues`."""
        f = np.empty((len(windows), 1 + len(q)))
        for start in range(0, len(windows), CHUNK):
            part = slice(start, start + CHUNK)
            f[part] = self._chunk(windows[part], z[:, :, part], q[:, part])
        return f

    def _chunk(self, windows: Array, z: Array, q: Array) -> Array:
        hidden = self.kernel.hidden(windows)
        units, n = hidden.shape
        columns, product = np.empty((self.matrix.shape[1], n), np.float32), np.empty((units, n), np.float32)
        columns[:units], columns[-1] = hidden, 1.0
        f = np.empty((n, 1 + len(q)))
        f[:, 0] = self.heads[0] @ hidden + self.offsets[0]
        for step in range(len(q)):
            columns[units:-1] = z[step]
            np.matmul(self.matrix, columns, out=product)
            np.maximum(product, 0.0, out=columns[:units])
            offset, gate = self.heads @ columns[:units] + self.offsets[:, None]
            f[:, 1 + step] = offset + gate * q[step]
        return f


class Path:
    """All steps ahead at once; NaN until the window is full, and beyond the steps that the decoder was trained for."""

    name = "path"
    recorded = True

    def __init__(self, weights: Weights) -> None:
        model = weights if weights.decoder is not None else weights.ahead
        if model is None or model.decoder is None:
            raise ValueError("the expert 'path' needs a model with a decoder")
        self.weights = model
        self.steps = model.decoder.steps
        self.way = Way(model)
        self.columns: Mapping[str, Column] = {
            "path_window": Column((model.window, len(model.channels)), dtype=np.float32),
        }

    def use(self, weights: Weights) -> None:
        """Forecast with other weights of the same shape from now on."""
        model = weights if weights.decoder is not None else weights.ahead
        if model is None or model.decoder is None:
            raise ValueError("the expert 'path' needs a model with a decoder")
        if model is not self.weights:
            self.weights, self.steps, self.way = model, model.decoder.steps, Way(model)

    def update(self, state: Mapping[str, Array], moment: Moment) -> None:
        """Push the newest channels into the window."""
        window = state["path_window"]
        window[:, :-1] = window[:, 1:]
        window[:, -1] = moment.channels

    def forecast(self, state: Mapping[str, Array], moment: Moment, horizon: int) -> Array:
        """The forecasts, shape (n, horizon)."""
        return self.products(state, moment, horizon)

    def read(self, state: Mapping[str, Array], moment: Moment, products: Array, horizon: int) -> Array:
        """Nothing is left to do: the products are the forecasts."""
        return products

    def products(self, state: Mapping[str, Array], moment: Moment, horizon: int) -> Array:
        """The forecasts, shape (n, horizon)."""
        said = np.full((len(moment.x), horizon), np.nan)
        known = min(horizon, self.steps)
        z, q = cues(state, moment, linear(state, known))
        f = self.way.forward(state["path_window"], z, q)
        unit = np.sqrt(state["s2"])  # not `moment.s`, which is 1 where nothing has moved yet: such a series stays
        for step in range(known):
            said[:, step] = scaling.within_range(state, moment.x + unit * f[:, step])
        said[state["fresh"] < self.weights.window] = np.nan
        return said

    def step_one(self, row: Row, now: Instant) -> float:
        """Nobody asks for it: one step ahead there is no path."""
        raise NotImplementedError

    def update_one(self, row: Row, now: Instant) -> None:
        """Nobody asks for it, either."""
        raise NotImplementedError

    def products_one(self, row: Row, now: Instant) -> list[float]:
        """Nobody asks for these, too."""
        raise NotImplementedError

    def read_one(self, row: Row, products: list[float]) -> float:
        """And so for this."""
        raise NotImplementedError

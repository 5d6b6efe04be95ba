"""The forward pass of SimpleRNN(units, relu) → Dense(1) in NumPy, from the weights that Keras trained.

With channels c_t, hidden state h and h_0 = 0, for t = 1…window:  h_t = relu(Wᵣᵀ h_{t-1} + Wₖᵀ c_t + b),  f = wᵀ
h_window + b_out. Two forms of the same arithmetic, for many series at once (`Kernel.forward`) and for one sample of
one series (`OpenWindows`)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from struct import Struct

import numpy as np

from .table import Array
from .weights import Weights

#: Columns advanced together: hidden states of a chunk (half a megabyte) stay in the second-level cache.
CHUNK = 1250

#: A series without open windows: its last sample has the number of none.
_CLOSED = (-2, np.empty(0, np.float32))


class Kernel:
    """One model's weights, laid out for the matrix product. Stateless but for scratch memory: one caller at a time."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.units = weights.bias.shape[0]
        self.window = weights.window
        # recurrent weights, input weights and bias ride in one product: its columns are [h; c; 1]
        stacked = np.concatenate([weights.recurrent, weights.kernel, weights.bias[None]]).astype(np.float32)
        self.matrix = np.asfortranarray(stacked.T)  # (units, units + C + 1)
        self.first = np.asfortranarray(self.matrix[:, self.units :])  # before it, h is zero
        self.transposed = np.ascontiguousarray(stacked)
        self.readout = weights.readout.astype(np.float32)
        self.offset = float(weights.readout_bias)
        self.rectified = weights.activation == "relu"

    @cached_property
    def _scratch(self) -> tuple[Array, Array]:
        """Columns and product of a full chunk, a megabyte: a copy that serves a single series never needs them."""
        columns = np.zeros((len(self.transposed), CHUNK), np.float32)
        columns[-1] = 1.0
        return columns, np.empty((self.units, CHUNK), np.float32)

    def forward(self, windows: Array) -> Array:
        """`windows`, shape (n, window, C), float32, oldest step first → f, shape (n,), float32. NaN in, NaN out."""
        n = len(windows)
        out = np.empty(n, np.float32)
        for start in range(0, n, CHUNK):
            stop = min(start + CHUNK, n)
            np.matmul(self.readout, self.hidden(windows[start:stop]), out=out[start:stop])
        out += self.offset
        if self.rectified:
            np.maximum(out, 0.0, out=out)
        return out

    def hidden(self, windows: Array) -> Array:
        """The state after the last step of up to `CHUNK` windows, shape (units, n), float32: scratch memory, until the
        next call."""
        width = len(windows)
        if width == CHUNK:
            columns, product = self._scratch
        else:
            columns, product = (
                np.empty((len(self.transposed), width), np.float32),
                np.empty((self.units, width), np.float32),
            )
            columns[-1] = 1.0
        hidden, inputs = columns[: self.units], columns[self.units : -1]
        inputs[...] = windows[:, 0].T
        np.matmul(self.first, columns[self.units :], out=product)
        np.maximum(product, 0.0, out=hidden)
        for step in range(1, self.window):
            inputs[...] = windows[:, step].T
            np.matmul(self.matrix, columns, out=product)
            np.maximum(product, 0.0, out=hidden)
        return hidden


class OpenWindows:
    """The partly advanced windows of single series: a new sample advances all ten of a series by one small product.

    The window opened at sample c lives at place c mod `window` for all its life, and rebuilding replays the same
    products: so a rebuilt series continues with the same bits. At most `capacity` series are kept (4 KB each), the
    one not used for longest goes first.

    What is kept is Wᵣᵀ h + b of each window: the channels of a sample have only to be added to it, and only in the
    window that is complete with them before f is known. The product for the next sample can wait until f is out. What
    does not wait is three calls into NumPy, into buffers that are there: after a pause, each costs several times what
    it does in a loop."""

    def __init__(self, kernel: Kernel, capacity: int = 1024) -> None:
        self.kernel = kernel
        self.capacity = capacity
        self._open: dict[int, tuple[int, Array]] = {}
        self._late: tuple[int, Array, int] | None = None
        units = kernel.units
        # input weights, and below them what is kept of the window that the next sample of row `_ready` completes
        self._stacked = kernel.transposed[units:].copy()  # (C + 1, units)
        self._kernel = self._stacked[:-1]
        self._ready = -1
        self._newest = np.ones(len(self._stacked), np.float32)  # [c; 1]
        self._channels, self._written = self._newest[:-1], self._newest.data
        self._write = Struct(f"{len(self._stacked) - 1}f").pack_into
        self._recurrent = np.concatenate([kernel.transposed[:units], kernel.transposed[-1:]])  # (units + 1, units)
        self._columns = np.ones((kernel.window, units + 1), np.float32)
        self._hidden = self._columns[:, :units]
        self._complete, self._zero = np.empty(units, np.float32), np.zeros(units, np.float32)

    def forecast(self, row: int, count: int, window: Array) -> float:
        """f after sample number `count` of series `row`, whose last channel rows are `window`, shape (window, C),
        oldest first."""
        newest = window[-1].tolist()
        value = self.say(row, count, newest)
        if value is None:
            if len(self._open) >= self.capacity:
                del self._open[next(iter(self._open))]
            self._open[row] = (count - 1, self._rebuild(count, window))
            value = self.say(row, count, newest)
            assert value is not None
        self.advance()
        return value

    def say(self, row: int, count: int, newest: Sequence[float]) -> float | None:
        """`forecast` from the newest channels alone, C of them, with the rest of the work left to `advance` or the
        next call; None where the windows of the series are not open up to the sample before."""
        if self._late is not None:
            self.advance()
        last, ahead = self._open.pop(row, _CLOSED)
        if last != count - 1:
            return None
        self._open[row] = (count, ahead)
        place = (count + 1) % self.kernel.window
        if self._ready != row:
            self._stacked[-1] = ahead[place]
        self._late = (row, ahead, place)
        self._write(self._written, 0, *newest)
        hidden = self._newest.dot(self._stacked, out=self._complete)
        np.maximum(hidden, self._zero, out=hidden)
        value = float(hidden.dot(self.kernel.readout)) + self.kernel.offset
        return max(value, 0.0) if self.kernel.rectified else value

    def advance(self) -> None:
        """Take the sample of the last `say` into all windows of its series, and open the next one."""
        if self._late is not None:
            self._ready, ahead, place = self._late
            self._late = None
            self._advance(ahead, self._channels, place)
            self._stacked[-1] = ahead[(place + 1) % len(ahead)]

    def _advance(self, ahead: Array, channels: Array, opening: int) -> None:
        np.add(ahead, channels.dot(self._kernel), out=self._hidden)
        np.maximum(self._hidden, 0.0, out=self._hidden)
        self._hidden[opening] = 0.0
        np.matmul(self._columns, self._recurrent, out=ahead)

    def _rebuild(self, count: int, window: Array) -> Array:
        """What is kept of the series before its sample number `count`."""
        self._ready = -1
        ahead = np.tile(self._recurrent[-1], (len(window), 1))
        for age, channels in enumerate(window[:-1]):
            # the window that opens with the next channel row starts from nothing
            self._advance(ahead, channels, (count + 2 + age) % len(window))
        return ahead

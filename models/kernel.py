"""The forward pass of SimpleRNN(units, relu) → Dense(1) in NumPy, from the weights that Keras trained.

With channels c_t, hidden state h and h_0 = 0, for t = 1…window:  h_t = relu(Wᵣᵀ h_{t-1} + Wₖᵀ c_t + b),  f = wᵀ
h_window + b_out. Two forms of the same arithmetic, for many series at once (`Kernel.forward`) and for one sample of
one series (`OpenWindows`)."""

from __future__ import annotations

import numpy as np

from .table import Array
from .weights import Weights

#: Columns advanced together: hidden states of a chunk (half a megabyte) stay in the second-level cache.
CHUNK = 1250


class Kernel:
    """One model's weights, laid out for the matrix product. Stateless but for scratch memory: one caller at a time."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.units = weights.bias.shape[0]
        self.window = weights.window
        inputs = len(weights.channels)
        # recurrent weights, input weights and bias ride in one product: its columns are [h; c; 1]
        stacked = np.concatenate([weights.recurrent, weights.kernel, weights.bias[None]]).astype(np.float32)
        self.matrix = np.asfortranarray(stacked.T)  # (units, units + C + 1)
        self.first = np.asfortranarray(self.matrix[:, self.units :])  # before it, h is zero
        self.transposed = np.ascontiguousarray(stacked)
        self.readout = weights.readout.astype(np.float32)
        self.offset = float(weights.readout_bias)
        self.rectified = weights.activation == "relu"
        self._columns = np.zeros((self.units + inputs + 1, CHUNK), np.float32)
        self._columns[-1] = 1.0
        self._product = np.empty((self.units, CHUNK), np.float32)

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
            columns, product = self._columns, self._product
        else:
            columns, product = (
                np.empty((len(self._columns), width), np.float32),
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
    one not used for longest goes first."""

    def __init__(self, kernel: Kernel, capacity: int = 1024) -> None:
        self.kernel = kernel
        self.capacity = capacity
        self._open: dict[int, tuple[int, Array]] = {}
        self._product = np.empty((kernel.window, kernel.units), np.float32)

    def forecast(self, row: int, count: int, window: Array) -> float:
        """f after sample number `count` of series `row`, whose last channel rows are `window`, shape (window, C),
        oldest first."""
        last, columns = self._open.pop(row, (-1, None))
        if columns is None or last != count - 1:
            columns = self._rebuild(count, window)
        else:
            self._advance(columns, window[-1])
        if len(self._open) >= self.capacity:
            del self._open[next(iter(self._open))]
        self._open[row] = (count, columns)
        complete = columns[(count + 1) % self.kernel.window]
        hidden = complete[: self.kernel.units]
        value = float(hidden @ self.kernel.readout) + self.kernel.offset
        hidden[:] = 0.0
        return max(value, 0.0) if self.kernel.rectified else value

    def _advance(self, columns: Array, channels: Array) -> None:
        units = self.kernel.units
        columns[:, units:-1] = channels
        np.matmul(columns, self.kernel.transposed, out=self._product)
        np.maximum(self._product, 0.0, out=columns[:, :units])

    def _rebuild(self, count: int, window: Array) -> Array:
        kernel = self.kernel
        columns = np.zeros((kernel.window, len(kernel.transposed)), np.float32)
        columns[:, -1] = 1.0
        for age in range(kernel.window):
            # the window that opens with this channel row starts from nothing
            columns[(count + 1 + age) % kernel.window, : kernel.units] = 0.0
            self._advance(columns, window[age])
        return columns

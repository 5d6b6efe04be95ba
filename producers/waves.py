"""Simulated signals: what `forecastd produce sine|waves`, the benchmarks and the tests feed a forecaster with.

Every wave is `clean + noise`, one value a step, and knows its `floor`: the RMSE of a forecaster that knows everything
but the noise. None can beat it; one that seems to has seen the future. A wave is made by its name:
`WAVES["two-tone"](seed=3).take(1000)`.
"""

from __future__ import annotations

from math import pi, sqrt
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Simulated time starts here (seconds since the epoch): in the past, so that a wave played flat out never runs into
#: the future.
ORIGIN = 1_700_000_000.0

#: Samples a period, as the tutorial spaces its wave: sin(x) over 150 points of 0 … 15.
PERIOD = 2 * pi / (15 / 149)

#: Series k of several starts this share of a period later than series k - 1, so that they look different.
GOLDEN = (sqrt(5) - 1) / 2


class Wave:
    """A sine with uniform noise: `amplitude * sin(2 pi i / period) + offset + U(±noise)`. The others are made from it.

    `series` waves run side by side. Series k is the wave of seed + k, its phase moved on by `GOLDEN`; it draws its
    noise from a generator of its own, so what it says depends neither on the number of series nor on how many samples
    are taken at once. `period` is in samples; `step` (seconds between samples) and `start` (of sample 0, since the
    epoch) only label the values. The object is its own state: it goes on where the last `take` or `rows` stopped.
    """

    kind: ClassVar[str] = "sine"
    about: ClassVar[str] = "one tone"
    #: Uniform draws behind one sample. The number is fixed, so that the noise does not depend on the chunk.
    draws: ClassVar[int] = 1

    def __init__(
        self,
        seed: int = 0,
        *,
        series: int = 1,
        noise: float = 0.15,
        amplitude: float = 1.0,
        offset: float = 1.0,
        period: float = PERIOD,
        step: float = 1.0,
        start: float = ORIGIN,
    ) -> None:
        if not period > 0 or not step > 0 or series < 1 or noise < 0:
            raise ValueError("period and step must be above zero, series at least 1, noise at least 0")
        self.series, self.noise, self.amplitude, self.offset, self.period = series, noise, amplitude, offset, period
        self.step, self.start = step, start
        self.made = 0
        self._carry = np.zeros(series)  # what a wave with a memory remembers from one chunk to the next
        self._phase = (np.arange(series) * GOLDEN % 1.0)[:, None]
        self._random = [np.random.Generator(np.random.PCG64(seed + k)) for k in range(series)]

    @property
    def floor(self) -> float:
        """RMSE of the best possible one-step forecast, in units of the value. U(±a) has the deviation a / sqrt(3)."""
        return self.noise / sqrt(3)

    def rows(self, n: int) -> tuple[Floats, Floats]:
        """The next n steps of all series: times of shape (n,), oldest first, and values of shape (n, series).

        A missing sample is NaN.
        """
        i, clean, noise = self._next(n)
        return self.start + i * self.step, (clean + noise).T

    def take(self, n: int) -> tuple[Floats, Floats]:
        """The next n samples of the first series: times and values, both of shape (n,), oldest first.

        Missing samples are not among them.
        """
        times, values = [np.empty(0)], [np.empty(0)]
        lacking = n
        while lacking > 0:
            time, value = self.rows(lacking)
            there = ~np.isnan(value[:, 0])
            times.append(time[there])
            values.append(value[there, 0])
            lacking -= int(there.sum())
        return np.concatenate(times), np.concatenate(values)

    def _next(self, n: int) -> tuple[Floats, Floats, Floats]:
        """Positions (n,), clean part and noise (both (series, n)) of the next n steps."""
        i = np.arange(self.made, self.made + n, dtype=np.float64)
        uniform = np.empty((self.series, n, self.draws))
        for random, row in zip(self._random, uniform, strict=True):
            random.random(out=row)
        self.made += n
        return i, *self._parts(i, uniform)

    def _parts(self, i: Floats, uniform: Floats) -> tuple[Floats, Floats]:
        """Clean part and noise, (series, n) each, from positions (n,) and uniform draws (series, n, draws)."""
        return self._clean(i), self._flat(uniform[..., 0])

    def _clean(self, i: Floats) -> Floats:
        return self.amplitude * np.sin(self._angle(i)) + self.offset

    def _angle(self, i: Floats) -> Floats:
        """Radians at the positions, shape (series, n)."""
        return 2 * pi * (i / self.period + self._phase)

    def _flat(self, uniform: Floats) -> Floats:
        """U(0, 1) as U(±noise)."""
        return (2 * uniform - 1) * self.noise


class TwoTone(Wave):
    """Two tones whose periods share no multiple within reach; the second is half as strong."""

    kind, about = "two-tone", "two tones, the second 3.6 times as fast and half as strong"

    def _clean(self, i: Floats) -> Floats:
        return super()._clean(i) + 0.5 * self.amplitude * np.sin(2 * pi * (i * 3.618 / self.period + self._phase))


class Chirp(Wave):
    """The frequency glides from half to three times the base and back in `sweep` samples, by an equal ratio each."""

    kind, about = "chirp", "a tone gliding between half and three times its frequency, there and back in 4,000 samples"
    sweep: ClassVar[float] = 4000.0

    def _angle(self, i: Floats) -> Floats:
        # The frequency 0.5 * 6 ** u has the integral 0.5 * (6 ** u - 1) / ln 6 over u; falling is rising mirrored.
        half = self.sweep / 2
        there, rest = np.divmod(i, half)
        rising = there % 2 == 0
        whole = half * 0.5 * 5 / np.log(6)
        upward = half * 0.5 * (6 ** (rest / half) - 1) / np.log(6)
        downward = whole - half * 0.5 * (6 ** (1 - rest / half) - 1) / np.log(6)
        cycles = there * whole + np.where(rising, upward, downward)
        angle: Floats = 2 * pi * (cycles / self.period + self._phase)
        return angle


class Square(Wave):
    """High for half a period, low for the other."""

    kind, about = "square", "jumps between two levels each half period"

    def _clean(self, i: Floats) -> Floats:
        high = (i / self.period + self._phase) % 1.0 < 0.5
        return self.amplitude * np.where(high, 1.0, -1.0) + self.offset


class RandomWalk(Wave):
    """Each value is the last one plus a gaussian step of deviation `noise`: repeating the last value is unbeatable."""

    kind, about = "random-walk", "the last value plus a gaussian step; nothing beats repeating the last value"
    draws = 2

    @property
    def floor(self) -> float:
        return self.noise

    def _parts(self, i: Floats, uniform: Floats) -> tuple[Floats, Floats]:
        step = self.noise * _gaussians(uniform)[0]
        walked = np.cumsum(np.concatenate([self._carry[:, None], step], axis=1), axis=1)
        self._carry = walked[:, -1]
        return self.offset + walked[:, :-1], step


class AmplitudeDrift(Wave):
    """The amplitude swells and shrinks between 0.2 and 1.8 of its mean, once in 3,000 samples."""

    kind, about = "amplitude-drift", "a tone whose amplitude drifts between 0.2 and 1.8 in 3,000 samples"

    def _clean(self, i: Floats) -> Floats:
        strength = 1 + 0.8 * np.sin(2 * pi * (i / 3000 + self._phase))
        return self.amplitude * strength * np.sin(self._angle(i)) + self.offset


class FrequencySwitch(Wave):
    """The frequency doubles after `hold` samples, halves after as many more, and so on; the value does not jump."""

    kind, about = "frequency-switch", "the frequency doubles after 2,048 samples, halves after 2,048 more, and so on"
    hold: ClassVar[float] = 2048.0

    def _angle(self, i: Floats) -> Floats:
        held, rest = np.divmod(i, self.hold)
        fast = held % 2 == 1
        before = self.hold * (held + held // 2)  # each fast stretch before this one counts twice
        angle: Floats = 2 * pi * ((before + np.where(fast, 2 * rest, rest)) / self.period + self._phase)
        return angle


class LevelShift(Wave):
    """The level jumps every `hold` samples to one of a fixed round of levels, up to 4 amplitudes away."""

    kind, about = "level-shift", "the level jumps every 512 samples, by up to 5 amplitudes"
    hold: ClassVar[int] = 512
    levels: ClassVar[tuple[float, ...]] = (0.0, 3.0, 1.0, -2.0, 2.0, -1.0, 4.0, 0.5)

    def _clean(self, i: Floats) -> Floats:
        place = (i // self.hold).astype(np.intp) + np.arange(self.series)[:, None]
        level: Floats = np.asarray(self.levels)[place % len(self.levels)]
        return super()._clean(i) + self.amplitude * level


class Outliers(Wave):
    """One sample in 200 is off by 5 to 15 amplitudes, to either side.

    The spikes belong to the noise, and so to the floor.
    """

    kind, about = "outliers", "one sample in 200 is a spike of 5 to 15 amplitudes"
    draws = 3
    share: ClassVar[float] = 0.005

    @property
    def floor(self) -> float:
        # E of size ** 2 for a size of U(5, 15): its mean squared plus its variance.
        spike = (10**2 + 10**2 / 12) * self.amplitude**2
        return sqrt(self.noise**2 / 3 + self.share * spike)

    def _parts(self, i: Floats, uniform: Floats) -> tuple[Floats, Floats]:
        side = 20 * uniform[..., 2] - 10  # U(±10): its sign chooses the side, the rest the size
        spike = self.amplitude * (side + np.copysign(5.0, side))
        return self._clean(i), self._flat(uniform[..., 0]) + np.where(uniform[..., 1] < self.share, spike, 0.0)


class HeavyTails(Wave):
    """Noise of Student's t with three degrees of freedom, times `noise`: variance 3, fourth moment infinite."""

    kind, about = "heavy-tails", "noise of Student's t with three degrees of freedom"
    draws = 3

    @property
    def floor(self) -> float:
        return self.noise * sqrt(3)

    def _parts(self, i: Floats, uniform: Floats) -> tuple[Floats, Floats]:
        top, side = _gaussians(uniform)
        # Chi-squared with three degrees of freedom: a gaussian squared, and an exponential of mean 2.
        chi = side**2 - 2 * np.log1p(-uniform[..., 2])
        return self._clean(i), self.noise * top / np.sqrt(np.maximum(chi, 1e-300) / 3)


class Missing(Wave):
    """A tenth of the samples is missing, in runs of one to twelve; the times of the others say so."""

    kind, about = "missing", "a tenth of the samples is missing, in runs of one to twelve"
    draws = 2
    #: A run starts at this share of the steps: runs of 6.5 on average then cover 1 - exp(-6.5 * 0.0162) = 10 %.
    share: ClassVar[float] = 0.0162

    def _parts(self, i: Floats, uniform: Floats) -> tuple[Floats, Floats]:
        draw = uniform[..., 1]
        end = np.where(draw < self.share, i + 1 + np.floor(draw / self.share * 12), 0.0)
        reach = np.maximum.accumulate(np.concatenate([self._carry[:, None], end], axis=1), axis=1)[:, 1:]
        self._carry = reach[:, -1]
        return self._clean(i), np.where(i < reach, np.nan, self._flat(uniform[..., 0]))


def _gaussians(uniform: Floats) -> tuple[Floats, Floats]:
    """The first two of some U(0, 1) draws (..., 2 or more) as two independent N(0, 1), (...) each (Box and Muller
    1958).
    """
    radius, angle = np.sqrt(-2 * np.log1p(-uniform[..., 0])), 2 * pi * uniform[..., 1]
    return radius * np.cos(angle), radius * np.sin(angle)


#: The waves by name.
WAVES: dict[str, type[Wave]] = {
    wave.kind: wave
    for wave in (
        Wave,
        TwoTone,
        Chirp,
        Square,
        RandomWalk,
        AmplitudeDrift,
        FrequencySwitch,
        LevelShift,
        Outliers,
        HeavyTails,
        Missing,
    )
}

"""The broad prior: random series of many kinds, from which the model `general` learns what signals tend to do next.

The wider it is, the less a strange stream surprises the model; no recording is in it, so every recording is a fair
test. All arrays have shape (T, n): time first, oldest first, one column a series. No unit: the input channels are free
of scale.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PERIOD_MIN, PERIOD_MAX = 4.0, 400.0
NOISE_MIN, NOISE_MAX = 0.01, 1.0
TONES_MAX = 3


def draw(length: int, count: int, seed: int) -> Floats:
    """`count` random series, shape (length, count), finite; the same seed gives the same numbers."""
    random = np.random.default_rng(seed)
    signal = sum((_tone(random, length, count, number) for number in range(TONES_MAX)), np.zeros((length, count)))
    signal *= 1 + _often(random, 0.2, count) * np.tanh(_tone(random, length, count, -1))  # a day louder than a night
    signal += _often(random, 0.4, count) * _autoregression(random, length, count)
    signal += _often(random, 0.3, count) * _cycle(random, length, count)
    signal += _often(random, 0.3, count) * _walk(random, length, count)
    signal += _often(random, 0.25, count) * _shifts(random, length, count)
    signal *= _loudness(random, length, count)
    signal += _noise(random, length, count) * np.where(_often(random, 0.25, count) > 0, _counting(signal), 1.0)
    signal += _often(random, 0.25, count) * _spikes(random, length, count)
    signal += _often(random, 0.15, count) * _bursts(random, length, count)
    return _measured(random, signal)


def _often(random: np.random.Generator, chance: float, count: int) -> Floats:
    """1 for a share `chance` of the series, 0 for the others; shape (n,)."""
    return (random.random(count) < chance).astype(np.float64)


def _between(random: np.random.Generator, low: float, high: float, count: int) -> Floats:
    """Log-uniform numbers, shape (n,): each order of magnitude as likely as the next."""
    return np.exp(random.uniform(np.log(low), np.log(high), count))


def _tone(random: np.random.Generator, length: int, count: int, number: int) -> Floats:
    """The tone of that number where a series has so many: a periodic shape, its frequency perhaps drifting."""
    period = _between(random, PERIOD_MIN, PERIOD_MAX, count)
    drift = _often(random, 0.3, count) * _between(random, 1e-4, 1e-2, count)
    wander = np.cumsum(random.normal(size=(length, count)) * drift, 0)
    phase = random.random(count) + np.cumsum(np.exp(np.clip(wander, -1, 1)) / period, 0)
    angle = 2 * np.pi * phase
    kind = random.integers(0, 4, count)
    sharpness = random.normal(size=(4, count)) / np.arange(1, 5)[:, None]
    overtones = sum((sharpness[k] * np.sin((k + 1) * angle + k * sharpness[0]) for k in range(4)), np.zeros_like(angle))
    shapes = [np.sin(angle), np.sign(np.sin(angle)), 2 * (phase % 1) - 1, overtones]
    has = random.integers(0, TONES_MAX + 1, count) > number
    return np.choose(kind, shapes) * has * _between(random, 0.2, 2, count)


def _autoregression(random: np.random.Generator, length: int, count: int) -> Floats:
    """First-order noise of standard deviation about 1: what is above its mean comes back, slowly or fast."""
    keep = 1 - _between(random, 1e-3, 1, count)
    push = random.normal(size=(length, count)) * np.sqrt(1 - keep**2)
    return _recursion(push, keep, np.zeros(count)) * _between(random, 0.2, 2, count)


def _cycle(random: np.random.Generator, length: int, count: int) -> Floats:
    """A damped oscillator driven by noise: nearly periodic, its phase and amplitude never the same."""
    turn = 2 * np.pi / _between(random, PERIOD_MIN, PERIOD_MAX, count)
    radius = 1 - _between(random, 1e-3, 0.3, count)
    wave = _recursion(random.normal(size=(length, count)), 2 * radius * np.cos(turn), -(radius**2))
    return _unit(wave) * _between(random, 0.2, 2, count)


def _recursion(push: Floats, first: Floats, second: Floats) -> Floats:
    """x_t = first x_{t-1} + second x_{t-2} + push_t from rest, shape (T, n)."""
    x = np.empty_like(push)
    a = b = np.zeros(push.shape[1])
    for t in range(len(push)):
        a, b = first * a + second * b + push[t], a
        x[t] = a
    return x


def _walk(random: np.random.Generator, length: int, count: int) -> Floats:
    return np.cumsum(random.normal(size=(length, count)) * _between(random, 0.003, 0.3, count), 0)


def _shifts(random: np.random.Generator, length: int, count: int) -> Floats:
    """Now and then the level jumps and stays."""
    jump = random.random((length, count)) < _between(random, 1e-3, 3e-2, count)
    size = random.normal(size=(length, count)) * _between(random, 0.5, 3, count)
    comes_back = _often(random, 0.5, count)
    level = np.cumsum(jump * size, 0)
    # A level that comes back: each jump replaces the one before instead of adding to it.
    held = np.maximum.accumulate(np.where(jump, np.arange(length)[:, None], 0), 0)
    return np.where(comes_back > 0, np.take_along_axis(jump * size, held, 0), level)


def _loudness(random: np.random.Generator, length: int, count: int) -> Floats:
    """A slowly changing amplitude for some, 1 for the others."""
    rate = _often(random, 0.3, count) * _between(random, 1e-3, 3e-2, count)
    return np.exp(np.clip(np.cumsum(random.normal(size=(length, count)) * rate, 0), -1.5, 1.5))


def _noise(random: np.random.Generator, length: int, count: int) -> Floats:
    """Gaussian, uniform or Student-t3 noise of standard deviation 0.01…1, for some louder and quieter in turns."""
    kind = random.integers(0, 3, count)
    gauss = random.normal(size=(length, count))
    uniform = random.uniform(-np.sqrt(3), np.sqrt(3), (length, count))
    heavy = np.clip(random.standard_t(3, (length, count)), -30, 30) / np.sqrt(3)
    turns = _recursion(random.normal(size=(length, count)) * 0.1, np.full(count, 0.98), np.zeros(count))
    volatile = np.exp(np.clip(turns * _often(random, 0.2, count) * 2, -3, 3))
    return np.choose(kind, [gauss, uniform, heavy]) * volatile * _between(random, NOISE_MIN, NOISE_MAX, count)


def _counting(signal: Floats) -> Floats:
    """How much louder noise is where there is more to count: the square root of the height over the lowest, about 1."""
    height = signal - signal.min(0)
    mean = height.mean(0)
    louder: Floats = np.sqrt(height / np.where(mean > 1e-9, mean, 1.0) + 0.02)
    return louder


def _spikes(random: np.random.Generator, length: int, count: int) -> Floats:
    """Single samples far out."""
    struck = random.random((length, count)) < _between(random, 1e-3, 3e-2, count)
    side = np.where(random.random(count) < 0.5, 1.0, 0.0)
    size = random.standard_exponential((length, count)) * _between(random, 2, 20, count)
    sign = np.where(side > 0, 1.0, np.sign(random.random((length, count)) - 0.5))
    return struck * size * sign


def _bursts(random: np.random.Generator, length: int, count: int) -> Floats:
    """Load that comes at once and decays: jumps up, then falls by a share each step."""
    struck = random.random((length, count)) < _between(random, 3e-3, 0.1, count)
    size = random.standard_exponential((length, count)) * _between(random, 0.5, 5, count)
    return _recursion(struck * size, 1 - _between(random, 0.03, 1, count), np.zeros(count))


def _measured(random: np.random.Generator, signal: Floats) -> Floats:
    """As an instrument shows it: some series as exponentials, some cut off at a floor, some quantised or counted."""
    count: int = signal.shape[1]
    signal = _unit(signal)
    bent = np.exp(np.clip(signal * random.uniform(0.3, 1.5, count), -8, 8))
    signal = np.where(random.random(count) < 0.15, _unit(bent), signal)
    ordered = np.sort(signal, axis=0)
    floor = ordered[(random.uniform(0.05, 0.8, count) * len(signal)).astype(int), np.arange(count)]
    signal = np.where(random.random(count) < 0.1, np.maximum(signal, floor), signal)
    grain = _between(random, 0.02, 1, count)
    return np.where(random.random(count) < 0.15, np.round(signal / grain) * grain, signal)


def _unit(signal: Floats) -> Floats:
    """Standard deviation 1 over the whole series, so that what is added or bent next meets every kind alike."""
    deviation: Floats = signal.std(0)
    return signal / np.where(deviation > 1e-9, deviation, 1.0)

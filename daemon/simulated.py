"""`forecastd produce sine` and `waves`: simulated waves."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .delivery import Command, delivery, feeding
from .errors import Misuse

if TYPE_CHECKING:
    from ..producers.waves import Wave

#: The kinds of `waves`, in the order of the overview; `tests/test_produce.py` holds them to the registry.
KINDS = (
    "two-tone",
    "chirp",
    "square",
    "random-walk",
    "amplitude-drift",
    "frequency-switch",
    "level-shift",
    "outliers",
    "heavy-tails",
    "missing",
)


def shape(command: Command) -> Command:
    """The options of simulated waves."""
    for option in (
        click.option(
            "--seed",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="The same seed gives the same wave.",
        ),
        click.option(
            "--period", type=float, metavar="SAMPLES", help="Samples a period.  [default: the tutorial's, 62.4]"
        ),
        click.option("--offset", type=float, default=1.0, show_default=True, help="The middle of the wave."),
        click.option("--amplitude", type=float, default=1.0, show_default=True, help="Half its height, without noise."),
        click.option(
            "--noise",
            type=click.FloatRange(min=0),
            default=0.15,
            show_default=True,
            metavar="A",
            help="Half the width of the uniform noise; the scale of the other kinds.",
        ),
        click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N samples of each series."),
        click.option(
            "--rate",
            type=click.FloatRange(min=0),
            default=10.0,
            show_default=True,
            metavar="R",
            help="Samples a second of each series; 0: as fast as it goes, on a clock that starts in November 2023.",
        ),
        click.option(
            "--series",
            "series",
            multiple=True,
            metavar="N|NAME",
            help="How many series (NAME-1 … NAME-N), or the name of one; may be repeated.  [default: 1]",
        ),
    ):
        command = option(command)
    return command


@click.command(
    short_help="A sine with noise: the tutorial's wave.",
    epilog="""\b
Examples:
  forecastd produce sine
  forecastd produce sine --series boiler --amplitude 5 --offset 70 --rate 1
  forecastd produce sine --series 1000 --rate 0 --count 10000""",
)
@shape
@delivery
def sine(**options: Any) -> None:
    """A sine with uniform noise: the tutorial's wave, sin(x) + 1 + U(±0.15).

    The best possible forecast of it, by one who knows all but the noise, is off by noise / sqrt(3) in the root mean
    square: 0.0866 as it stands.
    """
    _waves(("sine",), **options)


@click.command(
    short_help="Waves that are hard in different ways.",
    epilog="""\b
Examples:
  forecastd produce waves
  forecastd produce waves --kind two-tone --series 20
  forecastd produce waves --kind outliers --series pump --rate 0 --count 5000""",
)
@click.option(
    "--kind",
    "kinds",
    metavar="KIND",
    type=click.Choice(KINDS),
    multiple=True,
    help="Which wave; may be repeated.  [default: each of them]",
)
@shape
@delivery
def waves(kinds: tuple[str, ...], **options: Any) -> None:
    """Waves that are hard in different ways: tones, jumps, drifts, spikes, gaps.

    \b
    two-tone          two tones, the second 3.6 times as fast and half as strong
    chirp             a tone that glides between half and three times its frequency
    square            jumps between two levels each half period
    random-walk       nothing beats repeating the last value
    amplitude-drift   a tone whose amplitude drifts between 0.2 and 1.8
    frequency-switch  the frequency doubles after 2,048 samples, then halves, …
    level-shift       the level jumps every 512 samples, by up to 5 amplitudes
    outliers          one sample in 200 is a spike of 5 to 15 amplitudes
    heavy-tails       noise of Student's t with three degrees of freedom
    missing           a tenth of the samples is missing, in runs of one to twelve

    Each says at the start what its noise floor is: the root mean square error of a forecaster that knows all but the
    noise, which none can beat.
    """
    _waves(kinds or KINDS, **options)


def _waves(
    kinds: tuple[str, ...],
    series: tuple[str, ...],
    rate: float,
    count: int | None,
    noise: float,
    amplitude: float,
    offset: float,
    period: float | None,
    seed: int,
    to: str,
    seconds: float | None,
    spool: Path | None,
) -> None:
    from ..producers import feed
    from ..producers.waves import ORIGIN, PERIOD, WAVES

    names = _names(kinds, series)
    step, start = (1 / rate, time.time()) if rate else (1.0, ORIGIN)
    played: list[tuple[list[str], Wave]] = []
    try:
        for kind in kinds:
            wave = WAVES[kind](
                seed,
                series=len(names[kind]),
                noise=noise,
                amplitude=amplitude,
                offset=offset,
                period=PERIOD if period is None else period,
                step=step,
                start=start,
            )
            played.append((names[kind], wave))
    except ValueError as error:
        raise Misuse(str(error)) from None
    for each, wave in played:
        shown = each[0] if len(each) == 1 else f"{each[0]} … {each[-1]}"
        click.echo(f"{shown}: {wave.about}; noise floor (RMSE) {wave.floor:.4g}")
    total = sum(map(len, names.values()))
    with feeding(to, seconds, spool, count and count * total, total) as line:
        feed.play_waves(line, played, rate, count)


def _names(kinds: tuple[str, ...], series: tuple[str, ...]) -> dict[str, list[str]]:
    """The names of the series of each kind."""
    if series and not (len(series) == 1 and series[0].isdigit()):
        if len(kinds) > 1:
            raise Misuse("a name for several kinds of waves; say which with one --kind, or give a number of series")
        if len(set(series)) != len(series):
            raise Misuse("--series: each name once")
        return {kinds[0]: list(series)}
    n = int(series[0]) if series else 1
    if n < 1:
        raise Misuse("--series: at least 1")
    return {kind: [kind] if n == 1 else [f"{kind}-{k}" for k in range(1, n + 1)] for kind in kinds}

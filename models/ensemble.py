"""The experts that take part, by name: the one place where a new one is entered."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .ar import AR
from .expert import Expert
from .naive import Naive
from .path import Path
from .recurrent import Recurrent
from .seasonal import Seasonal
from .ses import Ses
from .weights import Weights

EXPERTS: dict[str, Callable[[Weights], Expert]] = {
    "naive": lambda weights: Naive(),
    "ses": lambda weights: Ses(),
    "ar2": lambda weights: AR("ar2", 2),
    "ar10": lambda weights: AR("ar10", 10),
    "ar": lambda weights: AR("ar", 32),
    "rnn": Recurrent,
    "path": Path,
    "seasonal": lambda weights: Seasonal(),
}


def experts(names: Sequence[str], weights: Weights | None, horizon: int = 1) -> tuple[Expert, ...]:
    """The named experts, naive first whether named or not: the blend is measured against it. `path` takes part only
    where there is more than one step ahead, and a model that knows the way. ValueError for an unknown name, or for
    `rnn` without weights."""
    unknown = [name for name in names if name not in EXPERTS]
    if unknown:
        raise ValueError(f"no expert is called {unknown[0]!r}; there are {', '.join(EXPERTS)}")
    if weights is None and "rnn" in names:
        raise ValueError("the expert 'rnn' needs a model")
    chosen = ["naive", *(name for name in EXPERTS if name in names and name != "naive")]
    if horizon == 1 or weights is None or (weights.decoder is None and weights.ahead is None):
        chosen = [name for name in chosen if name != "path"]
    return tuple(EXPERTS[name](weights) for name in chosen)  # type: ignore[arg-type]

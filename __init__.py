"""forecastd: a daemon that forecasts live signals, says how sure it is, and scores itself in public."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .producers.async_client import AsyncProducer
    from .producers.client import BadKey, Producer, SpoolError, Stats, WindowFull

__version__ = "0.1.0"
__all__ = ["AsyncProducer", "BadKey", "Producer", "SpoolError", "Stats", "WindowFull", "__version__"]


def __getattr__(name: str) -> Any:
    """The public names, imported when first asked for: most who import the package need none of them."""
    if name == "AsyncProducer":
        from .producers.async_client import AsyncProducer

        return AsyncProducer
    if name in __all__:
        from .producers import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

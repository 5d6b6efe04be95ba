"""forecastd: a daemon that forecasts live signals, says how sure it is, and scores itself in public."""

__version__ = "0.1.0"

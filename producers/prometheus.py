"""The results of a Prometheus query as samples, for `forecastd produce prometheus`: any metric can be forecast
without touching its exporter.

Speaks the HTTP API (`/api/v1/query`, `/api/v1/query_range`) with the standard library. A series is named by its labels.
"""

from __future__ import annotations

import http.client
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from hashlib import sha256
from string import Formatter
from typing import Any, NamedTuple

import msgspec

#: Seconds that one query may take, and bytes that its answer may have.
TIMEOUT_S = 10.0
ANSWER_BYTES_MAX = 64 << 20
#: Bytes of a name: a longer one is cut, and ends in a hash of the whole. The daemon's own bound is 200 by default.
NAME_BYTES_MAX = 200
#: Points a series of one range query; Prometheus itself refuses more than 11,000.
POINTS_MAX = 10_000

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Sample(NamedTuple):
    """One value of one series;
    `time` in seconds since the epoch. A value may be NaN or infinite: Prometheus has both.
    """

    series: str
    value: float
    time: float


class Unreachable(Exception):
    """Prometheus does not answer, or not as it should; the next attempt may fare better. The message is one line."""


class QueryError(Exception):
    """Prometheus refuses the query itself; so it will the next time. The message is one line."""


class Source:
    """A query against one server. `naming` is a format over the labels, as `{job}/{instance}`; empty for all labels."""

    def __init__(self, url: str, query: str, naming: str = "", token: str = "") -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"{url!r} is no address of a Prometheus; write http://HOST:9090")
        self.url, self.query, self.naming = url.rstrip("/"), query, naming
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        if not _is_format(naming):
            raise ValueError(f"{naming!r} is no format of labels; write it as {{job}}/{{instance}}")

    def poll(self, at: float) -> list[Sample]:
        """What the query says at the moment `at` (seconds since the epoch). Raises `Unreachable` or `QueryError`."""
        return self._samples(self._ask("query", query=self.query, time=repr(at)))

    def history(self, start: float, end: float, step: float) -> list[Sample]:
        """What the query said from `start` to `end`, each `step` seconds, oldest first. Raises as `poll`."""
        if (end - start) / step >= POINTS_MAX:
            start = end - (POINTS_MAX - 1) * step
        answer = self._ask("query_range", query=self.query, start=repr(start), end=repr(end), step=repr(step))
        return sorted(self._samples(answer), key=lambda sample: sample.time)

    def name(self, labels: dict[str, str]) -> str:
        """The series of a set of labels: `up{instance="a",job="b"}`, or what the naming says."""
        if self.naming:
            text = Formatter().vformat(self.naming, (), _Labels(labels))
        else:
            rest = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()) if key != "__name__")
            metric = labels.get("__name__", "")
            text = f"{metric}{{{rest}}}" if rest else metric or self.query
        return shortened("".join(c if c.isprintable() else " " for c in text).strip() or "?")

    def _ask(self, path: str, **parameters: str) -> dict[str, Any]:
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        request = urllib.request.Request(address, headers=self._headers)  # noqa: S310 - the scheme was looked at
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
                return self._data(answer.read(ANSWER_BYTES_MAX + 1))
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error) from None
        except (OSError, http.client.HTTPException, ssl.SSLError) as error:
            reason = getattr(error, "reason", error)
            what = getattr(reason, "strerror", None) or reason
            raise Unreachable(" ".join(f"{self.url} does not answer: {what}".split())) from None

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        try:
            why = str(_decode(error.read(1 << 20)).get("error", ""))
        except (OSError, http.client.HTTPException, msgspec.DecodeError):
            why = ""
        why = " ".join(f"{why or error.reason} (HTTP {error.code})".split())
        # 400 and 422 are its words on the query; others are on the server, or on who asks.
        return QueryError(why) if error.code in (400, 401, 403, 404, 422) else Unreachable(f"{self.url}: {why}")

    def _data(self, body: bytes) -> dict[str, Any]:
        if len(body) > ANSWER_BYTES_MAX:
            raise QueryError(f"the answer has more than {ANSWER_BYTES_MAX >> 20} MiB; ask for less")
        try:
            answer = _decode(body)
            if answer["status"] == "success" and isinstance(answer["data"], dict):
                return answer["data"]
        except (msgspec.DecodeError, KeyError):
            pass
        raise Unreachable(f"{self.url} answers, but not as Prometheus does")

    def _samples(self, data: dict[str, Any]) -> list[Sample]:
        try:
            if data["resultType"] == "scalar":
                return [self._sample(shortened(self.query), data["result"])]
            return [
                self._sample(name, point)
                for item in data["result"]
                for name in [self.name(item["metric"])]
                for point in (item["values"] if "values" in item else [item["value"]] if "value" in item else [])
            ]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise QueryError(f"the query gives a {data.get('resultType')}; numbers are needed") from None

    @staticmethod
    def _sample(name: str, point: list[Any]) -> Sample:
        time, text = point
        return Sample(name, float(text), float(time))


def _is_format(naming: str) -> bool:
    try:
        fields = [field for field in Formatter().parse(naming) if field[1] is not None]
    except ValueError:
        return False
    return all(
        re.fullmatch(r"[A-Za-z_]\w*", name or "") and not (spec or conversion) for _, name, spec, conversion in fields
    )


class _Labels(dict[str, str]):
    """Labels for a format; one that a series does not have is empty, as it is to Prometheus."""

    def __missing__(self, key: str) -> str:
        return ""


def shortened(name: str) -> str:
    """The name itself if it is short enough, else its beginning and a hash of the whole."""
    encoded = name.encode()
    if len(encoded) <= NAME_BYTES_MAX:
        return name
    mark = "~" + sha256(encoded).hexdigest()[:12]
    return encoded[: NAME_BYTES_MAX - len(mark)].decode(errors="ignore") + mark

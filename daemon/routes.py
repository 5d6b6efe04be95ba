"""The routes of the web process. Every answer leaves with the headers that keep a browser strict, and every error is
a line of JSON."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .exposure import names
from .guard import Guard
from .metrics import Exposition, Once, Surroundings, of_processes
from .scoreboard import Scoreboard
from .settings import Settings
from .stream import Client, Full, Hub
from .view import View

STREAM = "/api/v1/stream"
PAGE = Path(__file__).parent / "page"
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}  # starlette adds the charset
SERIES_MAX = 10_000  # series in one answer of the API
#: Counters of the scoreboard that are above zero while samples are forecast but not acknowledged, or not let in.
HELD_UP = {
    "doorkeeper_away": "nobody new is let in: what checks keys is being started again",
    "journal_full": "the disk of the state folder is full: samples are forecast but not acknowledged",
    "journal_held": "the disk of the state folder is too slow: samples are forecast but not acknowledged for now",
}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Behind(Protocol):
    """What the routes show: the web process, or in tests something like it."""

    settings: Settings
    view: View
    hub: Hub

    def surroundings(self) -> Surroundings:
        """What is known besides the scoreboard, now."""

    @property
    def fresh(self) -> bool:
        """Whether the engine reported lately."""


class Name(Convertor[str]):
    """A series' name at the end of a path: anything, slashes and line breaks included."""

    regex = "(?s:.+)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("series", Name())


def answer(content: Any, status: int = 200) -> Response:
    """JSON, not to be kept."""
    headers = {"cache-control": "no-store"}
    return Response(msgspec.json.encode(content), status, headers, media_type="application/json")


class Routes:
    """The routes over what is behind them. Use `app`."""

    def __init__(self, behind: Behind, token: str = "") -> None:
        self.behind = behind
        limits = behind.settings.limits
        self.exposition = Exposition(limits.series_shown, limits.silent_s)
        self.rendered: tuple[Scoreboard, list[bytes]] | None = None
        self.rendering = asyncio.Lock()
        self.files: dict[str, File] = {}
        self.routes = [
            Route("/", self.page),
            Route("/page/{name}", self.page),
            Route("/metrics", self.metrics),
            Route("/healthz", self.health),
            Route("/readyz", self.ready),
            Route("/api/v1/series", self.series),
            Route("/api/v1/series/{name:series}", self.one),
            Route("/api/v1/models", self.models),
            Route(STREAM, self.stream),
        ]
        starlette = Starlette(routes=self.routes, exception_handlers={HTTPException: refuse, Exception: fail})
        starlette.router.redirect_slashes = False
        self.guard = Guard(starlette, names(behind.settings), token)
        self.app = Strict(self.guard)

    async def metrics(self, request: Request) -> Response:
        """The metrics page: the engine's part made once a scoreboard whoever asks, in a thread so that the loop goes
        on meanwhile."""
        head = generate_latest(Once(of_processes(self.behind.surroundings())))
        board = self.behind.view.board
        pieces = [head]
        if board is not None and self.behind.fresh:
            async with self.rendering:
                if self.rendered is None or self.rendered[0] is not board:
                    self.rendered = board, await asyncio.to_thread(self.exposition.render, board)
                pieces += self.rendered[1]
        headers = {"content-length": str(sum(map(len, pieces))), "cache-control": "no-store"}
        return StreamingResponse(each(pieces), headers=headers, media_type=CONTENT_TYPE_LATEST)

    async def health(self, request: Request) -> Response:
        """Whether the process answers and the engine reported lately."""
        if self.behind.fresh:
            return answer({"status": "ok"})
        age = self.behind.surroundings().board_age_s
        told = "the engine has not reported yet" if age is None else f"the engine's last report is {age:.0f} s old"
        return answer({"status": "failing", "reason": told}, 503)

    async def ready(self, request: Request) -> Response:
        """Whether samples are forecast and acknowledged: the engine reported lately, no process that it takes is down,
        and the journal keeps up."""
        reasons = [
            f"the process {name!r} is down"
            for name, state in self.behind.surroundings().processes.items()
            if not state.get("up", 1) and not state.get("spare")
        ]
        if self.behind.fresh and self.behind.view.board is not None:
            counters = self.behind.view.board.counters
            reasons += [reason for counter, reason in HELD_UP.items() if counters.get(counter)]
        else:
            reasons.append("the engine has not reported lately")
        return (
            answer({"status": "not ready", "reason": "; ".join(reasons)}, 503)
            if reasons
            else answer({"status": "ready"})
        )

    async def series(self, request: Request) -> Response:
        """The series, `?match=TEXT` in their names, at most `?limit=N`."""
        try:
            limit = min(max(int(request.query_params.get("limit", 1_000)), 0), SERIES_MAX)
        except ValueError:
            raise HTTPException(400, "limit is no whole number") from None
        return answer(self.behind.view.series(request.query_params.get("match", ""), limit))

    async def one(self, request: Request) -> Response:
        """One series and its recent points."""
        name = request.path_params["name"]
        found = self.behind.view.one(name)
        if found is None:
            raise HTTPException(404, f"no series {name!r} is shown; /api/v1/series lists them")
        return answer({**found, "recent": self.behind.view.recent.of(name)})

    async def models(self, request: Request) -> Response:
        """The models in service and in the shadow, what was decided about them, and where they come from."""
        board = self.behind.view.board
        if board is None:
            return answer({"models": [], "events": [], "versions": [], "champions": []})
        return answer(
            {"versions": [], "champions": [], **board.lineage, "models": board.models, "events": board.events}
        )

    async def stream(self, request: Request) -> Response:
        """Forecasts of `?series=NAME&series=…` as they are published; with `board=1` what the page needs besides, as
        named events."""
        names = request.query_params.getlist("series")
        board = request.query_params.get("board") == "1"
        if not names and not board:
            raise HTTPException(400, f"say which series: {STREAM}?series=NAME&series=…")
        bytes_max = self.behind.settings.limits.name_bytes
        if bad := [name for name in names if not 0 < len(name.encode(errors="replace")) <= bytes_max]:
            raise HTTPException(400, f"no series can have the name {bad[0][:50]!r}")
        try:
            client = self.behind.hub.join(names, board=board)
        except Full as full:
            raise HTTPException(503, str(full), {"retry-after": "5"}) from None
        if board:
            self.greet(client)
        return Stream(client, self.behind.hub, head_only=request.method == "HEAD")

    def greet(self, client: Client) -> None:
        """What a page needs at once rather than with the next scoreboard."""
        view, encode = self.behind.view, msgspec.json.encode
        client.show("overview", encode(view.overview(self.behind.surroundings().processes)))
        for name in client.series:
            found = view.one(name)
            if found is not None:
                client.show("recent", encode({"series": name, **view.recent.of(name)}), name)
                client.show("series", encode(found), name)

    async def page(self, request: Request) -> Response:
        """The live page and its parts; Plotly's script is the one of the installed package."""
        name = request.path_params.get("name", "index.html")
        if name not in self.files:
            path = page_file(name)
            self.files[name] = await asyncio.to_thread(File.read, path)
        return self.files[name].answer(request)


class File(NamedTuple):
    """A file of the page, compressed once and kept."""

    packed: bytes
    kind: str
    tag: str

    @classmethod
    def read(cls, path: Path) -> File:
        raw = path.read_bytes()
        return cls(gzip.compress(raw, 6), KINDS[path.suffix], f'"{hashlib.sha256(raw).hexdigest()[:16]}"')

    def answer(self, request: Request) -> Response:
        headers = {"etag": self.tag, "cache-control": "no-cache", "vary": "accept-encoding"}
        if request.headers.get("if-none-match") == self.tag:
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(self.packed, headers={**headers, "content-encoding": "gzip"}, media_type=self.kind)
        return Response(gzip.decompress(self.packed), headers=headers, media_type=self.kind)


def page_file(name: str) -> Path:
    """Where a part of the page lies; HTTPException 404 when it is none."""
    if name in ("index.html", "page.js", "style.css"):
        return PAGE / name
    if name == "plotly.js":
        found = importlib.util.find_spec("plotly")  # not imported: it takes a second and 60 MB
        if found is not None and found.submodule_search_locations:
            return Path(found.submodule_search_locations[0]) / "package_data" / "plotly.min.js"
    raise HTTPException(404, "there is no such file")


class Stream(StreamingResponse):
    """Server-sent events of a client, who leaves the hub however it ends."""

    def __init__(self, client: Client, hub: Hub, *, head_only: bool) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(each([]) if head_only else client.events(), headers=headers, media_type="text/event-stream")
        self.client, self.hub = client, hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.hub.leave(self.client, asyncio.get_running_loop().time())


async def each(pieces: list[bytes]) -> AsyncIterator[bytes]:
    """The pieces one after the other, so that a slow reader holds up one and not a copy of all."""
    for piece in pieces:
        yield piece


async def refuse(request: Request, error: Exception) -> Response:
    """What a wrong request is told."""
    assert isinstance(error, HTTPException)
    response = answer({"error": error.detail}, error.status_code)
    response.headers.update(error.headers or {})
    return response


async def fail(request: Request, error: Exception) -> Response:
    """What is told when we are wrong: nothing of the inside. The log has the rest."""
    return answer({"error": "internal error; the log of the daemon says more"}, 500)


class Strict:
    """The application with `HEADERS` on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def strict(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, strict)

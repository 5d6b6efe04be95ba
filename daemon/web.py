"""The web process: `/metrics`, health, the API and the live page, from the engine's feed and its once-a-second
scoreboard.

    python -m forecastd.daemon.web

Its settings and the engine's endpoints come as the first line on stdin (`child.Parent`), further lines tell the state
of the processes, and the end of stdin ends it. It is a subscriber like any other, so nothing that happens here can
hold up a forecast."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import msgspec
import uvicorn

from ..producers import key
from ..producers.key import BadKey, private
from .child import Parent
from .descriptors import spare
from .endpoint import host_port
from .errors import CannotStart, Failure, Misuse
from .gate import CONNECTIONS_MAX, HEAD_S, Gate
from .guard import read_token
from .metrics import Surroundings
from .routes import STREAM, Routes
from .scoreboard import decode
from .settings import Settings
from .sockets import house_curve
from .stream import Hub
from .subscriber import Subscriber
from .view import View

#: The engine reports once a second; this much later it is taken for dead or stuck, and what it said is shown no longer.
STALE_S = 5.0
TICK_S = 1.0
DRAIN_MAX = 1_000  # messages read in one go, so that a busy feed leaves the loop to the others
HEAD_BYTES_MAX = 16_384
BACKLOG = 64  # connections that wait to be accepted

log = logging.getLogger("forecastd.web")


class Start(msgspec.Struct):
    """The first line on stdin."""

    settings: Settings
    feed: str
    board: str


class Web:
    """The life of the process: what it hears, what it shows, and when it ends. Everything happens on one loop."""

    def __init__(self, start: Start, parent: Parent) -> None:
        self.settings = start.settings
        self.parent = parent
        self.processes: dict[str, dict[str, float]] = {}
        self.reload: dict[str, float] = {}
        self.listener = bind(start.settings.web)
        curve = house_curve(key.read(self.settings.key).secret) if self.settings.key else None
        self.feed, self.board = Subscriber(start.feed, curve=curve), Subscriber(start.board, "", curve=curve)
        self.view = View(start.settings.limits.series_shown, start.settings.limits.silent_s)
        self.hub = Hub(self.follow, self.feed.unsubscribe)
        self.gate = Gate(endless=STREAM)
        self.routes = Routes(self, read_token(self.settings.web_token) if self.settings.web_token else "")
        self.heard = float("-inf")
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(briefly)
        self.server = Quiet(
            uvicorn.Config(
                self.routes.app,
                http=cast(Any, self.gate.protocol),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                h11_max_incomplete_event_size=HEAD_BYTES_MAX,
                # asyncio accepts so many in a row, and says of each that it has no descriptor, if it has none.
                backlog=BACKLOG,
                timeout_keep_alive=5,
                timeout_graceful_shutdown=1,
                ssl_certfile=self.settings.web_certificate or None,
                ssl_keyfile=self.settings.web_key or None,
            )
        )
        prepare(self.server.config)
        self.gate.connections_max = spare(CONNECTIONS_MAX)

    async def run(self) -> None:
        """Serve until told to end."""
        self.loop.add_signal_handler(signal.SIGTERM, self.end)
        self.loop.add_signal_handler(signal.SIGINT, lambda: None)  # Ctrl-C is the supervisor's affair
        readers = {
            self.feed.fileno(): self.drain_feed,
            self.board.fileno(): self.drain_board,
            self.parent.fileno(): self.told,
        }
        for descriptor, read in readers.items():
            self.loop.add_reader(descriptor, read)
        host, port = self.listener.getsockname()[:2]
        scheme = "https" if self.server.config.is_ssl else "http"
        self.parent.report(bound=f"web {scheme}://{f'[{host}]' if ':' in host else host}:{port}")
        self.told()  # what came together with the first line wakes nobody
        ticking = self.loop.create_task(self.tick())
        try:
            await self.server.serve(sockets=[self.listener])
        finally:
            ticking.cancel()
            for descriptor in readers:
                self.loop.remove_reader(descriptor)
            self.feed.close()
            self.board.close()

    def end(self) -> None:
        """Answer what is being asked, then stop."""
        self.server.should_exit = True
        self.hub.close()

    def told(self) -> None:
        """Take what the supervisor says: the state of the processes, or by closing that it is gone."""
        for line in self.parent.lines():
            self.processes = line.get("processes", self.processes)
            self.reload = line.get("reload", self.reload)
        if self.parent.gone:
            self.loop.remove_reader(self.parent.fileno())
            self.end()

    def follow(self, name: str) -> None:
        """Subscribe to a series. Any use of the socket may eat the wake-up of its descriptor, so look at once what is
        there."""
        self.feed.subscribe(name)
        self.loop.call_soon(self.drain_feed)

    def drain_feed(self) -> None:
        """Hand on the forecasts that have arrived."""
        for _ in range(DRAIN_MAX):
            frames = self.feed.receive()
            if frames is None:
                return
            if len(frames) == 2:
                self.hub.receive(frames[0].decode(errors="replace"), frames[1])
        self.loop.call_soon(self.drain_feed)

    def drain_board(self) -> None:
        """Take the newest scoreboard that has arrived, and put it before everybody who looks."""
        newest = None
        while frames := self.board.receive():
            newest = frames[-1]
        if newest is None:
            return
        try:
            board = decode(newest)
        except (msgspec.DecodeError, ValueError) as error:
            log.warning("a scoreboard is not understood: %s", error)
            return
        self.heard = self.loop.time()
        self.view.update(board)
        self.hub.show("overview", msgspec.json.encode(self.view.overview(self.processes)))
        for name in self.hub.watched():
            if (found := self.view.one(name)) is not None:
                self.hub.show("series", msgspec.json.encode(found), name)

    @property
    def fresh(self) -> bool:
        """Whether the engine reported lately."""
        return self.loop.time() - self.heard <= STALE_S

    def surroundings(self) -> Surroundings:
        """What the metrics page says besides the scoreboard."""
        return Surroundings(
            processes=self.processes,
            reload=self.reload,
            board_age_s=self.loop.time() - self.heard if self.view.board is not None else None,
            stream_clients=len(self.hub.clients),
            stream_dropped=self.hub.dropped,
            connections=len(self.gate.open),
            connections_closed=self.gate.closed,
            requests_refused=self.routes.guard.refused,
        )

    async def tick(self) -> None:
        """Beat, and do once a second what must be done even when nothing arrives."""
        while not self.server.started:
            await asyncio.sleep(0.005)
        self.parent.report(ready=True)
        while True:
            self.parent.report(beat=time.monotonic())
            now = self.loop.time()
            self.gate.sweep(now)
            self.hub.tidy(now)
            self.drain_feed()
            self.drain_board()
            await asyncio.sleep(TICK_S)


def briefly(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Says in a line what asyncio says in ten, and says so of each connection, when descriptors run out."""
    error = context.get("exception")
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        log.warning("no descriptors for new connections: %s", error.strerror)
    else:
        loop.default_exception_handler(context)


class Quiet(uvicorn.Server):
    """uvicorn without signal handlers of its own: the loop has some. Who does not get on with TLS is shown out as soon
    as who does not get on with a request."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        if self.config.is_ssl:
            # The gate knows a connection once its handshake is over; until then asyncio looks after it, for a minute.
            loop.create_server = partial(loop.create_server, ssl_handshake_timeout=HEAD_S)  # type: ignore[method-assign]
        await super().startup(sockets)


def prepare(config: uvicorn.Config) -> None:
    """Has the certificate read, if there is one. BadKey where others can read its private key, Misuse where it is
    none."""
    if config.is_ssl:
        private(str(config.ssl_keyfile))
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one, too
        raise Misuse(
            f"{config.ssl_certfile}, {config.ssl_keyfile}: no certificate with its private key: {error}"
        ) from None


def bind(address: str) -> socket.socket:
    """A listening socket at HOST:PORT; raises `CannotStart` with what to do when it can't be had."""
    try:
        host, port = host_port(address)
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise CannotStart(
            f"web {address}: {reason}; choose another with --web HOST:PORT (port 0: any free one)"
        ) from error
    listener.setblocking(False)
    return listener


async def live(start: Start, parent: Parent) -> None:
    """From the first line to the last connection."""
    await Web(start, parent).run()


def main() -> None:
    """The entry of the process."""
    logging.basicConfig(level=logging.WARNING, format="web: %(message)s", stream=sys.stderr)
    parent = Parent()
    try:
        asyncio.run(live(msgspec.convert(parent.hello(), Start), parent))
    except EOFError:
        return
    except BadKey as error:
        parent.report(failed=str(error), status=2)
        sys.exit(2)
    except Failure as failure:
        parent.report(failed=failure.message, status=failure.exit_code)
        sys.exit(failure.exit_code)


if __name__ == "__main__":
    main()

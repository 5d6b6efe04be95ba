"""Who watches which series: the clients of `/api/v1/stream`, and the engine's feed followed on their behalf.

Forecasts arrive by `Hub.receive` as the engine published them, and leave as server-sent events. Each client has a
bounded queue that drops its oldest; a series is followed while somebody watches it and a while after, so that a page
loaded again finds its past."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterable

CLIENTS_MAX = 64
SERIES_PER_CLIENT_MAX = 16
FOLLOWED_MAX = 128
QUEUE_MAX = 512
HISTORY_MAX = 300
LINGER_S = 300.0
#: Time between two writes to a client: a page draws no faster, and a write for each of 1,000 samples a second would
#: cost more than the samples.
PACE_S = 0.05
#: A comment this often lets either side notice that the other is gone.
PING_S = 15.0


class Full(Exception):
    """A bound is reached; the message says which."""


def event(data: bytes, kind: str = "") -> bytes:
    """A server-sent event carrying `data`, JSON on one line; `kind` is its name, none for forecasts."""
    head = f"event: {kind}\n".encode() if kind else b""
    return head + b"data: " + data.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n\n"


class Client:
    """One reader of the stream. `extras` are named events of which only the newest matters."""

    def __init__(self, series: tuple[str, ...], board: bool) -> None:
        self.series, self.board = series, board
        self.queue: deque[bytes] = deque()
        self.extras: dict[tuple[str, str], bytes] = {}
        self.dropped = 0
        self.closed = False
        self._news = asyncio.Event()

    def put(self, message: bytes) -> bool:
        """Queue a forecast; False when the oldest one had to go for it."""
        fits = len(self.queue) < QUEUE_MAX
        if not fits:
            self.queue.popleft()
            self.dropped += 1
        self.queue.append(message)
        self._news.set()
        return fits

    def show(self, kind: str, message: bytes, about: str = "") -> None:
        """Queue a named event in place of the last one of its kind about the same series."""
        self.extras[kind, about] = event(message, kind)
        self._news.set()

    def close(self) -> None:
        """End the stream once what is queued has been read."""
        self.closed = True
        self._news.set()

    async def events(self) -> AsyncIterator[bytes]:
        """What to send, whenever there is something, until `close`."""
        yield b"retry: 2000\n\n"
        while True:
            try:
                await asyncio.wait_for(self._news.wait(), PING_S)
            except TimeoutError:
                yield b": still here\n\n"
                continue
            self._news.clear()
            if text := self._take():
                yield text
            if self.closed:
                return
            await asyncio.sleep(PACE_S)

    def _take(self) -> bytes:
        pieces = [*self.extras.values(), *(event(message) for message in self.queue)]
        if self.dropped:
            pieces.append(event(b'{"dropped":%d}' % self.dropped, "dropped"))
        self.extras.clear()
        self.queue.clear()
        self.dropped = 0
        return b"".join(pieces)


class Follow:
    """A series being followed: its last messages, its clients, and since when it has had none (seconds of the loop's
    clock)."""

    def __init__(self) -> None:
        self.history: deque[bytes] = deque(maxlen=HISTORY_MAX)
        self.clients: set[Client] = set()
        self.idle_since: float | None = None


class Hub:
    """The clients and the series they watch. `subscribe` and `unsubscribe` reach the engine's feed; the web loop
    alone calls any of this."""

    def __init__(self, subscribe: Callable[[str], None], unsubscribe: Callable[[str], None]) -> None:
        self._subscribe, self._unsubscribe = subscribe, unsubscribe
        self.clients: set[Client] = set()
        self.follows: OrderedDict[str, Follow] = OrderedDict()
        self.dropped = 0

    def receive(self, series: str, message: bytes) -> None:
        """A forecast as published. Others' are ignored: a subscription to `boiler` brings `boiler-2` too."""
        follow = self.follows.get(series)
        if follow is None:
            return
        follow.history.append(message)
        for client in follow.clients:
            self.dropped += not client.put(message)

    def join(self, series: Iterable[str], *, board: bool = False) -> Client:
        """A new client, with the kept history of its series queued. Raises `Full`."""
        client = Client(tuple(dict.fromkeys(series)), board)
        if len(client.series) > SERIES_PER_CLIENT_MAX:
            raise Full(f"a stream carries at most {SERIES_PER_CLIENT_MAX} series")
        if len(self.clients) >= CLIENTS_MAX:
            raise Full(f"{CLIENTS_MAX} streams are open already")
        fresh = [name for name in client.series if name not in self.follows]
        self._make_room(len(fresh), keep=client.series)
        for name in fresh:
            self.follows[name] = Follow()
            self._subscribe(name)
        for name in client.series:
            follow = self.follows[name]
            follow.clients.add(client)
            follow.idle_since = None
            for message in list(follow.history)[-(QUEUE_MAX // len(client.series)) :]:
                client.put(message)
        self.clients.add(client)
        return client

    def leave(self, client: Client, now: float) -> None:
        """The client is gone."""
        self.clients.discard(client)
        for name in client.series:
            follow = self.follows.get(name)
            if follow is not None:
                follow.clients.discard(client)
                if not follow.clients:
                    follow.idle_since = now
                    self.follows.move_to_end(name)

    def tidy(self, now: float) -> None:
        """Stop following what nobody has watched for a while."""
        for name, follow in list(self.follows.items()):
            if follow.idle_since is not None and now - follow.idle_since > LINGER_S:
                self._drop(name)

    def show(self, kind: str, message: bytes, about: str = "") -> None:
        """Give the named event to the clients with `board`: all of them, or those who watch the series it is about."""
        for client in self.follows[about].clients if about else self.clients:
            if client.board:
                client.show(kind, message, about)

    def watched(self) -> list[str]:
        """The series that clients with `board` look at."""
        return [name for name, follow in self.follows.items() if any(client.board for client in follow.clients)]

    def close(self) -> None:
        """End every stream."""
        for client in self.clients:
            client.close()

    def _make_room(self, wanted: int, keep: tuple[str, ...]) -> None:
        idle = [name for name, follow in self.follows.items() if not follow.clients and name not in keep]
        excess = len(self.follows) + wanted - FOLLOWED_MAX
        if excess > len(idle):
            raise Full(f"{FOLLOWED_MAX} series are being streamed already")
        for name in idle[: max(excess, 0)]:
            self._drop(name)

    def _drop(self, name: str) -> None:
        del self.follows[name]
        self._unsubscribe(name)

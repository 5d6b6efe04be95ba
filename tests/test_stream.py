"""Who watches a series gets its forecasts, bounded, and the engine is asked for no more than is watched."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from forecastd.daemon import stream
from forecastd.daemon.stream import Client, Full, Hub, event


class Feed:
    """What the hub asked the engine for."""

    def __init__(self) -> None:
        self.subscribed: list[str] = []

    def hub(self) -> Hub:
        return Hub(self.subscribed.append, self.subscribed.remove)


@pytest.fixture
def feed() -> Iterator[Feed]:
    yield Feed()


async def read(client: Client) -> str:
    """All that the client is sent until its stream is closed."""
    client.close()
    return b"".join([piece async for piece in client.events()]).decode()


def values(text: str) -> list[int]:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


def test_a_client_gets_its_series_and_no_neighbour(feed: Feed) -> None:
    """A subscription is a prefix: what comes of `boiler-2` is not for who asked for `boiler`."""

    async def run() -> str:
        hub = feed.hub()
        client = hub.join(["boiler"])
        hub.receive("boiler", b"1")
        hub.receive("boiler-2", b"2")
        hub.receive("boiler", b"3")
        return await read(client)

    assert values(asyncio.run(run())) == [1, 3]
    assert feed.subscribed == ["boiler"]


def test_the_next_client_begins_with_the_history(feed: Feed) -> None:
    """The last of it, oldest first, bounded."""

    async def run() -> str:
        hub = feed.hub()
        hub.join(["a"])
        for i in range(stream.HISTORY_MAX + 5):
            hub.receive("a", b"%d" % i)
        return await read(hub.join(["a"]))

    assert values(asyncio.run(run())) == list(range(5, stream.HISTORY_MAX + 5))
    assert feed.subscribed == ["a"]


def test_a_slow_client_loses_the_oldest_and_is_told(feed: Feed) -> None:
    """Its queue is bounded; the others, and the feed, do not notice."""

    async def run() -> tuple[str, int]:
        hub = feed.hub()
        client = hub.join(["a"])
        for i in range(stream.QUEUE_MAX + 7):
            hub.receive("a", b"%d" % i)
        return await read(client), hub.dropped

    text, dropped = asyncio.run(run())
    assert values(text)[:-1] == list(range(7, stream.QUEUE_MAX + 7))
    assert text.endswith('event: dropped\ndata: {"dropped":7}\n\n')
    assert dropped == 7


def test_of_a_named_event_only_the_newest_is_sent(feed: Feed) -> None:
    """A report a second old is worth nothing beside a new one; one about another series is."""

    async def run() -> str:
        hub = feed.hub()
        client = hub.join(["a", "b"], board=True)
        for n in (1, 2):
            hub.show("overview", b"%d" % n)
            hub.show("series", b"%d" % (10 * n), "a")
        hub.show("series", b"99", "b")
        return await read(client)

    assert values(asyncio.run(run())) == [2, 20, 99]


def test_who_did_not_ask_for_the_board_is_not_sent_it(feed: Feed) -> None:
    """The stream of forecasts carries forecasts."""

    async def run() -> str:
        hub = feed.hub()
        client = hub.join(["a"])
        hub.show("overview", b"1")
        return await read(client)

    assert values(asyncio.run(run())) == []


def test_a_series_is_followed_a_while_after_its_last_client(feed: Feed) -> None:
    """So that a page loaded again finds its past; then the engine is relieved of it."""

    async def run() -> list[list[str]]:
        hub = feed.hub()
        one, two = hub.join(["a"]), hub.join(["a", "b"])
        hub.leave(one, 100.0)
        hub.leave(two, 200.0)
        seen = []
        for now in (200.0 + stream.LINGER_S, 200.1 + stream.LINGER_S):
            hub.tidy(now)
            seen.append(list(feed.subscribed))
        return seen

    assert asyncio.run(run()) == [["a", "b"], []]


def test_the_bounds_hold(feed: Feed) -> None:
    """On clients, on series a client, on series in all; who is refused leaves nothing behind."""

    async def run() -> None:
        hub = feed.hub()
        with pytest.raises(Full, match="at most"):
            hub.join([str(i) for i in range(stream.SERIES_PER_CLIENT_MAX + 1)])
        for i in range(stream.FOLLOWED_MAX // stream.SERIES_PER_CLIENT_MAX):
            hub.join([f"{i}/{k}" for k in range(stream.SERIES_PER_CLIENT_MAX)])
        with pytest.raises(Full, match="series are being streamed"):
            hub.join(["one more"])
        assert len(feed.subscribed) == stream.FOLLOWED_MAX
        while len(hub.clients) < stream.CLIENTS_MAX:
            hub.join(["0/0"])
        with pytest.raises(Full, match="streams are open"):
            hub.join(["0/0"])

    asyncio.run(run())


def test_what_nobody_watches_makes_room(feed: Feed) -> None:
    """The one left longest ago goes first, and never one that is asked for now."""

    async def run() -> None:
        hub = feed.hub()
        for i in range(stream.FOLLOWED_MAX):
            hub.leave(hub.join([str(i)]), float(i))
        hub.leave(hub.join(["0"]), 1e6)
        hub.join(["new"])
        assert "1" not in feed.subscribed
        hub.join(["2", "newer"])

    asyncio.run(run())
    assert "3" not in feed.subscribed
    assert {"0", "2", "new", "newer"} <= set(feed.subscribed)
    assert len(feed.subscribed) == stream.FOLLOWED_MAX


def test_an_event_is_one_line_of_data() -> None:
    """A line break inside would end it, and begin something else."""
    assert event(b'{"a":\r\n1}', "kind") == b'event: kind\ndata: {"a":  1}\n\n'


def test_a_silent_stream_is_kept_alive(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment now and then, so that either side notices when the other is gone."""
    monkeypatch.setattr(stream, "PING_S", 0.01)

    async def run() -> list[bytes]:
        events = feed.hub().join(["a"]).events()
        return [await anext(events) for _ in range(3)]

    assert asyncio.run(run())[1:] == [b": still here\n\n"] * 2

"""What the processes that show forecasts subscribe with, against the engine's own socket."""

from __future__ import annotations

import os

import pytest
import zmq

from forecastd.daemon.endpoint import parse
from forecastd.daemon.errors import Misuse
from forecastd.daemon.publisher import Publisher
from forecastd.daemon.subscriber import Subscriber

from .patience import until


def test_it_gets_what_it_asked_for() -> None:
    """In order, without waiting, and no more of what it no longer wants."""
    context: zmq.SyncContext = zmq.Context()
    publish = Publisher(context, parse("tcp://127.0.0.1:0", ("publish",)), None)
    subscriber = Subscriber(publish.address, "a")
    try:
        assert subscriber.receive() is None
        until(lambda: (publish.listen(), publish.topic("a"))[1])
        for n in range(3):
            publish.send(b"a", b"%d" % n)
            publish.send(b"b", b"%d" % n)
        got: list[list[bytes]] = []
        until(lambda: (subscriber.wait(0.01), got.extend(subscriber), len(got) == 3)[2])
        assert got == [[b"a", b"0"], [b"a", b"1"], [b"a", b"2"]]
        assert not subscriber.wait(0.0)
        subscriber.subscribe(b"b")
        subscriber.unsubscribe("a")
        until(lambda: (publish.listen(), publish.prefixes == {b"b"})[1])
        assert os.fstat(subscriber.fileno())
    finally:
        subscriber.close()
        publish.close()
        context.destroy(0)


def test_what_is_wrong_with_an_endpoint_is_said_in_one_line() -> None:
    """As a wrong usage."""
    with pytest.raises(Misuse, match="write tcp://HOST:PORT"):
        Subscriber("127.0.0.1:5556")

"""The client under asyncio: what would block is awaited, and the loop runs on meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import msgspec
import pytest
import zmq

from forecastd.producers.async_client import AsyncProducer
from forecastd.producers.outbox import WindowFull


class Daemon:
    """A ROUTER that acknowledges what it gets, unless it is told to hold."""

    def __init__(self) -> None:
        self._pause = threading.Event()
        self._paused = threading.Event()
        self.numbers: list[int] = []
        self._stopping = False
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self.endpoint = f"tcp://127.0.0.1:{self._socket.bind_to_random_port('tcp://127.0.0.1')}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping:
            if self._pause.is_set():
                self._paused.set()
                time.sleep(0.001)
            elif self._socket.poll(5):
                peer, head, *_ = self._socket.recv_multipart()
                said = msgspec.json.decode(head)
                self.numbers += range(said["seq"], said["seq"] + said.get("n", 1))
                self._socket.send_multipart([peer, b'{"ack": %d}' % self.numbers[-1]])

    def hold(self) -> None:
        """Neither takes nor acknowledges anything from now on."""
        self._paused.clear()
        self._pause.set()
        assert self._paused.wait(20)

    def go_on(self) -> None:
        self._pause.clear()

    def stop(self) -> None:
        self._stopping = True
        self._thread.join()
        self._context.destroy(linger=0)


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    daemon = Daemon()
    yield daemon
    daemon.stop()


def test_samples_are_sent_and_flushed(daemon: Daemon) -> None:
    async def main() -> None:
        async with AsyncProducer(daemon.endpoint, window=100) as producer:
            for k in range(1000):
                await producer.send("a", k, float(k))
            await producer.send_columns(["a", "b"], [1, 2], 1.0)
            await producer.send_columns("a", range(500), range(500))
            assert await producer.flush(20)
            assert producer.stats().acked == 1502
            assert producer.name

    asyncio.run(main())
    assert daemon.numbers == list(range(1, 1503))


def test_the_loop_runs_on_while_senders_wait_for_room(daemon: Daemon) -> None:
    async def main() -> None:
        async with AsyncProducer(daemon.endpoint, window=10) as producer:
            daemon.hold()
            senders = [asyncio.create_task(producer.send("a", k)) for k in range(50)]
            columns = asyncio.create_task(producer.send_columns("a", range(50), range(50)))
            while producer.stats().waiting < 10:
                await asyncio.sleep(0)
            assert not await producer.flush(0.05)
            assert sum(sender.done() for sender in senders) == 10
            assert not columns.done()
            daemon.go_on()
            await asyncio.wait_for(asyncio.gather(*senders, columns), 20)

    asyncio.run(main())
    assert daemon.numbers == list(range(1, 101))


def test_an_old_acknowledgement_does_not_keep_a_waiting_loop_busy(daemon: Daemon) -> None:
    async def main() -> None:
        async with AsyncProducer(daemon.endpoint) as producer:
            await producer.send("a", 1)
            assert await producer.flush(20)
            daemon.hold()
            await producer.send("a", 2)
            assert not await asyncio.wait_for(producer.flush(0.05), 20)
            daemon.go_on()

    asyncio.run(main())
    assert daemon.numbers == [1, 2]


def test_a_full_window_raises_where_that_was_chosen(daemon: Daemon) -> None:
    async def main() -> None:
        async with AsyncProducer(daemon.endpoint, window=10, when_full="raise") as producer:
            daemon.hold()
            await producer.send_columns("a", range(9), range(9))
            with pytest.raises(WindowFull):
                await producer.send_columns("a", range(2), range(2))
            await producer.send("a", 9)
            with pytest.raises(WindowFull):
                await producer.send("a", 10)
            daemon.go_on()
            assert await producer.close()
            with pytest.raises(ValueError, match="closed"):
                await producer.send("a", 11)

    asyncio.run(main())
    assert daemon.numbers == list(range(1, 11))


def test_a_cancelled_sender_leaves_the_others_their_turn(daemon: Daemon) -> None:
    async def main() -> None:
        async with AsyncProducer(daemon.endpoint, window=2) as producer:
            daemon.hold()
            senders = [asyncio.create_task(producer.send("a", k)) for k in range(6)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            senders[2].cancel()
            daemon.go_on()
            await asyncio.wait_for(asyncio.gather(*senders, return_exceptions=True), 20)
            assert senders[2].cancelled() and sum(sender.cancelled() for sender in senders) == 1

    asyncio.run(main())
    assert daemon.numbers == list(range(1, 6))

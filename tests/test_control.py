"""Orders reach a daemon through its state folder, from its owner alone, and are answered."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import zmq

from forecastd.daemon.control import NAME, PEER, WAITING_MAX, Control, Order, Told, Unanswered, _connected, ask


@contextmanager
def daemon(folder: Path) -> Iterator[Control]:
    context: zmq.SyncContext = zmq.Context()
    control = Control(folder, context)
    try:
        yield control
    finally:
        control.close()
        context.term()


def take(control: Control) -> tuple[bytes, Order, bytes]:
    assert control.socket.poll(10_000)
    asked = control.receive()
    assert asked is not None
    return asked


@contextmanager
def asking(folder: Path, order: Order, body: bytes = b"") -> Iterator[list[Told]]:
    """Asks in another thread; what it was told is in the list afterwards."""
    told: list[Told] = []
    thread = threading.Thread(target=lambda: told.append(ask(folder, order, body, 10.0)))
    thread.start()
    yield told
    thread.join(20)


def test_an_order_and_its_file_arrive_and_the_answer_leaves_when_it_may(tmp_path: Path) -> None:
    with daemon(tmp_path) as control, asking(tmp_path, Order("import", promote=True), b"file") as told:
        peer, order, body = take(control)
        assert (order, body) == (Order("import", promote=True), b"file")
        reply = control.later(peer, Told("version 2 serves", number=2))
        assert reply.peer == PEER and told == []
        control.answer(reply)
    assert told == [Told("version 2 serves", number=2)]


def test_each_one_gets_the_answer_to_his_own_order(tmp_path: Path) -> None:
    with daemon(tmp_path) as control:
        with asking(tmp_path, Order("promote", number=1)) as one, asking(tmp_path, Order("promote", number=2)) as two:
            asked = [take(control) for _ in range(2)]
            replies = [control.later(peer, Told(str(order.number))) for peer, order, _ in asked]
            for reply in reversed(replies):
                control.answer(reply)
        assert (one, two) == ([Told("1")], [Told("2")])


@pytest.mark.parametrize("frames", [[], [b""], [b"{"], [b'{"do": "rm -rf"}'], [b'{"do": "promote", "number": "x"}']])
def test_what_is_no_order_is_answered_so_and_nothing_else_happens(tmp_path: Path, frames: list[bytes]) -> None:
    with daemon(tmp_path) as control, _connected(tmp_path) as peer:
        peer.send_multipart([*frames] or [b""])
        assert control.socket.poll(10_000)
        assert control.receive() is None
        assert peer.poll(10_000)
        assert "no order" in msgspec.json.decode(peer.recv(), type=Told).error


def test_the_socket_is_its_owners_alone_and_takes_the_place_of_one_left_behind(tmp_path: Path) -> None:
    """As after kill -9."""
    (tmp_path / NAME).write_text("left behind")
    with daemon(tmp_path) as control, asking(tmp_path, Order("rollback")) as told:
        assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
        peer, _, _ = take(control)
        control.send(peer, Told("done"))
    assert told == [Told("done")]


def test_a_path_too_long_for_a_socket_is_reached_by_way_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    assert len(os.fsencode(folder)) > 107
    with daemon(folder) as control, asking(folder, Order("rollback")) as told:
        peer, _, _ = take(control)
        control.send(peer, Told("done"))
    assert told == [Told("done")]


def test_a_daemon_that_does_not_answer_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    with daemon(tmp_path), pytest.raises(Unanswered, match="does not answer"):
        ask(tmp_path, Order("rollback"), within_s=0.05)


def test_orders_that_wait_for_the_disk_are_bounded_and_the_oldest_forgotten(tmp_path: Path) -> None:
    with daemon(tmp_path) as control, _connected(tmp_path) as peer:
        peer.send(msgspec.json.encode(Order("rollback")))
        asked, _, _ = take(control)
        first, *rest = [control.later(asked, Told(str(number))) for number in range(WAITING_MAX + 1)]
        control.answer(first)
        assert not peer.poll(100)
        control.answer(rest[0])
        assert peer.poll(10_000)
        assert msgspec.json.decode(peer.recv(), type=Told) == Told("1")


def test_a_folder_in_which_no_socket_can_be_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    context: zmq.SyncContext = zmq.Context()
    with pytest.raises(OSError, match="no orders can be taken"):
        Control(tmp_path, context)
    context.term()

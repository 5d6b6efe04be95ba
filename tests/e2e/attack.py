"""python -m forecastd.tests.e2e.attack WHAT WHERE [KEY]: one who means ill, as a process of his own, until he is ended
or has done it. He says `begun` once he is at it, and `done`."""

from __future__ import annotations

import json
import socket
import sys
import time

import zmq


def connected(where: str, kind: int = zmq.DEALER) -> zmq.SyncSocket:
    peer = zmq.Context.instance().socket(kind)
    peer.linger, peer.sndtimeo = -1, 60_000
    peer.connect(where)
    return peer


def names(where: str, _: str) -> None:
    """A million series."""
    peer = connected(where)
    for start in range(0, 1_000_000, 1_000):
        peer.send_json([{"series": f"bomb {n}", "value": 1, "producer": "bomber"} for n in range(start, start + 1_000)])
    peer.send_json({"series": "bomb 1000000", "value": 1, "producer": "bomber"})


def frames(where: str, _: str) -> None:
    """Messages of 2,000 frames of 65 kB."""
    peer = connected(where)
    for _n in range(5):
        peer.send_multipart([b"x" * 65_000] * 2_000)


def brackets(where: str, _: str) -> None:
    """JSON that is nested too deeply, five hundred times."""
    peer = connected(where)
    nested = b"[" * 100_000 + b"]" * 100_000
    for _n in range(500):
        peer.send(nested)


def junk(where: str, _: str) -> None:
    """Two hundred thousand messages that are no samples."""
    peer = connected(where)
    for _n in range(200_000):
        peer.send(b"junk")


def idle(where: str, _: str) -> None:
    """Five hundred connections that say nothing."""
    host, _, port = where.rpartition("//")[2].partition(":")
    held = [socket.create_connection((host, int(port)), 20) for _n in range(500)]
    time.sleep(3)
    del held


def strangers(where: str, key: str) -> None:
    """Peers without a key, with one nobody knows, and with another daemon's: sixty of each, that come again and
    again."""
    peers = []
    for n in range(180):
        peer = zmq.Context.instance().socket(zmq.DEALER)
        peer.linger, peer.reconnect_ivl = 0, 50
        if n % 3:
            peer.curve_publickey, peer.curve_secretkey = zmq.curve_keypair()
            peer.curve_serverkey = key.encode() if n % 3 == 1 else zmq.curve_keypair()[0]
        peer.connect(where)
        peer.send(json.dumps({"series": "intruder", "value": n}).encode())
        peers.append(peer)
    time.sleep(3)
    zmq.Context.instance().destroy(0)


if __name__ == "__main__":
    what, where = sys.argv[1:3]
    print("begun", flush=True)
    globals()[what](where, sys.argv[3] if len(sys.argv) > 3 else "")
    if what != "strangers":
        zmq.Context.instance().term()
    print("done", flush=True)

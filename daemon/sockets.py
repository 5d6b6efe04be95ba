"""ZeroMQ sockets as the daemon opens them: they notice a peer that has gone, and let in whom they are told to."""

from __future__ import annotations

from typing import NamedTuple

import zmq

from ..producers.key import Curve
from .endpoint import Endpoint
from .zap import Doorkeeper

#: Forecasts kept for one subscriber; a slower one loses some, and nobody else does. More than two full batches.
PUBLISH_MESSAGES_MAX = 50_000
#: How long a connection may stay silent before the peer's kernel is asked whether it is there, how often it is asked,
#: and how long its answers, or those to what was sent, may take in all. ZeroMQ's own heartbeats end the process
#: (zeromq/libzmq#4364) when one is due for a peer that has gone while its messages still wait.
KEEPALIVE_S, KEEPALIVES, SILENCE_MS = 5, 2, 15_000
HANDSHAKE_MS = 5_000
#: How long what was sent may stay on its way when the daemon ends.
LINGER_MS = 1_000

_KINDS = {"router": zmq.ROUTER, "pull": zmq.PULL, "sub": zmq.SUB, "publish": zmq.XPUB, "board": zmq.XPUB}


class EndpointError(Exception):
    """An endpoint cannot be bound; the text names it and says why."""


class Lock(NamedTuple):
    """What makes a socket let in authorised keys alone: the daemon's secret key, and who is asked."""

    secret: bytes
    doorkeeper: Doorkeeper

    def on(self, socket: zmq.SyncSocket, domain: str) -> None:
        socket.curve_server = True
        socket.curve_secretkey = self.secret
        socket.zap_domain = domain.encode()
        # Without this, everybody is let in while the doorkeeper is away.
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


def open_socket(context: zmq.SyncContext, endpoint: Endpoint) -> zmq.SyncSocket:
    """A socket of the endpoint's kind that notices a peer that has gone; neither bound nor connected."""
    socket = context.socket(_KINDS[endpoint.kind])
    socket.linger = LINGER_MS
    socket.tcp_keepalive, socket.tcp_keepalive_cnt = 1, KEEPALIVES
    socket.tcp_keepalive_idle = socket.tcp_keepalive_intvl = KEEPALIVE_S
    socket.tcp_maxrt = SILENCE_MS
    socket.handshake_ivl = HANDSHAKE_MS
    socket.backlog = 1_024
    if "[" in endpoint.address:
        socket.ipv6 = 1
    return socket


def attach(socket: zmq.SyncSocket, endpoint: Endpoint) -> str:
    """Binds or connects the socket; the address really bound."""
    try:
        (socket.connect if endpoint.connect else socket.bind)(endpoint.address)
    except zmq.ZMQError as error:
        raise EndpointError(f"{endpoint.address}: {zmq.strerror(error.errno or 0).lower()}") from None
    return endpoint.address if endpoint.connect else socket.get_string(zmq.LAST_ENDPOINT).rstrip("\0")


def new_pair() -> tuple[str, str]:
    """A new public and secret key."""
    made, secret = zmq.curve_keypair()
    return made.decode(), secret.decode()


def house_curve(secret: str) -> Curve:
    """With what a process of the daemon itself connects to the daemon whose secret key this is."""
    return Curve(secret.encode(), zmq.curve_public(secret.encode()))

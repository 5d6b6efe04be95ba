"""Endpoints as they are written in the configuration: `[router+|pull+|sub+][connect+]ADDRESS`."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import NamedTuple

KINDS = ("router", "pull", "sub")
_TCP = re.compile(r"tcp://(?P<host>\*|[^:/\[\]\s]+|\[[0-9A-Fa-f:.%]+\]):(?P<port>\*|\d{1,5})\Z")
_HOST_PORT = re.compile(r"(?P<host>[^:/\[\]\s]+|\[[0-9A-Fa-f:.%]+\])?:(?P<port>\d{1,5})\Z")


class Endpoint(NamedTuple):
    """`kind` of socket, `address` as ZeroMQ takes it, and whether the daemon connects to it instead of binding it."""

    kind: str
    address: str
    connect: bool = False

    @property
    def label(self) -> str:
        return f"{self.kind} {self.address}"


def parse(text: str, kinds: tuple[str, ...] = KINDS) -> Endpoint:
    """The endpoint that `text` names; the first of `kinds` if it names no kind. ValueError says what is wrong with
    it."""
    kind, connect, address = kinds[0], False, text
    head, separator, rest = address.partition("+")
    if separator and "://" not in head and head != "connect":
        if head not in kinds:
            raise ValueError(f"{text!r}: no socket kind {head!r}; there is {', '.join(kinds)}")
        kind, address = head, rest
    if address.startswith("connect+"):
        connect, address = True, address.removeprefix("connect+")
    return Endpoint(kind, check(address), connect)


def check(address: str) -> str:
    """The address, made ready for ZeroMQ; ValueError when it is none."""
    if address.startswith("ipc://") and len(address) > len("ipc://"):
        return address
    match = _TCP.match(address)
    if not match:
        raise ValueError(f"{address!r} is no endpoint; write tcp://HOST:PORT or ipc://PATH")
    host, port = match["host"], match["port"]
    if port != "*" and int(port) > 65535:
        raise ValueError(f"{address!r}: a port is a number up to 65535 (0: any free one)")
    # ZeroMQ binds to numbers and interface names only.
    host = "127.0.0.1" if host == "localhost" else host
    return f"tcp://{host}:{'*' if port == '0' else port}"


def host_port(text: str) -> tuple[str, int]:
    """Host and port out of `HOST:PORT` or `[HOST]:PORT`, this machine if there is no host; ValueError when it is
    none."""
    match = _HOST_PORT.match(text)
    if not match or int(match["port"]) > 65535:
        raise ValueError(f"{text!r} is no HOST:PORT; write 127.0.0.1:9595, or 127.0.0.1:0 for any free port")
    return (match["host"] or "127.0.0.1").strip("[]"), int(match["port"])


def reachable(address: str) -> str:
    """Where a process of this machine connects to reach what is bound at `address`."""
    return address.replace("tcp://0.0.0.0:", "tcp://127.0.0.1:").replace("tcp://[::]:", "tcp://[::1]:")


def taken(host: str, port: int) -> str | None:
    """Who keeps `host`:`port` from being bound, as text; None when it is free, or when only ZeroMQ can tell."""
    if not port:
        return None
    host = {"*": "0.0.0.0", "localhost": "127.0.0.1"}.get(host, host)  # noqa: S104 - asked, not bound
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0]
    except OSError:
        return None
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As ZeroMQ and uvicorn do: connections of a daemon that has just ended do not hold the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(where)
        except PermissionError:
            return "this user may not bind it"
        except OSError as error:
            holder = _holder(port)
            return f"taken by {holder}" if holder else (error.strerror or "cannot be bound").lower()
    return None


def tcp(address: str) -> tuple[str, int] | None:
    """Host and port of a tcp address; None for another transport or a wildcard port."""
    match = _TCP.match(address)
    return (match["host"].strip("[]"), int(match["port"])) if match and match["port"] != "*" else None


def _holder(port: int) -> str | None:
    """The process that listens on `port`, as `name (pid n)`, where the kernel shows it to this user."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
        except OSError:
            continue
        inodes |= {
            f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port
        }
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(link) in inodes for link in (folder / "fd").iterdir()):
                return f"{(folder / 'comm').read_text().strip()} (pid {folder.name})"
        except OSError:
            continue
    return None

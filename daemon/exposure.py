"""What of the daemon can be reached from other machines, and whether anybody is asked for a key or a token there."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from .endpoint import host_port, parse, tcp
from .errors import Misuse
from .settings import Settings

#: Under which names a daemon on loopback may be asked for its page; a page of another site could otherwise have its own
#: name point here, and read what is meant for this machine.
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


def check(settings: Settings) -> None:
    """Misuse, in one line, for sockets that are open to other machines while nobody is asked who he is."""
    if settings.insecure:
        return
    for what in _open(settings):
        raise Misuse(f"{what}; --insecure does it all the same")


def _open(settings: Settings) -> Iterator[str]:
    for endpoint in (*(parse(text) for text in settings.ingest), parse(settings.publish, ("publish",))):
        if endpoint.connect:
            if settings.key:
                yield f"{endpoint.address}: a socket that connects asks nobody for a key"
        elif not settings.key and not local(endpoint.address):
            yield (
                f"{endpoint.address} is open to other machines, and nobody is asked for a key: "
                "`forecastd keys new daemon`, and give --key and --clients"
            )
    if (
        settings.web
        and not (settings.web_token or settings.web_certificate)
        and not loopback(host_port(settings.web)[0])
    ):
        yield f"http://{settings.web} is open to other machines, and nobody is asked for a token: give --web-token FILE"


def local(address: str) -> bool:
    """Whether only this machine reaches what is bound at an address of ZeroMQ."""
    if address.startswith("ipc://"):
        return True
    place = tcp(address.replace(":*", ":0"))
    return place is not None and (place[0] == "lo" or loopback(place[0]))


def loopback(host: str) -> bool:
    """Whether a host is this machine and nothing else. What is no number and not `localhost` is not trusted to be."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def names(settings: Settings) -> list[str]:
    """The names under which the page may be asked for; empty for any."""
    if loopback(host_port(settings.web)[0]) or settings.web_hosts:
        return [*LOOPBACK_NAMES, *settings.web_hosts]
    return []

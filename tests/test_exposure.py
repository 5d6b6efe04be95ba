"""A socket that other machines can reach asks for a key, or the daemon does not start."""

from __future__ import annotations

from typing import Any

import pytest

from forecastd.daemon import exposure
from forecastd.daemon.errors import Misuse
from forecastd.daemon.settings import Settings

KEYED = {"key": "daemon.key", "clients": "clients.toml"}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ingest": ("tcp://127.0.0.2:1", "pull+tcp://[::1]:0", "tcp://localhost:*", "ipc:///run/in", "tcp://lo:5")},
        {"ingest": ("sub+connect+tcp://plant.example:5",)},
        {"web": "localhost:0"},
        {"web": "[::1]:9595"},
        {"web": ""},
        {"ingest": ("tcp://0.0.0.0:0",), "publish": "tcp://*:0", **KEYED},
        {"web": "0.0.0.0:0", "web_token": "token"},
        {"web": "0.0.0.0:0", "web_certificate": "c", "web_key": "k"},
        {
            "ingest": ("tcp://*:5", "sub+connect+tcp://a:5"),
            "publish": "tcp://*:6",
            "web": "0.0.0.0:7",
            "insecure": True,
        },
    ],
)
def test_what_is_not_open_or_asks_for_keys_may_start(settings: dict[str, Any]) -> None:
    exposure.check(Settings(**settings))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ingest": ("tcp://127.0.0.1:0", "pull+tcp://0.0.0.0:5557")}, "tcp://0.0.0.0:5557 is open to other machines"),
        ({"ingest": ("tcp://*:0",)}, "give --key and --clients"),
        ({"ingest": ("tcp://eth0:5555",)}, "tcp://eth0:5555 is open"),
        ({"ingest": ("tcp://10.0.0.7:5555",)}, "forecastd keys new daemon"),
        ({"publish": "tcp://[::]:0"}, "tcp://[::]:* is open"),
        ({"web": "0.0.0.0:9595"}, "give --web-token FILE"),
        ({"web": "myhost:9595"}, "http://myhost:9595 is open"),
        ({"ingest": ("tcp://*:0",), "publish": "tcp://*:0", "web": "0.0.0.0:0", **KEYED}, "--web-token"),
        ({"ingest": ("tcp://*:0",), "web": "0.0.0.0:0", "web_token": "t"}, "--key and --clients"),
        ({"ingest": ("sub+connect+tcp://plant.example:5",), **KEYED}, "a socket that connects asks nobody for a key"),
    ],
)
def test_what_is_open_and_asks_nobody_is_refused_in_a_line(settings: dict[str, Any], said: str) -> None:
    """Each socket for itself; the line ends with the way around it."""
    with pytest.raises(Misuse) as caught:
        exposure.check(Settings(**settings))
    assert said in caught.value.message and "\n" not in caught.value.message
    assert caught.value.message.endswith("; --insecure does it all the same")


def test_the_page_has_names_where_it_can_have_them() -> None:
    """On loopback its own, elsewhere those that were set; else any."""
    assert exposure.names(Settings()) == ["localhost", "127.0.0.1", "[::1]"]
    assert exposure.names(Settings(web="0.0.0.0:0")) == []
    assert exposure.names(Settings(web="0.0.0.0:0", web_hosts=("a.example",)))[-1] == "a.example"

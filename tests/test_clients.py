"""The list of clients: who may do what, and that a list which is not in order is refused as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from forecastd.daemon import clients
from forecastd.daemon.clients import KNOWN_MAX, Client, Clients, Entry
from forecastd.producers.key import BadKey

from .keyring import Keyring


@pytest.fixture
def keys(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path)


@pytest.mark.parametrize(
    ("patterns", "yes", "no"),
    [
        (("boiler",), ["boiler"], ["boiler.2", "a.boiler", "Boiler", "boiler\n"]),
        (("boiler*",), ["boiler", "boiler.2"], ["a.boiler"]),
        (("plant-?.x", "[ab]c"), ["plant-7.x", "ac"], ["plant-77.x", "plant-7yx", "cc"]),
        (("*",), ["anything", ""], []),
        ((), [], ["anything", ""]),
    ],
)
def test_patterns_are_those_of_a_shell(patterns: tuple[str, ...], yes: list[str], no: list[str]) -> None:
    """The whole name, letters as they are written; asked twice, since answers are kept."""
    client = Client(Entry(producer="p", key="k", series=patterns))
    for _ in range(2):
        assert [name for name in yes if not client.may_send(name)] == []
        assert [name for name in no if client.may_send(name)] == []


def test_the_answers_kept_are_bounded() -> None:
    client = Client(Entry(producer="p", key="k", series=("a*",)))
    for n in range(KNOWN_MAX + 10):
        client.may_send(f"a{n}")
    assert len(client._known) <= KNOWN_MAX


def test_each_key_enters_where_it_has_something_to_do(keys: Keyring) -> None:
    """The daemon's own where forecasts and scoreboards leave, and never where samples arrive."""
    admitted = Clients([keys.entry("plc", "*"), keys.entry("desk", watch=True)], keys.public("daemon"))
    domains = ("ingest", "publish", "board", "elsewhere", "")
    entered = {
        name: [domain for domain in domains if admitted.may_enter(keys.public(name), domain)]
        for name in ("plc", "desk", "daemon", "stranger")
    }
    assert entered == {"plc": ["ingest"], "desk": ["publish"], "daemon": ["publish", "board"], "stranger": []}
    assert not Clients([]).may_enter("", "publish"), "no key is nobody's"


def test_a_file_and_a_folder_are_read(keys: Keyring, tmp_path: Path) -> None:
    """A folder's *.toml together, in the order of their names."""
    entries = [keys.entry("plc", "boiler*", "pump"), keys.entry("desk", watch=True)]
    assert clients.read(keys.write(*entries)) == entries
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, entry in zip("ba", entries, strict=True):
        (tmp_path / "clients.toml").unlink()
        Path(keys.write(entry)).rename(folder / f"{name}.toml")
        (tmp_path / "clients.toml").touch()
    (folder / "README").write_text("not a list")
    assert clients.read(str(folder)) == entries[::-1]


KEY = "k" * 40


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[client]", "this is not TOML"),
        ("[[clients]]\n", "unknown field clients"),
        (f"[[client]]\nkey = '{KEY}'\nseries = ['*']\n", "missing required field producer"),
        ("[[client]]\nproducer = 'a'\nkey = 'short'\nseries = ['*']\n", "the key of 'a' is no public key"),
        (f"[[client]]\nproducer = 'a'\nkey = '{KEY}'\n", "'a' may do nothing"),
        (f"[[client]]\nproducer = 'a'\nkey = '{KEY}'\nseries = '*'\n", "Expected array, got str"),
        (f"[[client]]\nproducer = 'a'\nkey = '{KEY}'\nserie = ['*']\n", "unknown field serie"),
        (f'[[client]]\nproducer = "a\\u0000"\nkey = "{KEY}"\nwatch = true\n', "no name of printable characters"),
        (f"[[client]]\nproducer = ''\nkey = '{KEY}'\nwatch = true\n", "length >= 1"),
        ("".join(f"[[client]]\nproducer = '{n}'\nkey = '{KEY}'\nwatch = true\n" for n in "ab"), "the same key"),
    ],
)
def test_a_list_that_is_not_in_order_is_one_line_that_names_the_file(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "clients.toml"
    file.write_text(text)
    with pytest.raises(BadKey) as caught:
        clients.read(str(file))
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)


def test_a_list_that_others_can_write_is_refused(keys: Keyring) -> None:
    """Who can write it can let himself in."""
    path = keys.write(keys.entry("plc", "*"))
    Path(path).chmod(0o664)
    with pytest.raises(BadKey, match=f"{path} can be written by others: chmod go-w {path}"):
        clients.read(path)

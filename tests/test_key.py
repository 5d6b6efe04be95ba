"""Key files: what is in them, who may read them, and that what is wrong is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from forecastd.daemon.cli import main
from forecastd.producers import key
from forecastd.producers.key import BadKey

from .keyring import Keyring


@pytest.fixture
def keys(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o620, 0o601])
def test_a_secret_that_others_can_read_is_refused_with_the_chmod_to_do(keys: Keyring, mode: int) -> None:
    path = Path(keys.path("plc"))
    path.chmod(mode)
    with pytest.raises(BadKey) as caught:
        key.read(path)
    assert str(caught.value) == f"{path} can be read by others: chmod 600 {path}"
    path.chmod(0o400)
    assert key.read(path).secret == keys.pair("plc")[1]


def test_a_link_to_a_secret_is_as_private_as_what_it_leads_to(keys: Keyring, tmp_path: Path) -> None:
    """As Kubernetes mounts them; the link's own mode says nothing."""
    link = tmp_path / "link"
    link.symlink_to(keys.path("plc"))
    assert key.read(link).name == "plc"
    Path(keys.path("plc")).chmod(0o644)
    with pytest.raises(BadKey, match="can be read by others"):
        key.read(link)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "this is no key file"),
        ("not TOML", "this is no key file"),
        ('name = "a"\npublic = "x"\n', "there is no secret key in it"),
        ('name = "a"\npublic = "x"\nsecret = "' + "x" * 39 + '"\n', "there is no secret key in it"),
        ('name = "a"\npublic = "x"\nsecret = 7\n', "this is no key file"),
        ("\0\xff", "this is no"),
    ],
)
def test_a_file_without_a_key_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "file"
    path.touch(0o600)
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadKey, match=said) as caught:
        key.read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_public_key_is_given_as_it_is_or_as_its_file(keys: Keyring) -> None:
    public = keys.public("daemon")
    assert key.public(public) == public
    assert key.public(keys.path("daemon")) == public
    with pytest.raises(BadKey, match="no such file"):
        key.public("nowhere.pub")


def test_one_key_without_the_other_is_an_error(keys: Keyring) -> None:
    assert key.curve(None, None) is None
    with pytest.raises(BadKey, match="the server's public key"):
        key.curve(keys.path("plc"), None)
    with pytest.raises(BadKey, match="the client's own key"):
        key.curve(None, keys.public("daemon"))


def test_no_secret_is_shown(keys: Keyring) -> None:
    """Not even where a key lands in a log by mistake."""
    assert keys.pair("plc")[1] not in repr(key.read(keys.path("plc")))


# ---- the command


def test_new_makes_a_pair_for_its_owner_alone(tmp_path: Path) -> None:
    """Modes 0700, 0600, 0644, whatever the umask; the lines for the daemon's clients are printed, the secret is not."""
    folder = tmp_path / "keys"
    result = CliRunner().invoke(main, ["keys", "new", "plc-7", "--dir", str(folder)])
    assert result.exit_code == 0, result.output
    closed, open_ = folder / "plc-7.key", folder / "plc-7.pub"
    assert [path.stat().st_mode & 0o777 for path in (folder, closed, open_)] == [0o700, 0o600, 0o644]
    made = key.read(closed)
    assert made.name == "plc-7" and key.public(open_) == made.public
    assert f'producer = "plc-7"\nkey = "{made.public}"' in result.output
    assert made.secret not in result.output and made.secret not in open_.read_text()


@pytest.mark.parametrize("there", ["plc-7.key", "plc-7.pub"])
def test_new_never_overwrites(tmp_path: Path, there: str) -> None:
    """Neither file; nothing new is left."""
    (tmp_path / there).write_text("precious")
    result = CliRunner().invoke(main, ["keys", "new", "plc-7", "--dir", str(tmp_path)])
    assert result.exit_code == 1 and "there already" in result.output
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "precious"


@pytest.mark.parametrize("name", ["../plc", "a/b", "", ".hidden", "a\nb", '"', "x" * 300])
def test_new_refuses_what_is_no_name(tmp_path: Path, name: str) -> None:
    result = CliRunner().invoke(main, ["keys", "new", name, "--dir", str(tmp_path)])
    assert result.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_list_shows_what_is_there_and_what_is_wrong_with_it(tmp_path: Path) -> None:
    """Public keys, never secret ones; exit status 1 where a secret is none."""
    for name in ("daemon", "plc"):
        CliRunner().invoke(main, ["keys", "new", name, "--dir", str(tmp_path)])
    (tmp_path / "plc.key").rename(tmp_path / "gone")
    result = CliRunner().invoke(main, ["keys", "list", "--dir", str(tmp_path)])
    made = key.read(tmp_path / "daemon.key")
    assert result.output == f"daemon  {made.public}  secret\nplc  {key.public(tmp_path / 'plc.pub')}  public\n"
    (tmp_path / "daemon.key").chmod(0o644)
    result = CliRunner().invoke(main, ["keys", "list", "--dir", str(tmp_path)])
    assert result.exit_code == 1 and "chmod 600" in result.output


def test_every_command_of_keys_has_examples() -> None:
    for arguments in (["keys"], ["keys", "new"], ["keys", "list"]):
        assert "forecastd keys" in CliRunner().invoke(main, [*arguments, "--help"]).output.partition("Usage")[2][30:]

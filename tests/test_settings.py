"""Settings are declared once: the flags, the environment, the file, the help and the page all come from there and
agree."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from forecastd.daemon import configure
from forecastd.daemon.cli import main
from forecastd.daemon.options import Setting, declared, read, settings_of
from forecastd.daemon.settings import Group, Learning, Limits, Settings

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
EVERY = list(declared())


def invoke(*arguments: str, **environment: str) -> Result:
    clean = {name: None for name in os.environ if name.startswith("FORECASTD_")}
    return CliRunner().invoke(main, list(arguments), env={**clean, **environment})


def shown(*arguments: str, **environment: str) -> dict[str, tuple[Any, str]]:
    """What `config show` says: value and source by name."""
    result = invoke("config", "show", *arguments, **environment)
    assert result.exit_code == 0, result.stderr
    flat, table = {}, ""
    for line in filter(None, result.stdout.splitlines()):
        if line.startswith("["):
            table = line.strip("[]") + "."
            continue
        setting, _, source = line.rpartition("  # ")
        ((name, value),) = tomllib.loads(setting).items()
        flat[table + name] = (value, source)
    return flat


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "forecastd.toml"


# ---- declared once


@pytest.mark.parametrize("setting", EVERY, ids=lambda setting: setting.name)
def test_every_setting_is_described_and_has_a_flag_and_a_line_on_the_page(setting: Setting) -> None:
    """Whoever adds one need not think of this."""
    assert setting.description.endswith("."), "a sentence"
    assert f"`{setting.name}`" in PAGE.read_text()
    parameters = {parameter.name: parameter for parameter in main.get_command(None, "run").params}  # type: ignore[union-attr, arg-type]
    option = parameters[setting.key]
    assert setting.flag in option.opts
    assert option.envvar == setting.variable


def test_the_page_is_up_to_date() -> None:
    """`forecastd config page > docs/configuration.md` makes it."""
    assert PAGE.read_text() == configure.reference()


def test_nothing_is_declared_that_is_not_a_setting() -> None:
    """The names are the fields of the classes, in their order."""
    tables = {"learning": Learning, "limits": Limits}
    fields = [field for field in Settings.__struct_fields__ if field not in (*tables, "models")]
    for table, struct in tables.items():
        fields += [f"{table}.{name}" for name in struct.__struct_fields__]
    assert [setting.name for setting in EVERY] == fields


def bare(setting: Setting) -> str:
    """The flag of a setting that is true or false, as its default has it."""
    return setting.flag if setting.default else f"--no-{setting.flag[2:]}"


@pytest.mark.parametrize("setting", EVERY, ids=lambda setting: setting.name)
def test_every_default_can_be_said_as_a_flag_in_the_environment_and_in_the_file(setting: Setting, file: Path) -> None:
    """Each of the three reads what the defaults are, and says that it was the one."""
    as_text = ",".join(map(str, setting.default)) if isinstance(setting.default, tuple) else str(setting.default)
    flag = [setting.flag, as_text] if not isinstance(setting.default, bool) else [bare(setting)]
    table, _, name = setting.name.rpartition(".")
    file.write_text((f"[{table}]\n" if table else "") + f"{name} = {configure.toml(setting.default)}\n")
    default = list(setting.default) if isinstance(setting.default, tuple) else setting.default
    assert shown()[setting.name] == (default, "default")
    assert shown(*flag)[setting.name] == (default, "flag")
    if as_text:  # an empty variable is none
        assert shown(**{setting.variable: as_text})[setting.name] == (default, "environment")
    assert shown("--config", str(file))[setting.name] == (default, "forecastd.toml")


# ---- who wins


def test_flags_win_over_environment_over_file_over_defaults(file: Path) -> None:
    """Each for itself, at any depth."""
    file.write_text("horizon = 2\nlevel = 0.5\nmodel = 'sine'\n[limits]\nseries = 7\nframes = 8\n")
    found = shown(
        "-c", str(file), "--horizon", "4", "--limits-series", "9", FORECASTD_RUN_HORIZON="3", FORECASTD_RUN_LEVEL="0.6"
    )
    assert found["horizon"] == (4, "flag")
    assert found["level"] == (0.6, "environment")
    assert found["model"] == ("sine", "forecastd.toml")
    assert found["limits.series"] == (9, "flag")
    assert found["limits.frames"] == (8, "forecastd.toml")
    assert found["publish"] == (Settings().publish, "default")


def test_the_file_itself_may_be_named_in_the_environment(file: Path) -> None:
    """`FORECASTD_RUN_CONFIG`."""
    file.write_text("horizon = 5\n")
    assert shown(FORECASTD_RUN_CONFIG=str(file))["horizon"] == (5, "forecastd.toml")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--ingest", "tcp://127.0.0.1:1", "--ingest", "pull+tcp://127.0.0.1:2"],
        ["--ingest", "tcp://127.0.0.1:1,pull+tcp://127.0.0.1:2"],
    ],
)
def test_a_list_is_repeated_or_separated_by_commas(arguments: list[str]) -> None:
    """And in the environment by blanks or commas."""
    both = ["tcp://127.0.0.1:1", "pull+tcp://127.0.0.1:2"]
    assert shown(*arguments)["ingest"] == (both, "flag")
    for separator in (" ", ",", ", "):
        assert shown(FORECASTD_RUN_INGEST=separator.join(both))["ingest"] == (both, "environment")


def test_a_switch_can_be_turned_off_again() -> None:
    """`--no-ephemeral` wins over the environment."""
    assert shown(FORECASTD_RUN_EPHEMERAL="1")["ephemeral"] == (True, "environment")
    assert shown("--no-ephemeral", FORECASTD_RUN_EPHEMERAL="1")["ephemeral"] == (False, "flag")


def test_a_list_may_be_made_empty() -> None:
    """`--levels ''` is no level besides the published one."""
    assert shown("--levels", "")["levels"] == ([], "flag")


# ---- what is wrong is said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("horizon = 0", "horizon: expected int >= 1"),
        ("horizon = '1'", "horizon: expected int, got str"),
        ("level = 1.0", "level: expected float < 1.0"),
        ("horizn = 1", "there is no setting 'horizn' (did you mean 'horizon'?)"),
        ("[limits]\nserie = 1", "there is no setting 'limits.serie' (did you mean 'limits.series'?)"),
        ("[limits]\nseries = 0", "limits.series: expected int >= 1"),
        ("ingest = []", "ingest: expected array of length >= 1"),
        (
            "ingest = ['push+tcp://127.0.0.1:1']",
            "ingest: 'push+tcp://127.0.0.1:1': no socket kind 'push'; there is router, pull, sub",
        ),
        (
            "ingest = ['tcp://127.0.0.1']",
            "ingest: 'tcp://127.0.0.1' is no endpoint; write tcp://HOST:PORT or ipc://PATH",
        ),
        ("ingest = ['tcp://127.0.0.1:70000']", "a port is a number up to 65535"),
        ("publish = 'udp://127.0.0.1:1'", "publish: 'udp://127.0.0.1:1' is no endpoint"),
        ("web = '9595'", "web: '9595' is no HOST:PORT"),
        ("experts = ['naive', 'arr']", "experts: no expert is called 'arr' (did you mean 'ar'?)"),
        ("acks = 'later'", "acks: "),
        ("horizon = ", "this is not TOML: "),
    ],
)
def test_a_wrong_file_is_one_line_that_names_file_and_setting(text: str, said: str, file: Path) -> None:
    """Exit status 2, from `check` and from `run` alike, before anything is started."""
    file.write_text(text + "\n")
    for arguments in (["config", "check", str(file)], ["run", "--config", str(file)]):
        result = invoke(*arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith(f"Error: {file}: ")
        assert said in result.stderr
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["--horizon", "65"], {}, "'--horizon': 65 is not in the range 1<=x<=64"),
        (["--limits-series", "none"], {}, "'--limits-series': 'none' is not a valid integer"),
        ([], {"FORECASTD_RUN_LEVEL": "90"}, "'--level': 90.0 is not in the range"),
        (["--levels", "0.5,2"], {}, "'--levels': 2.0 is not in the range"),
        (["--acks", "later"], {}, "'--acks': 'later' is not one of"),
        (["--ingest", "nowhere"], {}, "ingest: 'nowhere' is no endpoint"),
        (["--config", "/nowhere.toml"], {}, "'/nowhere.toml' does not exist"),
    ],
)
def test_a_wrong_flag_or_variable_is_one_line(arguments: list[str], environment: dict[str, str], said: str) -> None:
    """Exit status 2."""
    result = invoke("run", *arguments, **environment)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


GROUPS = """
[[model]]
match = "boiler.*"
model = "sine"
[[model]]
match = "*"
model = "boiler.npz"
"""


def test_groups_of_series_with_models_of_their_own_are_tables_of_the_file(file: Path) -> None:
    """In their order; a flag beside them is about all other series."""
    file.write_text("horizon = 2\n" + GROUPS)
    settings = settings_of(read(str(file)))
    assert settings.models == (Group(match="boiler.*", model="sine"), Group(match="*", model="boiler.npz"))
    assert (settings.model, settings.horizon) == ("general", 2)
    told = invoke("config", "show", "--config", str(file), "--model", "sine").stdout
    assert '# model = "sine"  # flag' in told
    again = file.with_name("again.toml")
    again.write_text(told)
    assert settings_of(read(str(again))) == settings


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[model]]\nmatch = "a"', "model[0]"),
        ('[[model]]\nmatch = ""\nmodel = "sine"', "model[0].match"),
        ('[[model]]\nmatch = "a"\nmodel = "sine"\nunits = 3', "there is no setting"),
        ('model = "sine"\n[[model]]\nmatch = "a"\nmodel = "sine"', "this is not TOML"),
    ],
)
def test_a_wrong_group_is_one_line(text: str, said: str, file: Path) -> None:
    file.write_text(text)
    result = invoke("config", "check", str(file))
    assert result.exit_code == 2 and said in result.stderr and result.stderr.count("\n") == 1, result.stderr


def test_a_port_of_zero_and_localhost_are_made_ready_for_zeromq() -> None:
    """It binds to numbers only, and has a name of its own for any port."""
    from forecastd.daemon.endpoint import parse

    assert parse("pull+tcp://localhost:0").address == "tcp://127.0.0.1:*"
    assert parse("tcp://[::1]:5").address == "tcp://[::1]:5"
    assert parse("sub+connect+tcp://plant.example:5") == ("sub", "tcp://plant.example:5", True)


# ---- the file `init` writes


def test_the_file_init_writes_is_one_that_runs_and_changes_nothing(file: Path) -> None:
    """Every setting is there as a comment; without the marks it is the defaults."""
    assert invoke("config", "init", str(file)).exit_code == 0
    assert invoke("config", "check", str(file)).stdout == f"{file}: ok\n"
    assert settings_of(tomllib.loads(file.read_text())) == Settings()
    bare = "\n".join(line.removeprefix("# ") if " = " in line else line for line in file.read_text().splitlines())
    written = tomllib.loads(bare)
    assert msgspec.convert(written, Settings) == Settings()
    assert set(written) == set(Settings.__struct_fields__) - {"models"}
    assert set(written["limits"]) == set(Limits.__struct_fields__)


def test_init_does_not_overwrite_unless_it_is_told_to(file: Path) -> None:
    """Exit status 1, and the file as it was."""
    file.write_text("horizon = 5\n")
    result = invoke("config", "init", str(file))
    assert (result.exit_code, file.read_text()) == (1, "horizon = 5\n")
    assert result.stderr == f"Error: {file} is there already; --force overwrites it\n"
    assert invoke("config", "init", str(file), "--force").exit_code == 0
    assert "# horizon = 1" in file.read_text()


def test_init_says_where_it_cannot_write(tmp_path: Path) -> None:
    """One line."""
    result = invoke("config", "init", str(tmp_path / "no" / "file.toml"))
    assert result.exit_code == 1
    assert result.stderr.endswith("no such file or directory\n")


def test_show_is_a_file_that_run_would_take(file: Path) -> None:
    """What it prints, given back, gives the same settings."""
    result = invoke("config", "show", "--horizon", "12", "--experts", "naive,ar")
    file.write_text(result.stdout)
    assert {name: value for name, (value, _) in shown("-c", str(file)).items()} == {
        name: value for name, (value, _) in shown("--horizon", "12", "--experts", "naive,ar").items()
    }

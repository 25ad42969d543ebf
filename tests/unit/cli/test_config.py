"""config.toml: defaults for the options of all commands."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import click
import pytest

from conftest import RunThriftbit
from thriftbit.cli import commands
from thriftbit.cli.config import defaults_for, known_settings
from thriftbit.errors import ThriftbitError
from thriftbit.machine.configuration import own_folders, read_configuration


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings" / "config.toml"


def test_every_option_of_every_command_can_have_a_default() -> None:
    settings = known_settings(commands)
    for name, command in commands.commands.items():
        for option in command.params:
            if isinstance(option, click.Option) and option.name not in ("help", "version"):
                assert f"{name}.{max(option.opts, key=len).lstrip('-')}" in settings
    assert {"offline", "color", "quiet", "quantize.to", "chat.set", "fit.min-speed"} <= set(settings)


def test_what_is_set_counts_until_the_command_line_says_otherwise(
    run_thriftbit: RunThriftbit, tiny_llama: Path, file: Path, tmp_path: Path
) -> None:
    place = {"THRIFTBIT_CONFIG": str(file)}
    assert run_thriftbit("config", "set", "quantize.to", "Q8_0", **place).returncode == 0
    assert run_thriftbit("config", "set", "quantize.dry-run", "true", **place).returncode == 0
    document = json.loads(run_thriftbit("quantize", tiny_llama, "--json", **place).stdout)
    assert document["preset"] == "Q8_0" and document["written"] is False
    document = json.loads(run_thriftbit("quantize", tiny_llama, "--to", "Q4_0", "--json", **place).stdout)
    assert document["preset"] == "Q4_0"
    shown = run_thriftbit("config", **place).stdout
    assert str(file) in shown and "quantize.to" in shown and "Q8_0" in shown
    assert run_thriftbit("config", "unset", "quantize.to", **place).returncode == 0
    assert "quantize.to" not in run_thriftbit("config", **place).stdout
    if sys.platform != "win32":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_preset_by_default_gives_way_to_a_budget_and_a_plan(
    run_thriftbit: RunThriftbit, tiny_llama: Path, file: Path, tmp_path: Path
) -> None:
    place = {"THRIFTBIT_CONFIG": str(file)}
    dry = json.loads(run_thriftbit("quantize", tiny_llama, "--to", "Q6_K", "--dry-run", "--json").stdout)
    (tmp_path / "plan.json").write_text(json.dumps(dry["plan"]))
    run_thriftbit("config", "set", "quantize.to", "Q8_0", **place)
    done = run_thriftbit("quantize", tiny_llama, "--plan", tmp_path / "plan.json", "--dry-run", "--json", **place)
    assert json.loads(done.stdout)["size_bytes"] == dry["size_bytes"]
    run_thriftbit("config", "unset", "quantize.to", **place)
    run_thriftbit("config", "set", "quantize.size", "1MB", **place)
    done = run_thriftbit("quantize", tiny_llama, "--to", "Q6_K", "--dry-run", "--json", **place)
    assert json.loads(done.stdout)["preset"] == "Q6_K"


def test_one_setting_for_all_commands_and_another_for_one() -> None:
    document = {"offline": True, "color": "never", "chat": {"context": "16k", "set": ["temperature=0.2"], "threads": 2}}
    defaults = defaults_for(commands, document | {"library": {"folders": ["~/models"]}}, Path("config.toml"))
    assert defaults["fit"] == {"offline": True, "color": "never"}
    assert defaults["chat"]["context_tokens"] == "16k" and defaults["chat"]["assignments"] == ["temperature=0.2"]
    assert defaults["chat"]["threads"] == "2" and "threads" not in defaults["serve"]
    assert "offline" not in defaults["doctor"]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"chat": {"contxt": 1}}, r"no setting 'chat\.contxt'; do you mean chat\.context"),
        ({"ofline": True}, "no setting 'ofline'; do you mean offline"),
        ({"nonsense": {"x": 1}}, "no setting 'nonsense.x'"),
        ({"chat": {"context": "many"}}, r"chat\.context: 'many' is not a number of tokens"),
        ({"offline": "perhaps"}, "offline: 'perhaps' is not true or false"),
        ({"quantize": {"threads": 0}}, r"quantize\.threads: 0 is not in the range"),
        ({"quantize": {"threads": [1, 2]}}, r"quantize\.threads: \[1, 2\] is not one value"),
        ({"color": "red"}, "color: 'red' is not one of"),
    ],
)
def test_what_is_wrong_names_file_and_key(document: dict[str, object], message: str) -> None:
    with pytest.raises(ThriftbitError, match=rf"my/config\.toml: .*{message}"):
        defaults_for(commands, document, Path("my/config.toml"))


def test_a_wrong_file_is_told_by_every_command_and_can_be_mended(
    run_thriftbit: RunThriftbit, tiny_llama: Path, file: Path
) -> None:
    file.parent.mkdir()
    file.write_text("[chat]\ncontxt = 1  # a comment\n")
    place = {"THRIFTBIT_CONFIG": str(file)}
    wrong = run_thriftbit("inspect", tiny_llama, **place)
    assert wrong.returncode == 1 and wrong.stderr.startswith(f"error: {file}: there is no setting 'chat.contxt'")
    assert run_thriftbit("inspect", "--help", **place).returncode == 0
    assert "chat.contxt" in run_thriftbit("config", **place).stdout
    assert run_thriftbit("config", "unset", "chat.contxt", **place).returncode == 0
    assert run_thriftbit("inspect", tiny_llama, **place).returncode == 0
    file.write_text("[chat\n")
    assert "is not valid TOML" in run_thriftbit("inspect", tiny_llama, **place).stderr
    assert "is not valid TOML" in run_thriftbit("config", "set", "offline", "true", **place).stderr


def test_comments_and_folders_stay(run_thriftbit: RunThriftbit, file: Path) -> None:
    file.parent.mkdir()
    file.write_text('# mine\n[library]\nfolders = ["/data"]  # large\n')
    place = {"THRIFTBIT_CONFIG": str(file)}
    run_thriftbit("config", "set", "offline", "true", **place)
    assert read_configuration(file) == {"offline": True, "library": {"folders": ["/data"]}}
    assert "# mine" in file.read_text() and "# large" in file.read_text()
    run_thriftbit("config", "set", "library.folders", "/a", "/b", **place)
    assert own_folders(file) == [Path("/a"), Path("/b")]


@pytest.mark.parametrize("arguments", [("set", "chat.contxt", "1"), ("set", "chat.context", "many"), ("unset", "x")])
def test_mistakes_change_nothing(run_thriftbit: RunThriftbit, file: Path, arguments: tuple[str, ...]) -> None:
    done = run_thriftbit("config", *arguments, THRIFTBIT_CONFIG=str(file))
    assert done.returncode == 2 and done.stderr.startswith("error: ") and not file.exists()


def test_all_settings_with_their_values(run_thriftbit: RunThriftbit, file: Path) -> None:
    place = {"THRIFTBIT_CONFIG": str(file)}
    run_thriftbit("config", "set", "measure.time", "10m", **place)
    run_thriftbit("config", "set", "offline", "true", **place)
    settings = json.loads(run_thriftbit("config", "--all", "--json", **place).stdout)["settings"]
    assert settings["measure.time"] == {"value": "10m", "from": "config.toml"}
    assert settings["measure.context"] == {"value": 512, "from": "built in"}
    assert settings["chat.offline"] == {"value": True, "from": "config.toml, offline"}
    assert "library.folders" in settings

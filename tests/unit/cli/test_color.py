"""--color and NO_COLOR: all styles or none."""

from __future__ import annotations

import re

import pytest

from conftest import RunThriftbit
from thriftbit.cli import commands

STYLE = re.compile(r"\x1b\[[0-9;]*m")


def test_no_styles_where_the_output_is_no_terminal(run_thriftbit: RunThriftbit) -> None:
    assert not STYLE.search(run_thriftbit("explain", "Q4_K_M").stdout)


def test_always_has_styles_and_never_has_none_not_even_bold(run_thriftbit: RunThriftbit) -> None:
    assert STYLE.search(run_thriftbit("explain", "Q4_K_M", "--color", "always").stdout)
    assert STYLE.search(run_thriftbit("--color", "always", "explain", "Q4_K_M").stdout)
    never = run_thriftbit("explain", "Q4_K_M", "--color", "never", FORCE_COLOR="1")
    assert not STYLE.search(never.stdout)


def test_no_color_of_the_environment_has_no_styles_not_even_bold(run_thriftbit: RunThriftbit) -> None:
    assert STYLE.search(run_thriftbit("explain", "Q4_K_M", FORCE_COLOR="1").stdout)
    assert not STYLE.search(run_thriftbit("explain", "Q4_K_M", FORCE_COLOR="1", NO_COLOR="1").stdout)
    asked = run_thriftbit("explain", "Q4_K_M", "--color", "always", NO_COLOR="1")
    assert STYLE.search(asked.stdout)  # what is asked for now comes before the environment


def test_the_configuration_can_choose(run_thriftbit: RunThriftbit, tmp_path: object) -> None:
    place = {"THRIFTBIT_CONFIG": f"{tmp_path}/config.toml"}
    run_thriftbit("config", "set", "color", "always", **place)
    assert STYLE.search(run_thriftbit("explain", "Q4_K_M", **place).stdout)
    assert not STYLE.search(run_thriftbit("explain", "Q4_K_M", "--color", "never", **place).stdout)


@pytest.mark.parametrize("name", sorted(commands.commands))
def test_every_command_has_the_option(name: str) -> None:
    assert any("--color" in parameter.opts for parameter in commands.commands[name].params)

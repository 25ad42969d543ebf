"""The promises of the project as a whole: what importing it costs, what it exports, and that its documents are true."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import subprocess
import sys
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import thriftbit
from conftest import ROOT
from test_architecture import ANSWERING, COMPUTING
from thriftbit.cli import commands

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
HEAVY = ("torch", "transformers", "xllamacpp", "cyllama", "tokenizers", "numpy", "gguf", "huggingface_hub")


def code_blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def command_lines() -> list[str]:
    """Return every line of a document that runs thriftbit, without its comment."""
    lines = [line for document in DOCUMENTS for block in code_blocks(document, "sh") for line in block.splitlines()]
    return sorted({line.partition(" #")[0].strip() for line in lines if line.startswith("thriftbit ")})


def loaded_after(code: str, environment: dict[str, str]) -> set[str]:
    """Return the names of all modules that are loaded after running `code` in a fresh interpreter."""
    command = [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_importing_the_package_costs_nothing(thriftbit_environment: dict[str, str]) -> None:
    assert loaded_after("import thriftbit", thriftbit_environment).isdisjoint(HEAVY)


def test_the_command_line_starts_without_what_its_verbs_need(thriftbit_environment: dict[str, str]) -> None:
    assert loaded_after("import thriftbit.cli", thriftbit_environment).isdisjoint(HEAVY)


def test_the_base_package_works_without_the_extras(thriftbit_environment: dict[str, str]) -> None:
    code = f"""
import pkgutil, importlib, thriftbit
for name in ("torch", "transformers", "scipy", "mcp"):
    sys.modules[name] = None  # as if it were not installed
for module in pkgutil.walk_packages(thriftbit.__path__, "thriftbit."):
    file = module.name.removeprefix("thriftbit.").replace(".", "/") + ("/" if module.ispkg else ".py")
    if not module.name.endswith("__main__") and not file.startswith({(*COMPUTING, *ANSWERING)!r}):
        importlib.import_module(module.name)
"""
    loaded = loaded_after(code, thriftbit_environment)
    assert "thriftbit.quantization.quantize" in loaded and "thriftbit.demo" in loaded
    assert loaded.isdisjoint({"xllamacpp", "cyllama"})


def test_public_names_are_told_to_type_checkers_where_they_are() -> None:
    tree = ast.parse(Path(thriftbit.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    told = {
        alias.asname: str(node.module).removeprefix("thriftbit.")
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module != "typing"
        for alias in node.names
    }
    assert told == thriftbit._MODULES
    assert set(thriftbit.__all__) == set(told) <= set(dir(thriftbit))
    for name in told:
        assert getattr(thriftbit, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = thriftbit.no_such_name


def own_types(annotation: Any) -> Iterator[type]:
    """Yield the classes of the package that an annotation names."""
    if isinstance(annotation, type) and annotation.__module__.startswith("thriftbit."):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from own_types(inner) if not isinstance(inner, list) else (c for each in inner for c in own_types(each))


def test_whatever_public_functions_take_and_return_is_public() -> None:
    missing = {
        f"{name}: {own.__name__}"
        for name in thriftbit.__all__
        if inspect.isfunction(function := getattr(thriftbit, name))
        for annotation in typing.get_type_hints(inspect.unwrap(function), include_extras=True).values()
        for own in own_types(annotation)
        if own.__name__ not in thriftbit.__all__
    }
    assert missing == set()


def test_the_package_says_that_it_is_typed() -> None:
    assert Path(thriftbit.__file__).with_name("py.typed").is_file()


def test_there_is_one_version() -> None:
    assert thriftbit.__version__ == PROJECT["project"]["version"]


def test_continuous_integration_runs_the_tests_and_nothing_more() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert lines == ["#!/bin/sh", "exec make test"]


def test_the_documents_show_commands() -> None:
    assert len(command_lines()) >= 4


@pytest.mark.parametrize("line", command_lines())
def test_commands_in_the_documents_exist_as_written(line: str) -> None:
    name, *arguments = shlex.split(line)[1:]
    command = commands.commands[name]
    with command.make_context(f"thriftbit {name}", arguments) as context:
        assert isinstance(context, click.Context)


def test_links_in_the_documents_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_python_example_in_the_readme_runs(
    tiny_llama: Path, tmp_path: Path, thriftbit_environment: dict[str, str]
) -> None:
    (example,) = code_blocks(ROOT / "README.md", "python")
    (folder,) = re.findall(r'open_model\("\./(.+?)"\)', example)
    (tmp_path / folder).symlink_to(tiny_llama)
    command = [sys.executable, "-W", "error", "-c", example]
    result = subprocess.run(command, cwd=tmp_path, env=thriftbit_environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert [file.suffix for file in tmp_path.iterdir() if file.is_file()] == [".gguf"]

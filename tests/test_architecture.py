"""The rooms of the house: imports go one way.

A room imports only rooms on its left, and what is free to all. Imports inside functions and those for the type checker
count as well: a circle that is avoided by importing late is a circle.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

from conftest import ROOT

PACKAGE = ROOT / "src" / "thriftbit"

# "__init__" is the package itself, which gives every public verb, so that the command line can call them as users do.
ROOMS = (
    *("formats", "containers", "sources", "machine", "library", "runtime", "network", "quantization", "inspection"),
    *("measurement", "advice", "report", "side_by_side", "demo"),
    *("__init__", "assistant", "cli", "__main__"),
)
FREE = ("errors", "folders", "sizes", "strangers", "progress", "notebook")

# (file, the room it imports although that is not on its left): why
EXCEPTIONS = {
    ("quantization/gguf_file.py", "__init__"): "the version, written into every file, has one place",
    ("measurement/circumstances.py", "__init__"): "the version, written into every row, has one place",
}

# What computes a network needs the extra `torch`, and so do intervals, which load it when they are asked for one.
COMPUTING = (
    "network/",
    "measurement/accuracy.py",
    "measurement/proof.py",
    "measurement/comparison.py",
    "quantization/calibration",
)
COMPUTING += tuple(
    f"quantization/{name}.py"
    for name in (
        "estimate",
        "logit_check",
        "map_making",
        "sensitivity_measured",
        "sensitivity_probe",
    )
)
COMPUTING += ("quantization/tuning",)
EXTRA = (*COMPUTING, "measurement/statistics.py", "measurement/exact_intervals.py")
EXTRA += ("sources/converter/child.py",)  # a program of its own, which is started only where torch is
EXTRA += ("runtime/source_tokenizer.py",)  # a program of its own, which does with what is installed
ANSWERING = ("assistant/running.py", "assistant/server.py")  # need the extra `mcp`


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_names(file: Path) -> Iterator[str]:
    """Yield "json" or "thriftbit.sources.tensor.Tensor", for everything that a file imports, wherever in it."""
    yield from _names_in(ast.parse(file.read_text(encoding="utf-8")))


def _names_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def needed_modules(file: Path, modules: Iterable[str]) -> set[str]:
    """Return those of `modules` that a file imports when it runs, wherever in it; not those for the type checker."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    names = list(_names_in(tree))
    return {name if name in modules else name.rpartition(".")[0] for name in names} & set(modules)


def first_circle(imports: Mapping[str, Iterable[str]]) -> list[str]:
    """imports: of each module. Returns modules of which each imports the
    next one, the first also being the last; or []."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def imported_rooms(file: Path) -> Iterator[str]:
    for name in imported_names(file):
        package, _, rest = name.partition(".")
        if package == PACKAGE.name:
            room = rest.partition(".")[0]
            yield room if room in ROOMS or room in FREE else "__init__"  # a name that the package itself gives


def violations() -> set[tuple[str, str]]:
    """Return (file, room) for every import against the order."""
    return {
        (file.relative_to(PACKAGE).as_posix(), imported)
        for file in PACKAGE.rglob("*.py")
        for imported in imported_rooms(file)
        if imported not in FREE and (room_of(file) in FREE or ROOMS.index(imported) > ROOMS.index(room_of(file)))
    }


def test_every_file_is_in_a_known_room() -> None:
    assert {room_of(file) for file in PACKAGE.rglob("*.py")} == {*ROOMS, *FREE}


def test_a_room_imports_only_rooms_on_its_left() -> None:
    assert violations() == set(EXCEPTIONS)


def test_no_module_imports_itself_through_others() -> None:
    files = {module_of(file): file for file in PACKAGE.rglob("*.py")}
    # The package itself imports its verbs when they are asked for; the version, which rooms take from it, is its own.
    imports = {module: needed_modules(file, files) - {module, PACKAGE.name} for module, file in files.items()}
    assert first_circle(imports) == []


def test_a_circle_of_late_imports_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f():\n    from b import g\n")
    (tmp_path / "b.py").write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import c\nimport a\n")
    (tmp_path / "c.py").write_text("import b\n")
    imports = {name: needed_modules(tmp_path / f"{name}.py", "abc") for name in "abc"}
    assert imports == {"a": {"b"}, "b": {"a"}, "c": {"b"}}
    assert set(first_circle(imports)) == {"a", "b"} and first_circle({"c": ["b"], "b": ["a"]}) == []


def imported_distributions(files: Iterable[Path]) -> set[str]:
    imported = {name.partition(".")[0] for file in files for name in imported_names(file)}
    foreign = imported - sys.stdlib_module_names - {PACKAGE.name}
    distributions = packages_distributions()
    return {distributions[name][0].lower() for name in foreign}


def required(requirements: Iterable[str]) -> set[str]:
    return {re.split(r"[^\w-]", requirement)[0] for requirement in requirements}


def test_the_base_install_is_what_the_code_imports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    files = set(PACKAGE.rglob("*.py"))
    needing = {
        extra: {file for file in files if file.relative_to(PACKAGE).as_posix().startswith(names)}
        for extra, names in (("torch", EXTRA), ("mcp", ANSWERING))
    }
    base = required(project["dependencies"])
    assert imported_distributions(files.difference(*needing.values())) == base
    for extra, own in needing.items():
        assert imported_distributions(own) - base == required(project["optional-dependencies"][extra])


def test_the_map_shows_the_same_order() -> None:
    rooms = [room for room in ROOMS if not room.startswith("__")]
    for document in ("CONTRIBUTING.md", "docs/architecture.md"):
        text = " ".join((ROOT / document).read_text(encoding="utf-8").split())
        assert f"`{' → '.join(rooms)}`" in text, document


def test_the_map_names_every_room() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for folder in [
        PACKAGE,
        *(path for path in PACKAGE.rglob("*") if path.is_dir() and (path / "__init__.py").exists()),
    ]:
        assert f"{folder.name}/" in text, folder


def test_the_map_quotes_the_loop_as_it_is() -> None:
    (quoted,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "architecture.md").read_text(), re.M | re.S)
    assert textwrap.indent(quoted, "        ") in (PACKAGE / "quantization" / "quantize.py").read_text()


def test_importing_the_other_way_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "late.py"
    file.write_text(
        "import json\nfrom thriftbit.cli import main\ndef f():\n    import thriftbit.sources.model as model\n"
    )
    assert list(imported_rooms(file)) == ["cli", "sources"]

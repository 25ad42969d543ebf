"""The table of quantities, and that docs/measurements.md says what the code says."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

from conftest import ROOT
from thriftbit.measurement.measurement import Measurement
from thriftbit.measurement.quantities import QUANTITIES
from thriftbit.measurement.tasks import read_task

DOCUMENT = (ROOT / "docs" / "measurements.md").read_text(encoding="utf-8")


def test_the_document_has_the_table_as_it_is_printed(thriftbit_environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "thriftbit.measurement"]
    environment = thriftbit_environment | {"PYTHONIOENCODING": "utf-8"}
    printed = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=True).stdout
    assert printed.count("\n") == len(QUANTITIES) + 2
    assert f"\n\n{printed}\n" in DOCUMENT


def test_the_document_explains_every_field_of_a_row() -> None:
    fields = {field.name for field in dataclasses.fields(Measurement)} | {"schema", "unit"}
    table = DOCUMENT.partition("| field | what |")[2].partition("\n\n")[0]
    explained = {
        name for cell in re.findall(r"^\| (.+?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)
    }
    assert explained == fields


def test_the_documents_examples_are_read(tmp_path: Path) -> None:
    row, question = re.findall(r"^```json\n(.+?)\n```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    read = Measurement.from_json(row)
    assert json.loads(read.to_json()) == json.loads(row)
    path = tmp_path / "questions.jsonl"
    path.write_text(question, encoding="utf-8")
    assert read_task(str(path)).questions[0].choices == (" water", " iron")


def test_every_comparison_has_its_quantity_beside_it() -> None:
    for name, quantity in QUANTITIES.items():
        if name.endswith("_ratio"):
            assert quantity.unit == "ratio"
            assert QUANTITIES[name.removesuffix("_ratio")].better == quantity.better


def test_every_quantity_speaks_to_people() -> None:
    labels = [quantity.label for quantity in QUANTITIES.values()]
    assert len(set(labels)) == len(labels)
    for name, quantity in QUANTITIES.items():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert quantity.unit and len(quantity.meaning.split()) >= 3, name
        assert "|" not in quantity.meaning  # it stands in a table

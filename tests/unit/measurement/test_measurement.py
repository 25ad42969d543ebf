"""Rows: what makes one, to JSON and back, and lines that are none."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thriftbit.errors import ThriftbitError
from thriftbit.measurement.measurement import CONFIDENCE_95, SCHEMA, Measurement, Subject
from thriftbit.measurement.quantities import QUANTITIES

ORIGINAL = Subject("model", "BF16", "0123", 3_000, 16.0)
ROW = Measurement(
    what="kl_divergence_mean",
    value=0.0123,
    low=0.01,
    high=0.015,
    interval=CONFIDENCE_95,
    subject=Subject("größe-Q4_K_M.gguf", "Q4_K_M", "4567", 1_000, 4.83),
    against=ORIGINAL,
    settings={"domain": "prose", "context_tokens": 512, "share": 0.5, "streamed": True},
    machine={"processor": "a good one", "logical_cores": 4},
    versions={"thriftbit": "0.1.0"},
    time="2026-01-02T03:04:05+00:00",
    command="thriftbit measure größe-Q4_K_M.gguf",
    detail={"questions": [{"id": "1", "choices": [" a", "\u2028 b\n"]}]},
)

names = st.text(max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)
subjects = st.builds(Subject, names, names, names, st.integers(0, 1 << 60), numbers)
scalars = st.dictionaries(names, names | numbers | st.integers() | st.booleans(), max_size=4)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | names,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(names, values, max_size=3),
    max_leaves=8,
)
rows = st.builds(
    Measurement,
    what=st.sampled_from(sorted(QUANTITIES)),
    value=numbers,
    low=st.none() | numbers,
    high=st.none() | numbers,
    subject=subjects,
    against=st.none() | subjects,
    settings=scalars,
    machine=scalars,
    versions=st.dictionaries(names, names, max_size=3),
    note=names,
    detail=st.dictionaries(names, st.lists(names), max_size=3),
)


def changed(**changes: Any) -> str:
    return json.dumps(json.loads(ROW.to_json()) | changes)


@given(rows)
@settings(deadline=None)
def test_to_json_and_back(row: Measurement) -> None:
    line = row.to_json()
    assert "\n" not in line
    assert Measurement.from_json(line) == row


def test_a_row_says_its_schema_and_unit() -> None:
    document = json.loads(ROW.to_json())
    assert (document["schema"], document["unit"]) == (SCHEMA, "nats")
    fields = {field.name for field in dataclasses.fields(Measurement)}
    assert set(document) == fields | {"schema", "unit"}


def test_what_could_not_be_measured_says_why() -> None:
    row = Measurement(what="energy_per_token", value=None, subject=ORIGINAL, note="not measurable here: no counter")
    assert Measurement.from_json(row.to_json()) == row
    with pytest.raises(ValueError, match="says why"):
        Measurement(what="energy_per_token", value=None, subject=ORIGINAL)


def test_only_known_quantities_and_numbers() -> None:
    with pytest.raises(ValueError, match="'speed' is not in QUANTITIES"):
        Measurement(what="speed", value=1.0, subject=ORIGINAL)
    for changes in ({"value": math.nan}, {"low": -math.inf}, {"high": math.inf}):
        with pytest.raises(ValueError, match="not all numbers"):
            dataclasses.replace(ROW, **changes)
    with pytest.raises(ValueError, match="not JSON compliant"):
        dataclasses.replace(ROW, detail={"x": math.nan}).to_json()


def test_rows_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ROW.value = 0.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        (ROW.to_json()[:-1], "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("1" * 5000, "is not JSON"),
        (ROW.to_json().replace("0.0123", "NaN"), "is not JSON"),
        ("[]", "is no JSON object"),
        ("null", "is no JSON object"),
        ("{}", "has schema None; this version of thriftbit reads 1"),
        (changed(schema=2), "has schema 2;"),
        (changed(schema="x" * 10_000), "has schema 'xxx"),
        (changed(what="speed"), "'speed' is not in QUANTITIES"),
        (changed(what=["kl_divergence_mean"]), "what is not text"),
        (changed(value="0.1"), "value is '0.1'"),
        (changed(value=True), "value is True"),
        (changed(value=10**400), "is no measurement"),
        (ROW.to_json().replace("0.0123", "1e999"), "not all numbers"),
        (changed(value=None), "says why"),
        (changed(low=[]), r"low is []"),
        (changed(subject=None), "subject is no object"),
        (changed(subject={}), "subject.name is missing"),
        (changed(subject={"name": "x"} | {"level": 4}), "subject.level is missing"),
        (changed(against={}), "against.name is missing"),
        (changed(against="x"), "against is no object"),
        (changed(subject=dataclasses.asdict(ORIGINAL) | {"size_bytes": "3"}), "subject.size_bytes is no number"),
        (changed(subject=dataclasses.asdict(ORIGINAL) | {"size_bytes": 10**400}), "is no measurement"),
        (changed(subject=dataclasses.asdict(ORIGINAL) | {"colour": "red"}), "colour"),
        (changed(settings=[]), "settings is no object"),
        (changed(settings={"domain": ["prose"]}), "settings.domain is ['prose']"),
        (changed(machine={"cores": {}}), "machine.cores is {}"),
        (changed(versions={"thriftbit": None}), "versions.thriftbit is None"),
        (changed(settings={"x": 0.5}).replace("0.5", "1e999"), "settings.x is inf"),
        (changed(command=1), "command is not text"),
        (changed(colour="red"), "colour"),
        (json.dumps({"schema": 1}), "is no measurement"),
    ],
)
def test_forged_lines_are_refused_with_the_reason(line: str, expected: str) -> None:
    with pytest.raises(ThriftbitError) as caught:
        Measurement.from_json(line)
    assert expected in str(caught.value)
    assert len(str(caught.value)) < 300


@given(st.dictionaries(st.sampled_from(sorted(json.loads(ROW.to_json()))), json_values, min_size=1, max_size=3))
@settings(deadline=None, max_examples=250)
def test_any_forgery_is_a_row_or_refused(changes: dict[str, Any]) -> None:
    try:
        row = Measurement.from_json(changed(**changes))
    except ThriftbitError:
        return
    assert Measurement.from_json(row.to_json()) == row

"""One measured fact, with everything that is needed to believe it, repeat it or doubt it.

A row is frozen, says what was measured on what, against what, on which machine, with which versions and settings, and
how sure it is. Nothing that reads rows (the report, and whatever recommends) has another source of numbers. What could
not be measured is a row as well, without a value and with the reason in `note`.

Schema 1, one JSON object a line; `docs/measurements.md` describes it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from thriftbit.errors import ThriftbitError, shown
from thriftbit.measurement.quantities import QUANTITIES, Quantity
from thriftbit.notebook import html_table

SCHEMA = 1
CONFIDENCE_95 = "95% confidence"  # an interval for the value
QUARTILES = "quartiles"  # the middle half of repetitions; the value is their median
EXACT = ""  # no interval: counted, not estimated

Scalar = str | int | float | bool


@dataclass(frozen=True)
class Subject:
    """The file or model that was measured.

    name: of the file or model, for people. level: "Q4_K_M", "BF16". fingerprint: identifies its weights.
    size_bytes: of the file (of the weights, for a model in another form). bits_per_weight: of the weights alone.
    """

    name: str
    level: str
    fingerprint: str
    size_bytes: int
    bits_per_weight: float


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """what: a key of QUANTITIES. value: in its unit; None where it could not be measured, and then `note` says why.
    low, high: the interval, of the kind that `interval` names ("" where there is none).
    subject: what was measured; against: the original, where the value compares or was taken beside one.
    settings: what else decides the value ("domain", "context_tokens", "threads", ...). machine: see `describe_machine`.
    versions: of thriftbit and of what computed it. provenance: "measured here".
    time: when, ISO 8601 in UTC. command: what to type to measure it again.
    detail: what belongs to the fact and is not a number (an answer's text, the questions that flipped).
    """

    what: str
    value: float | None
    subject: Subject
    low: float | None = None
    high: float | None = None
    interval: str = EXACT
    against: Subject | None = None
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    machine: Mapping[str, Scalar] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    provenance: str = "measured here"
    time: str = ""
    command: str = ""
    note: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.what not in QUANTITIES:
            raise ValueError(f"{self.what!r} is not in QUANTITIES")
        numbers = [number for number in (self.value, self.low, self.high) if number is not None]
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError(f"{self.what}: {numbers} are not all numbers")
        if self.value is None and not self.note:
            raise ValueError(f"{self.what}: a row without a value says why")

    @property
    def quantity(self) -> Quantity:
        return QUANTITIES[self.what]

    def to_json(self) -> str:
        """Return one line."""
        document = {"schema": SCHEMA, "unit": self.quantity.unit, **asdict(self)}
        return json.dumps(document, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Raises ThriftbitError, in words that continue "FILE, line N: ", for what is no row of this schema."""
        try:
            document = json.loads(line, parse_constant=_refuse)
        except (ValueError, RecursionError):
            raise ThriftbitError("is not JSON") from None
        if not isinstance(document, dict):
            raise ThriftbitError("is no JSON object")
        schema = document.pop("schema", None)
        if schema != SCHEMA:
            raise ThriftbitError(f"has schema {shown(schema)}; this version of thriftbit reads {SCHEMA}")
        document.pop("unit", None)
        try:
            _check_types(document)
            against = document.get("against")
            return cls(
                **{**document, "subject": Subject(**document["subject"]), "against": against and Subject(**against)}
            )
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise ThriftbitError(f"is no measurement: {error}") from None

    def __repr__(self) -> str:
        value = "not measured" if self.value is None else f"{self.value:.4g}"
        between = "" if self.low is None or self.high is None else f" ({self.low:.4g} to {self.high:.4g})"
        return f"Measurement({self.subject.name}: {self.what} {value}{between})"

    def _repr_html_(self) -> str:
        rows = [
            ("value", self.note if self.value is None else self.value),
            ("interval", "" if self.low is None else f"{self.low} to {self.high}"),
            ("against", self.against.name if self.against else ""),
            *self.settings.items(),
        ]
        return html_table(f"{self.subject.name}: {self.what}", (), [row for row in rows if row[1] != ""])


def _refuse(constant: str) -> None:
    """NaN and Infinity, which Python reads and JSON does not know"""
    raise ValueError(constant)


def _check_types(document: Mapping[str, Any]) -> None:
    for name in ("value", "low", "high"):
        value = document.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"{name} is {shown(value)}")
    for name in ("what", "interval", "provenance", "time", "command", "note"):
        if not isinstance(document.get(name, ""), str):
            raise ValueError(f"{name} is not text")
    for name in ("settings", "machine", "versions", "detail"):
        if not isinstance(document.get(name, {}), dict):
            raise ValueError(f"{name} is no object")
    for name in ("settings", "machine", "versions"):
        for key, value in document.get(name, {}).items():
            if not isinstance(value, str | int) and not (isinstance(value, float) and math.isfinite(value)):
                raise ValueError(f"{name}.{key} is {shown(value)}")
    for name in ("subject", "against"):
        subject = document.get(name)
        if subject is None and name == "against":
            continue
        if not isinstance(subject, dict):
            raise ValueError(f"{name} is no object")
        for field_name, kind in (("name", str), ("level", str), ("fingerprint", str)):
            if not isinstance(subject.get(field_name), kind):
                raise ValueError(f"{name}.{field_name} is missing")
        for field_name in ("size_bytes", "bits_per_weight"):
            number = subject.get(field_name)
            if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
                raise ValueError(f"{name}.{field_name} is no number")

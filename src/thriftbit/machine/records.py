"""Frozen dataclasses to JSON and back, checked, because a profile may come from another computer and so from a
stranger.

The annotations of the classes are the schema. Left out: everything that profiles do not contain (dictionaries, unions
of more than a type and None).
"""

from __future__ import annotations

import math
import types
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from thriftbit.errors import ThriftbitError, shown

R = TypeVar("R")


def to_document(value: Any) -> Any:
    """Return what `json.dumps` takes."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_document(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [to_document(each) for each in value]
    return value


def from_document(kind: type[R], document: Any, place: str = "") -> R:
    """Return an instance of the dataclass `kind`.

    place: what errors call it. Raises ThriftbitError where something is missing or of another type. Unknown keys are
    passed over, because a later version may have added them.
    """
    result: R = _read(kind, document, place or kind.__name__)
    return result


def _read(kind: Any, value: Any, place: str) -> Any:
    origin, arguments = get_origin(kind) or kind, get_args(kind)
    if origin in (Union, types.UnionType):
        (wanted,) = (each for each in arguments if each is not type(None))
        return None if value is None else _read(wanted, value, place)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(place, "a list", value)
        return tuple(_read(arguments[0], each, f"{place}[{index}]") for index, each in enumerate(value))
    if is_dataclass(origin):
        return _read_record(origin, arguments, value, place)
    return _read_scalar(kind, value, place)


def _read_record(kind: Any, arguments: tuple[Any, ...], value: Any, place: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(place, "an object", value)
    hints = get_type_hints(kind)
    bound = dict(zip(getattr(kind, "__parameters__", ()), arguments, strict=True))
    found = {}
    for field in fields(kind):
        if field.name in value:
            hint = _substituted(hints[field.name], bound)
            found[field.name] = _read(hint, value[field.name], f"{place}.{field.name}")
        elif field.default is MISSING:
            raise ThriftbitError(f"{place}.{field.name} is missing")
    return kind(**found)


def _substituted(hint: Any, bound: dict[Any, Any]) -> Any:
    """Return the annotation with a generic class's parameters filled in: T | None as int | None."""
    parameters = getattr(hint, "__parameters__", ())
    if hint in bound:
        return bound[hint]
    return hint[tuple(bound[parameter] for parameter in parameters)] if parameters and bound else hint


def _read_scalar(kind: type, value: Any, place: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise _wrong(place, "a finite number", value) from None
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise _wrong(place, {str: "text", int: "a whole number", float: "a number", bool: "true or false"}[kind], value)
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(place, "a finite number", value)
    return value


def _wrong(place: str, wanted: str, value: Any) -> ThriftbitError:
    return ThriftbitError(f"{place} should be {wanted}, not {shown(value)}")

"""A checkpoint's config.json, brought to one vocabulary.

Families and releases of transformers name the same number differently, omit values that equal their default, and nest
the text model of a multimodal one. `Configuration` settles this once: afterwards every key has its modern name, as in
Llama."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from thriftbit.errors import ThriftbitError, shown

LARGEST_COUNT = 2**31 - 1  # what llama.cpp can hold; anything above is a damaged file
LARGEST_FLOAT = float(np.finfo(np.float32).max)


class Configuration:
    """config: the parsed config.json; aliases: old key -> modern key; defaults: what a missing or null key means, a
    value or a function of the configuration.

    `head_dim` and `num_key_value_heads` are always there afterwards. Values are checked when they are asked for.
    """

    def __init__(self, config: Mapping[str, Any], aliases: Mapping[str, str], defaults: Mapping[str, Any]) -> None:
        text = config.get("text_config")
        self._values = {**config, **text} if isinstance(text, Mapping) else dict(config)
        if config.get("tie_word_embeddings") is not None:  # the whole model's value overrides its text part's
            self._values["tie_word_embeddings"] = config["tie_word_embeddings"]
        for old, modern in aliases.items():
            if self._values.get(modern) is None and old in self._values:
                self._values[modern] = self._values[old]
        for key, default in {**DERIVED, **defaults}.items():
            if self._values.get(key) is None:
                self._values[key] = default(self) if callable(default) else default

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value as it stands, `default` if it is missing or null."""
        value = self._values.get(key)
        return default if value is None else value

    def flag(self, key: str) -> bool:
        return bool(self.get(key, False))

    def integer(self, key: str) -> int:
        value = self._values.get(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_COUNT:
            raise ThriftbitError(f"config.json: {key} should be a whole number, and is {_shown(value)}.")
        return value

    def listed(self, key: str, length: int) -> list[Any]:
        """Return the list of `length` values. Raises ThriftbitError for anything else."""
        value = self._values.get(key)
        if not isinstance(value, list | tuple) or len(value) != length:
            raise ThriftbitError(f"config.json: {key} should be a list of {length} values, and is {_shown(value)}.")
        return list(value)

    def number(self, key: str) -> float:
        return finite(self._values.get(key), key)


def finite(value: Any, key: str) -> float:
    """Return the value as a number that float32 can hold; `key` names it in the error."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST_FLOAT:
        raise ThriftbitError(f"config.json: {key} should be a number, and is {_shown(value)}.")
    return float(value)


def positive(value: Any, key: str) -> float:
    number = finite(value, key)
    if number <= 0:
        raise ThriftbitError(f"config.json: {key} should be above zero, and is {_shown(value)}.")
    return number


def _shown(value: Any) -> str:
    return "missing" if value is None else shown(value)


# The defaults of every family. If the default of `head_dim` is wrong, the shapes of tensors contradict it.
DERIVED: Mapping[str, Callable[[Configuration], int]] = {
    "head_dim": lambda configuration: (
        configuration.integer("hidden_size") // max(1, configuration.integer("num_attention_heads"))
    ),
    "num_key_value_heads": lambda configuration: configuration.integer("num_attention_heads"),
}

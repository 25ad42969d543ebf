"""Positions in time, height and width (M-RoPE), of models that see pictures.

Every frequency of the rotary embedding follows one of the three. In a text all three are equal, so a text model needs
only the ordinary embedding. llama.cpp needs the shares of the three nonetheless. Source: arXiv 2409.12191."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from thriftbit.errors import ThriftbitError, shown
from thriftbit.sources.architectures.architecture import Check
from thriftbit.sources.architectures.configuration import Configuration
from thriftbit.sources.architectures.dimensions import Dimensions
from thriftbit.sources.architectures.rope import PLAIN, Rope

_NOTICEABLE_ANGLE = 0.25  # radians, at the end of the context


def sections_of_positions(*default: int) -> Callable[[Configuration], list[int]]:
    """Return a function that gives a GGUF list: how many frequencies follow time, height and width, and 0 for a fourth
    kind. default: for configurations without the list."""

    def sections(configuration: Configuration) -> list[int]:
        rope = configuration.get("rope_parameters") or configuration.get("rope_scaling")
        stated = rope.get("mrope_section") if isinstance(rope, Mapping) else None
        if stated is not None and not _are_counts(stated):
            raise ThriftbitError(f"config.json: mrope_section should be three whole numbers, and is {shown(stated)}.")
        return [*(stated or default), 0, 0, 0, 0][:4]

    return sections


def _are_counts(sections: Any) -> bool:
    return isinstance(sections, list) and all(type(each) is int and each >= 0 for each in sections)


def all_frequencies_turn(sections: Callable[[Configuration], list[int]]) -> Check:
    """Return a check for positions whose three kinds take turns. llama.cpp leaves out frequencies behind the last one
    of their kind. That matters if one of them would have rotated a head noticeably."""

    def check(configuration: Configuration, model: Dimensions) -> str | None:
        shares, frequencies = sections(configuration), model.rotary // 2
        base = Rope(configuration, PLAIN).base
        for frequency in range(frequencies):
            angle = configuration.integer("max_position_embeddings") * base ** -(frequency / frequencies)
            if frequency >= 3 * shares[frequency % 3] and angle > _NOTICEABLE_ANGLE:
                return "mrope_section leaves out frequencies, which llama.cpp would not turn with the text."
        return None

    return check

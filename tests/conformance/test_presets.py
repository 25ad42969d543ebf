"""Our presets choose what `llama-quantize` chooses, tensor by tensor: compared with maps recorded from it by
tools/record_type_maps.py for well-known models (type_maps/*.json)."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thriftbit.errors import UsageError
from thriftbit.quantization.preset_names import preset_named
from thriftbit.quantization.presets import EVERY_PRESET, PRESETS, Preset, choose_formats
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import FloatArray, Tensor

MAPS = sorted((Path(__file__).parent / "type_maps").glob("*.json"))


def unread(start: int, stop: int) -> FloatArray:
    raise AssertionError("choosing formats must not read weights")


def recorded_model(recorded: dict[str, Any]) -> Model:
    kinds: dict[type, Any] = {bool: bool, int: np.uint32, float: np.float32, str: str, list: list}
    architecture = recorded["architecture"]
    tensors = [
        Tensor(name.format(layer), tuple(shape), "F16", unread)
        for name, first, last, shape in recorded["tensors"]
        for layer in (range(first, last) if last else [0])
    ]
    metadata = {f"{architecture}.{key}": kinds[type(value)](value) for key, value in recorded["metadata"].items()}
    return Model(architecture, metadata, tuple(tensors), "recorded")


def expanded(run_lengths: str) -> list[str]:
    runs = (run.rpartition("*") for run in run_lengths.split())
    return [name for count, _, name in runs for _ in range(int(count or 1))]


@pytest.mark.parametrize("path", MAPS, ids=lambda path: path.stem)
def test_formats_are_those_of_llama_quantize(path: Path) -> None:
    recorded = json.loads(path.read_text())
    model = recorded_model(recorded)
    known = {name.removesuffix("+imatrix") for name in recorded["types"]}
    assert known == set(EVERY_PRESET) - {"NVFP4"}  # which llama-quantize does not make
    for preset in known & set(PRESETS):
        for importance in (False, True):
            key = preset + "+imatrix" * importance
            types = recorded["types"].get(key, recorded["types"][preset])
            ours = choose_formats(model, preset_named(preset), importance)
            if types is None:  # rows that llama-quantize has no format for
                assert {"Q4_0", "F16"} & set(ours.values())
                continue
            theirs = expanded(types)
            differences = {
                name: (our, their) for (name, our), their in zip(ours.items(), theirs, strict=True) if our != their
            }
            assert differences == {}, f"{key}: tensor -> (ours, llama-quantize's)"


def chosen_by(models: list[Model], preset: Preset, model: int, importance: bool) -> dict[str, str]:
    return choose_formats(models[model], preset, importance)


def test_the_maps_decide_every_rule() -> None:
    """Without any one rule some recorded model would come out differently: the maps test all of the table."""
    models = [recorded_model(json.loads(path.read_text())) for path in MAPS]
    undecided = []
    for preset in PRESETS.values():
        whole = cache(partial(chosen_by, models, preset))
        for position, rule in enumerate(preset.rules):
            if all(later.use == preset.most for later in preset.rules[position:]):
                continue  # says what would be the case anyway; shared by all presets
            without = replace(preset, rules=preset.rules[:position] + preset.rules[position + 1 :])
            questions = itertools.product(range(len(models)), (False, True))
            if all(chosen_by(models, without, *question) == whole(*question) for question in questions):
                undecided.append((preset.name, rule))
    assert undecided == []


def test_an_unknown_preset_is_named_with_the_choices() -> None:
    with pytest.raises(UsageError, match=r"no preset 'Q9_K'; do you mean Q6_K or "):
        preset_named("Q9_K")
    assert preset_named("q4_k_m").name == "Q4_K_M"

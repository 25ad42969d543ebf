"""What we make of a checkpoint is what llama.cpp's own converter makes of it, and quantized as llama-quantize does:
recorded for tiny models of every family by tools/record_converted.py (converted/*.json)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thriftbit.quantization.plan import make_plan
from thriftbit.sources.architectures import find_architecture
from thriftbit.sources.checkpoint import open_checkpoint
from thriftbit.sources.model import Model

from .converted_models import WIDE_MODELS, save_wide

RECORDED = Path(__file__).parent / "converted"
PRESETS = ("Q8_0", "Q4_K_M", "Q2_K")
# Keys that we write beside the converter's: llama.cpp has the same value where they are missing.
WRITTEN_BESIDE = {
    "vocab_size",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.original_context_length",
    "rope.scaling.attn_factor",
    "expert_gating_func",
    "final_logit_softcapping",
}
# Keys that the converter writes, and that mean nothing to llama.cpp.
WITHOUT_EFFECT = {"rope.scaling.yarn_ext_factor", "rope.scaling.yarn_attn_factor"}


def digest(values: np.ndarray[Any, Any], stored: str) -> str:
    """-> of numbers in 16 bits, as they are; of others, to the digits that every exponential agrees in"""
    plain = np.ascontiguousarray(values, dtype="<f4")
    if stored == "F32":
        return hashlib.sha256(" ".join(f"{value:.5g}" for value in plain.ravel()).encode()).hexdigest()[:16]
    return hashlib.sha256(plain.tobytes()).hexdigest()[:16]


def opened(folder: Path) -> Model:
    checkpoint = open_checkpoint(folder)
    architecture = find_architecture(checkpoint.config)
    checkpoint = architecture.settled(checkpoint)
    metadata = architecture.metadata(checkpoint.config)
    tensors = tuple(architecture.map_tensors(checkpoint))
    return Model(architecture.gguf_name, metadata, tensors, str(folder), config=checkpoint.config)


def same(ours: Any, theirs: Any) -> bool:
    ours = np.ravel(ours).tolist() if not isinstance(ours, str) else ours
    theirs = theirs if isinstance(theirs, list | str) else [theirs]
    if isinstance(ours, str) or isinstance(theirs, str):
        return bool(ours == theirs)
    if len(ours) != len(theirs) and len(set(theirs)) == 1:
        theirs = theirs[:1]
    return len(ours) == len(theirs) and bool(np.allclose(ours, theirs, rtol=1e-6))


def test_every_family_is_recorded() -> None:
    assert {path.stem for path in RECORDED.glob("*.json")} == set(WIDE_MODELS)


@pytest.mark.parametrize("name", sorted(path.stem for path in RECORDED.glob("*.json")))
def test_keys_tensors_and_types_are_those_of_llama_cpp(name: str, tmp_path: Path) -> None:
    recorded = json.loads((RECORDED / f"{name}.json").read_text())
    model = opened(save_wide(WIDE_MODELS[name], tmp_path))
    assert model.architecture == recorded["architecture"]

    ours = {key.removeprefix(f"{model.architecture}."): value for key, value in model.metadata.items()}
    theirs = {key: value for key, value in recorded["keys"].items() if key not in WITHOUT_EFFECT}
    differing = {key: (ours.get(key), value) for key, value in theirs.items() if not same(ours.get(key, ""), value)}
    assert differing == {}, "key -> (ours, the converter's)"
    assert set(ours) - set(theirs) <= WRITTEN_BESIDE

    rows = {row[0]: row[1:] for row in recorded["tensors"]}
    assert {tensor.name: list(tensor.shape) for tensor in model.tensors} == {n: row[0] for n, row in rows.items()}
    wrong = [t.name for t in model.tensors if digest(t.load(), rows[t.name][1]) != rows[t.name][2]]
    assert wrong == [], "other values than the converter's"
    for number, preset in enumerate(PRESETS):
        formats = make_plan(model, preset).formats
        different = {n: (formats[n], row[3 + number]) for n, row in rows.items() if formats[n] != row[3 + number]}
        assert different == {}, f"{preset}: tensor -> (ours, llama-quantize's)"

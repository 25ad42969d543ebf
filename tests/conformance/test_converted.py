"""What we make of a checkpoint is what llama.cpp's own converter makes of it, and quantized as llama-quantize does:
recorded for tiny models of every family by tools/record_converted.py (converted/*.json)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from thriftbit.quantization.plan import make_plan
from thriftbit.sources.architectures import find_architecture
from thriftbit.sources.checkpoint import Checkpoint, open_checkpoint
from thriftbit.sources.model import Model

from .converted_models import WIDE_MODELS, save_wide
from .tiny_models import TinyModel

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
    "attention.layer_norm_rms_epsilon",
}
# Keys that the converter writes, and that mean nothing to llama.cpp.
WITHOUT_EFFECT = {"rope.scaling.yarn_ext_factor", "rope.scaling.yarn_attn_factor"}
# Where the two differ, and why that is right.
KNOWN = {
    # llama.cpp's LLaMA takes factors of LongRoPE, which the converter does not write for it.
    "llama-longrope": {"rope_factors_long.weight", "rope_factors_short.weight"},
    # The converter takes four times the width for the feed-forward, whatever n_inner says.
    "gpt2-untied": {"feed_forward_length"},
    # Of rotary scaling that there is not, the converter writes the original length.
    "phi3": {"rope.scaling.original_context_length"},
    # The converter knows a router by the number of its layer, which is another one here, and leaves it in 16 bits.
    "nemotron-h-moe": {"blk.4.ffn_gate_inp.weight"},
    "nemotron-h-moe-latent": {"blk.4.ffn_gate_inp.weight"},
    # The converter writes 4 beside a list of layers that says otherwise, and older releases of llama.cpp go by it.
    "qwen3-next-odd": {"full_attention_interval"},
    "qwen3.5-every-third-tied": {"full_attention_interval"},
    # A setting that these tiny models have and their class does not; and "none" for the scaling that there is not.
    "cohere2": {"attention.layer_norm_rms_epsilon", "rope.scaling.type"},
    "starcoder2": {"attention.layer_norm_rms_epsilon"},
    "starcoder2-untied": {"attention.layer_norm_rms_epsilon"},
}


def digest(values: np.ndarray[Any, Any], stored: str) -> str:
    """Return a hash of the values. Values stored in 16 bits are rounded to bfloat16 first, float32 values to five
    digits, in which all implementations of the exponential agree."""
    plain = np.ascontiguousarray(values, dtype="<f4")
    if stored == "F32":
        return hashlib.sha256(" ".join(f"{value:.5g}" for value in plain.ravel()).encode()).hexdigest()[:16]
    rounded = torch.from_numpy(plain).to(torch.bfloat16).float().numpy()  # what is multiplied is not rounded yet
    return hashlib.sha256(rounded.tobytes()).hexdigest()[:16]


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
    known = KNOWN.get(name, set())
    theirs = {key: value for key, value in recorded["keys"].items() if key not in WITHOUT_EFFECT | known}
    differing = {key: (ours.get(key), value) for key, value in theirs.items() if not same(ours.get(key, ""), value)}
    assert differing == {}, "key -> (ours, the converter's)"
    assert set(ours) - set(theirs) <= WRITTEN_BESIDE | known

    rows = {row[0]: row[1:] for row in recorded["tensors"] if row[0] not in known}
    tensors = [tensor for tensor in model.tensors if tensor.name not in known]
    assert {tensor.name: list(tensor.shape) for tensor in tensors} == {n: row[0] for n, row in rows.items()}
    wrong = [t.name for t in tensors if digest(t.load(), rows[t.name][1]) != rows[t.name][2]]
    assert wrong == [], "other values than the converter's"
    for number, preset in enumerate(PRESETS):
        formats = make_plan(model, preset).formats
        different = {n: (formats[n], row[3 + number]) for n, row in rows.items() if formats[n] != row[3 + number]}
        assert different == {}, f"{preset}: tensor -> (ours, llama-quantize's)"


def check_configuration_alone(tiny: TinyModel, folder: Path) -> None:
    """Raises AssertionError if the configuration implies other tensors than the checkpoint has"""
    model = opened(save_wide(tiny, folder))
    assert model.config is not None
    architecture = find_architecture(model.config)
    checkpoint = Checkpoint(folder, dict(model.config), architecture.implied_tensors(model.config, "BF16"))
    implied = {tensor.name: tensor.shape for tensor in architecture.map_tensors(checkpoint)}
    optional = {  # some checkpoints have them, and a configuration does not say which
        target
        for entry in architecture.entries(architecture.dimensions(model.metadata))
        if entry.row.optional
        for target in entry.targets
    }
    there = {tensor.name: tensor.shape for tensor in model.tensors}
    assert {n: s for n, s in implied.items() if n not in optional} == {
        n: s for n, s in there.items() if n not in optional
    }


@pytest.mark.parametrize("name", sorted(WIDE_MODELS))
def test_the_configuration_alone_implies_the_same_tensors(name: str, tmp_path: Path) -> None:
    check_configuration_alone(WIDE_MODELS[name], tmp_path)

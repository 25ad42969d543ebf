from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thriftbit.errors import ThriftbitError, UsageError
from thriftbit.quantization.gguf_file import file_layout, file_metadata
from thriftbit.quantization.plan import Plan, make_plan
from thriftbit.quantization.quantize import quantize
from thriftbit.sources.model import Model
from thriftbit.sources.open_model import open_model
from thriftbit.sources.tensor import Tensor


def test_a_plan_names_every_tensor_in_the_models_order(model: Model) -> None:
    plan = make_plan(model, "Q8_0")
    assert list(plan.formats) == [tensor.name for tensor in model.tensors]
    assert plan.formats["output_norm.weight"] == plan.formats["blk.0.ffn_gate_inp.weight"] == "F32"
    assert plan.formats["blk.0.ffn_down_exps.weight"] == "Q8_0"
    assert (plan.preset, plan.provenance) == ("Q8_0", "preset Q8_0")
    with pytest.raises(TypeError):
        plan.formats["output.weight"] = "F16"  # type: ignore[index]


def test_size_and_bits_per_weight_are_those_of_the_file(model: Model) -> None:
    plan = make_plan(model, "Q8_0")
    kept = 256 + 2 * 256
    quantized = 2 * 40 * 256 + 64 * 256 + 32 * 256 + 2 * 64 * 256
    assert plan.weights_bytes(model) == 4 * kept + quantized * 34 // 32
    assert plan.bits_per_weight(model) == 8 * plan.weights_bytes(model) / (kept + quantized)
    layout = file_layout(model, plan)
    assert layout.file_size_bytes == len(layout.header) + plan.weights_bytes(
        model
    )  # all are multiples of 32 bytes here


def test_overrides_by_role_part_of_the_name_and_pattern(model: Model) -> None:
    overrides = [("attention-value", "BF16"), ("blk.*.attn_?.weight", "F16"), ("output", "f32"), ("output", "F16")]
    plan = make_plan(model, "Q8_0", overrides=overrides)
    changed = {name: f for name, f in plan.formats.items() if f != make_plan(model, "Q8_0").formats[name]}
    assert changed == {"blk.0.attn_v.weight": "BF16", "blk.0.attn_q.weight": "F16", "output.weight": "F32"}
    assert plan.preset == "Q8_0"
    assert "attention-value=BF16" in plan.provenance


@pytest.mark.parametrize("pattern", ["no_such_tensor", "norm", "output_norm", "*_norm.weight"])
def test_an_override_that_matches_nothing_is_a_mistake(model: Model, pattern: str) -> None:
    with pytest.raises(UsageError, match="no tensor that can be quantized"):
        make_plan(model, "Q8_0", overrides=[(pattern, "F16")])


def test_an_override_that_does_not_fit_takes_the_fallback(model: Model, make_tensor: Callable[..., Any]) -> None:
    odd = make_tensor("blk.0.attn_k.weight", np.zeros((8, 100), np.float32), "attention-key")
    model = replace(model, tensors=(*model.tensors, odd))
    assert make_plan(model, "F16", overrides=[("attn_k", "Q8_0")]).formats[odd.name] == "F16"


@pytest.mark.parametrize("compact", [False, True])
def test_json_there_and_back(model: Model, compact: bool) -> None:
    plan = make_plan(model, "Q8_0", overrides=[("output", "F16")])
    text = plan.to_json(compact)
    assert Plan.from_json(text, model) == plan
    assert Plan.from_json(json.dumps({"written": False, "plan": json.loads(text)}), model) == plan
    assert ("\n" in text) is not compact


def plan_with(change: Callable[[dict[str, Any]], object]) -> Callable[[Plan], str]:
    def changed(plan: Plan) -> str:
        document = json.loads(plan.to_json())
        change(document)
        return json.dumps(document)

    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plan: plan.to_json()[:-5], "not JSON"),
        (lambda plan: "[" * 100_000, "not JSON"),
        (lambda plan: "[]", "not one of ours"),
        (plan_with(lambda d: d.update(thriftbit_plan=2)), "not one of ours"),
        (plan_with(lambda d: d.update(tensors=[])), '"tensors"'),
        (plan_with(lambda d: d.update(preset="../Q8_0")), '"preset"'),
        (plan_with(lambda d: d.update(provenance=8)), '"provenance"'),
        (plan_with(lambda d: d["tensors"].update({"output.weight": 8})), '"tensors"'),
        (plan_with(lambda d: d["tensors"].pop("output.weight")), "output.weight: the plan does not say"),
        (plan_with(lambda d: d["tensors"].update({"blk.9.x": "F16"})), "'blk.9.x'.*tiny does not have it"),
        (plan_with(lambda d: d["tensors"].update({"output.weight": "Q9_K"})), "output.weight: .*'Q9_K'.*Q8_0"),
        (plan_with(lambda d: d["tensors"].update({"output_norm.weight": "F16"})), "output_norm.weight: has to be F32"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(model: Model, change: Callable[[Plan], str], message: str) -> None:
    with pytest.raises(ThriftbitError, match=message):
        Plan.from_json(change(make_plan(model, "Q8_0")), model)


def test_a_format_that_does_not_fit_the_width_is_refused(model: Model, make_tensor: Callable[..., Any]) -> None:
    odd = make_tensor("blk.0.attn_k.weight", np.zeros((8, 100), np.float32))
    model = replace(model, tensors=(*model.tensors, odd))
    document = json.loads(make_plan(model, "F16").to_json())
    document["tensors"][odd.name] = "Q8_0"
    with pytest.raises(ThriftbitError, match=r"blk\.0\.attn_k\.weight: rows of 100"):
        Plan.from_json(json.dumps(document), model)


def test_metadata_of_the_file(model: Model) -> None:
    plan = make_plan(model, "Q8_0")
    stale = {"thriftbit.plan": "old", "quantize.imatrix.file": "old"}
    metadata = file_metadata(replace(model, metadata={**model.metadata, **stale}), plan, None, "f" * 64)
    assert metadata["general.architecture"] == "llama"
    assert metadata["general.name"] == "tiny"
    assert metadata["general.file_type"] == 7  # llama.cpp's MOSTLY_Q8_0
    assert metadata["general.quantization_version"] == 2
    assert metadata["thriftbit.source.fingerprint"] == "f" * 64
    assert Plan.from_json(str(metadata["thriftbit.plan"]), model) == plan
    assert "quantize.imatrix.file" not in metadata


@pytest.mark.parametrize(("formats", "file_type"), [("F32", 0), ("F16", 1), ("BF16", 32), ("Q8_0", 7), ("Q2_0", 41)])
def test_the_file_type_of_a_plan_without_preset_is_that_of_most_weights(
    model: Model, formats: str, file_type: int
) -> None:
    custom = replace(make_plan(model, formats, overrides=[("attn_v", "F16")]), preset="custom")
    assert file_metadata(model, custom, None, "")["general.file_type"] == file_type


def test_the_fingerprint_sees_weights_names_and_shapes(model: Model, make_tensor: Callable[..., Any]) -> None:
    first, *others = model.tensors
    values = first.load()
    values[-1, -1] += 1
    variants = [
        model,
        replace(model, tensors=(make_tensor(first.name, values), *others)),
        replace(model, tensors=(first.renamed("other.weight"), *others)),
        replace(model, tensors=(make_tensor(first.name, first.load().reshape(20, 512)), *others)),
    ]
    assert len({variant.fingerprint for variant in variants}) == len(variants)
    reordered = replace(model, source="elsewhere", tensors=model.tensors[::-1])
    assert reordered.fingerprint == model.fingerprint


def test_the_identity_sees_the_settings_of_the_computation_as_well(model: Model, tmp_path: Path) -> None:
    base = replace(model, metadata={**model.metadata, f"{model.architecture}.rope.freq_base": np.float32(1e4)})
    others = [
        model,
        replace(base, metadata={**base.metadata, f"{model.architecture}.rope.freq_base": np.float32(5e5)}),
        replace(base, metadata={**base.metadata, f"{model.architecture}.rope.sections": np.array([1, 2], np.int32)}),
    ]
    assert len({each.identity for each in (base, *others)}) == 4
    assert {each.fingerprint for each in (base, *others)} == {model.fingerprint}
    renamed = replace(base, source="elsewhere", metadata={**base.metadata, "general.name": "another"})
    assert renamed.identity == base.identity


def test_the_identity_sees_every_weight(model: Model, make_tensor: Callable[..., Any]) -> None:
    first, *others = model.tensors
    values = first.load()
    values[7, 3] += 1  # in a row that the fingerprint does not read
    changed = replace(model, tensors=(make_tensor(first.name, values), *others))
    assert changed.fingerprint == model.fingerprint and changed.identity != model.identity


def test_the_identity_is_remembered_for_files_as_they_are(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THRIFTBIT_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    shutil.copytree(tiny_llama, folder)
    first = open_model(folder).identity
    loads, load = list[str](), Tensor.load
    monkeypatch.setattr(Tensor, "load", lambda self, *rows: loads.append(self.name) or load(self, *rows))
    assert open_model(folder).identity == first
    assert len(loads) <= 3 * len(open_model(folder).tensors)  # the fingerprint's rows alone
    changed = replace(open_model(folder), tensors=open_model(folder).tensors[1:])
    assert changed.identity != first
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert open_model(folder).identity != first


def test_a_checkpoint_and_its_lossless_file_have_one_identity(tiny_llama: Path, tmp_path: Path) -> None:
    checkpoint = open_model(tiny_llama)
    file = quantize(checkpoint, make_plan(checkpoint, "F32"), tmp_path / "tiny.gguf").path
    assert open_model(file).identity == checkpoint.identity

"""What is in a file decides, not what it is called: GGUF headers, and folders of safetensors by many methods."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from thriftbit.containers.gguf_reader import read_gguf
from thriftbit.errors import ThriftbitError
from thriftbit.inspection import inspect
from thriftbit.library.content import Content, Verdict, gguf_content, judge
from thriftbit.library.kinds import ADAPTER, IMPORTANCE, VISION
from thriftbit.library.quantized_checkpoint import checkpoint_content
from thriftbit.quantization.plan import make_plan
from thriftbit.quantization.quantize import quantize
from thriftbit.sources.open_model import open_model

from .disk import write_checkpoint, write_gguf, write_raw_gguf


def look(path: Path) -> Verdict:
    return judge(gguf_content([read_gguf(path)]), path.name)


@pytest.mark.parametrize(
    ("name", "level", "layer_type", "outer_type", "label", "warning"),
    [
        ("a-Q4_K_M.gguf", "Q4_K_M", "Q4_K", "Q6_K", "Q4_K_M", None),
        ("a.gguf", "Q5_K_M", "Q5_K", "Q6_K", "Q5_K_M", None),
        ("a-Q8_0.gguf", "Q8_0", "Q8_0", "Q8_0", "Q8_0", None),
        ("a-BF16.gguf", "BF16", "BF16", "BF16", "BF16", None),
        ("a-UD-Q4_K_XL.gguf", "Q4_K_M", "Q4_K", "Q6_K", "UD-Q4_K_XL", None),
        ("a-Q4_K_L.gguf", "Q4_K_M", "Q4_K", "Q8_0", "Q4_K_L", None),
        ("a-i1-IQ3_M.gguf", "IQ3_M", "IQ3_S", "Q5_K", "IQ3_M", None),
        ("a-MXFP4_MOE.gguf", "MXFP4_MOE", "MXFP4", "Q8_0", "MXFP4_MOE", None),
        ("a-Q4.gguf", "Q4_K_S", "Q4_K", "Q6_K", "Q4_K_S", None),
        ("a-Q4.gguf", "", "Q4_0", "Q4_0", "Q4", None),
        # the file lies, and the header tells
        ("a-Q8_0.gguf", "Q4_K_M", "Q4_K", "Q6_K", "Q4_K_M", "called Q8_0, but is Q4_K_M"),
        ("a-Q4.gguf", "Q8_0", "Q8_0", "Q8_0", "Q8_0", "called Q4, but is Q8_0"),
        ("a-F16.gguf", "Q8_0", "Q8_0", "Q8_0", "Q8_0", "called F16, but is Q8_0"),
        # the header lies as well, and the tensors tell
        ("a-Q8_0.gguf", "Q8_0", "Q4_K", "Q6_K", "mostly Q4_K", "called Q8_0, but is mostly Q4_K"),
        ("a-Q6_K.gguf", "Q6_K", "Q2_K", "Q2_K", "Q2_K", "called Q6_K, but is Q2_K"),
        ("a-UD-Q6_K_XL.gguf", "Q6_K", "IQ2_XXS", "Q2_K", "mostly IQ2_XXS", "called Q6_K_XL"),
    ],
)
def test_what_a_gguf_really_is(
    tmp_path: Path, name: str, level: str, layer_type: str, outer_type: str, label: str, warning: str | None
) -> None:
    verdict = look(write_gguf(tmp_path / name, level, layer_type=layer_type, outer_type=outer_type))
    assert verdict.label == label
    assert (verdict.warning is None) == (warning is None)
    assert warning is None or warning.replace("called Q6_K_XL", "called UD-Q6_K_XL") in (verdict.warning or "")


def test_an_honest_small_model_is_not_accused(tmp_path: Path) -> None:
    """SmolLM2 is 576 wide, which blocks of 256 do not divide: its Q4_K_M is in Q5_0, and says so."""
    path = write_gguf(tmp_path / "smol-Q4_K_M.gguf", "Q4_K_M", layer_type="Q5_0", outer_type="Q8_0", width=576)
    verdict = look(path)
    assert verdict.label == "Q4_K_M"
    assert verdict.warning == "its rows do not divide into the blocks of Q4_K_M: most weights are Q5_0"


def test_what_our_own_files_are(tiny_llama: Path, tmp_path: Path) -> None:
    model = open_model(tiny_llama)
    for preset in ("Q4_K_M", "Q2_K", "IQ4_XS", "Q8_0", "F16"):
        path = tmp_path / f"tiny-{preset}.gguf"
        quantize(model, make_plan(model, preset), path)
        content = gguf_content([read_gguf(path)])
        assert judge(content, path.name) == Verdict(preset)
        assert content.bits_per_weight == inspect(path).bits_per_weight
        assert content.parameters == model.parameters
        assert content.running_bytes is not None and content.running_bytes > content.weights_bytes


def test_a_content_survives_json(tmp_path: Path) -> None:
    content = gguf_content([read_gguf(write_gguf(tmp_path / "a.gguf"))])
    assert Content.from_json(json.loads(json.dumps(content.to_json()))) == content


@pytest.mark.parametrize(
    ("metadata", "kind"),
    [
        ({"general.type": "mmproj"}, VISION),
        ({"general.architecture": "clip"}, VISION),
        ({"general.type": "adapter"}, ADAPTER),
        ({"general.type": "imatrix"}, IMPORTANCE),
    ],
)
def test_what_is_no_model_is_told(tmp_path: Path, metadata: Mapping[str, str], kind: str) -> None:
    assert look(write_gguf(tmp_path / "a-F16.gguf", metadata=metadata)) == Verdict(kind)


def test_a_file_without_weights(tmp_path: Path) -> None:
    assert look(write_raw_gguf(tmp_path / "a.gguf", {"general.architecture": "llama"}, {})).label == "vocabulary only"


def test_metadata_that_makes_no_sense_leaves_the_memory_unknown(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", metadata={"llama.block_count": "many", "llama.attention.head_count": 0})
    content = gguf_content([read_gguf(path)])
    assert content.running_bytes is None
    assert judge(content, path.name).label == "Q4_K_M"


ROWS, WIDTH, LAYERS = 512, 256, 3
WEIGHTS = ROWS * WIDTH * LAYERS
EMBEDDING = {"model.embed_tokens.weight": ("BF16", (1000, WIDTH))}

# settings, tensors of a layer, the label, bits of those tensors for each weight
CHECKPOINTS: list[tuple[dict[str, Any], dict[str, tuple[str, tuple[int, ...]]], str, float]] = [
    ({}, {"weight": ("BF16", (ROWS, WIDTH))}, "BF16, original", 16),
    ({}, {"weight": ("F32", (ROWS, WIDTH))}, "F32, original", 32),
    (
        {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}},
        {
            "qweight": ("I32", (WIDTH // 8, ROWS)),
            "qzeros": ("I32", (WIDTH // 128, ROWS // 8)),
            "scales": ("F16", (WIDTH // 128, ROWS)),
            "g_idx": ("I32", (WIDTH,)),
        },
        "GPTQ-Int4",
        4 + 4 / 128 + 16 / 128 + 32 / ROWS,
    ),
    (
        {"quantization_config": {"quant_method": "gptq", "bits": 8}},
        {"qweight": ("I32", (WIDTH // 4, ROWS))},
        "GPTQ-Int8",
        8,
    ),
    (
        {"quantization_config": {"quant_method": "awq", "bits": 4}},
        {"qweight": ("I32", (WIDTH, ROWS // 8)), "scales": ("F16", (2, ROWS)), "qzeros": ("I32", (2, ROWS // 8))},
        "AWQ-Int4",
        4 + 2 * 16 / WIDTH + 2 * 4 / WIDTH,
    ),
    (
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        {
            "weight": ("U8", (ROWS * WIDTH // 2, 1)),
            "weight.absmax": ("U8", (ROWS * WIDTH // 64,)),
            "weight.quant_state.bitsandbytes__nf4": ("U8", (64,)),
        },
        "bnb-4bit",
        4 + 8 / 64 + 8 * 64 / (ROWS * WIDTH),
    ),
    (
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
        {"weight": ("I8", (ROWS, WIDTH)), "SCB": ("F32", (ROWS,))},
        "bnb-8bit",
        8 + 32 / WIDTH,
    ),
    (
        {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}},
        {"weight": ("F8_E4M3", (ROWS, WIDTH)), "weight_scale_inv": ("F32", (4, 2))},
        "FP8",
        8 + 32 / 128 / 128,
    ),
    (
        {
            "quantization_config": {
                "quant_method": "compressed-tensors",
                "format": "pack-quantized",
                "config_groups": {"group_0": {"weights": {"num_bits": 4}}},
            }
        },
        {
            "weight_packed": ("I32", (ROWS, WIDTH // 8)),
            "weight_scale": ("BF16", (ROWS, 2)),
            "weight_shape": ("I32", (2,)),
        },
        "W4A16",
        4 + 16 / 128 + 64 / (ROWS * WIDTH),
    ),
    (
        {"quantization_config": {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}},
        {"weight_packed": ("U8", (ROWS, WIDTH // 2)), "weight_scale": ("F8_E4M3", (ROWS, WIDTH // 16))},
        "NVFP4",
        4.5,
    ),
    (
        {"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}},
        {"weight": ("U8", (ROWS, WIDTH // 2)), "weight_scale": ("F8_E4M3", (ROWS, WIDTH // 16))},
        "NVFP4",
        4.5,
    ),
    (
        {"quantization_config": {"quant_method": "mxfp4"}},
        {"up_proj_blocks": ("U8", (ROWS, WIDTH // 32, 16)), "up_proj_scales": ("U8", (ROWS, WIDTH // 32))},
        "MXFP4",
        4.25,
    ),
    (
        {"quantization": {"group_size": 64, "bits": 4}},
        {"weight": ("U32", (ROWS, WIDTH // 8)), "scales": ("BF16", (ROWS, 4)), "biases": ("BF16", (ROWS, 4))},
        "MLX-4bit",
        4.5,
    ),
    (
        {"quantization_config": {"quant_method": "exl3", "bits": 4.0}},
        {"trellis": ("I16", (WIDTH // 16, ROWS // 16, 64)), "suh": ("F16", (WIDTH,)), "svh": ("F16", (ROWS,))},
        "EXL3-4bpw",
        4 + 16 / ROWS + 16 / WIDTH,
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "layer", "label", "bits"), CHECKPOINTS, ids=[f"{row[2]}-{n}" for n, row in enumerate(CHECKPOINTS)]
)
def test_checkpoints_by_every_method(
    tmp_path: Path, settings: dict[str, Any], layer: dict[str, tuple[str, tuple[int, ...]]], label: str, bits: float
) -> None:
    tensors = {f"model.layers.{n}.mlp.up_proj.{name}": kind for n in range(LAYERS) for name, kind in layer.items()}
    folder = write_checkpoint(
        tmp_path / "model", {"architectures": ["LlamaForCausalLM"], **settings}, tensors, shards=2
    )
    content = checkpoint_content(folder)
    assert judge(content, "model").label == label
    assert content.parameters == WEIGHTS
    assert content.bits_per_weight == pytest.approx(bits)
    assert content.architecture == "LlamaForCausalLM"


def test_mixed_bits_of_mlx_are_counted_each(tmp_path: Path) -> None:
    settings = {"quantization": {"bits": 4, "group_size": 64, "model.layers.1.mlp.up_proj": {"bits": 8}}}
    tensors = {
        "model.layers.0.mlp.up_proj.weight": ("U32", (ROWS, WIDTH // 8)),
        "model.layers.1.mlp.up_proj.weight": ("U32", (ROWS, WIDTH // 4)),
    }
    assert checkpoint_content(write_checkpoint(tmp_path / "a", settings, tensors)).parameters == 2 * ROWS * WIDTH


def test_weights_packed_in_an_unknown_way_stay_uncounted(tmp_path: Path) -> None:
    settings = {"quantization_config": {"quant_method": "exl2", "bits": 4.25}}
    tensors = {"model.layers.0.mlp.up_proj.q_weight": ("I32", (40, ROWS))}
    content = checkpoint_content(write_checkpoint(tmp_path / "a", settings, tensors))
    assert (content.parameters, content.bits_per_weight) == (None, None)
    assert judge(content, "a").label == "EXL2-4.25bpw"


def test_settings_that_bitsandbytes_left_behind_quantize_nothing(tmp_path: Path) -> None:
    settings = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": False}}
    folder = write_checkpoint(tmp_path / "a", settings, {"model.layers.0.mlp.up_proj.weight": ("BF16", (ROWS, WIDTH))})
    assert judge(checkpoint_content(folder), "a").label == "BF16, original"


@pytest.mark.parametrize(
    ("name", "settings", "warned"),
    [
        ("Llama-8B-AWQ", {}, True),
        ("Llama-8B", {}, False),
        ("Llama-8B-bf16", {}, False),
        ("Llama-8B-GPTQ-Int8", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, True),
        ("Llama-8B-bf16", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, True),
        ("Llama-8B-4bit", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, False),
    ],
)
def test_names_of_checkpoints_are_held_against_them(
    tmp_path: Path, name: str, settings: dict[str, Any], warned: bool
) -> None:
    plain = {"model.layers.0.mlp.up_proj.weight": ("BF16", (ROWS, WIDTH))}
    packed = {"model.layers.0.mlp.up_proj.qweight": ("I32", (WIDTH // 8, ROWS))}
    content = checkpoint_content(write_checkpoint(tmp_path / name, settings, packed if settings else plain))
    assert (judge(content, name).warning is not None) == warned


def test_an_incomplete_checkpoint_is_refused_with_the_reason(tmp_path: Path) -> None:
    tensors = {f"model.layers.{n}.mlp.up_proj.weight": ("BF16", (ROWS, WIDTH)) for n in range(3)}
    folder = write_checkpoint(tmp_path / "a", {}, tensors, shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ThriftbitError, match="1 of its 3 shards missing"):
        checkpoint_content(folder)

"""Record which type a real `llama-quantize` gives every tensor of well-known models, for the tests of our presets.

    python tools/record_type_maps.py /path/to/llama-quantize --version b11434
    python tools/record_type_maps.py /path/to/llama-quantize --version b11434 --config qwen3.6-35b-a3b=config.json

The choice depends on names, shapes and a few hyperparameters, never on the weights, so each model is a GGUF whose
header is real and whose data is a hole in a sparse file: Llama 3 70B takes kilobytes. `--dry-run` prints the choice, a
line a tensor. The maps go to tests/conformance/type_maps, one JSON file per model, with all that the test needs to ask
our presets the same question: metadata, tensor names ({} stands for the layer) with their layers and shapes, and for
every preset the types of those tensors in that order, run-length encoded; "+imatrix" where that changes the choice.
null stands for a preset that llama-quantize refuses to make of this model.

MODELS has the shapes of models that are simple to describe. `--config` records any other that Thriftbit knows, from its
config.json: hybrids, latent attention, the newest families.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from thriftbit.sources.remote import open_outline

PRESETS = [
    *("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "Q3_K_L", "Q3_K_M", "Q3_K_S"),
    *("Q2_K", "Q2_K_S", "IQ3_M", "IQ3_S", "IQ3_XS", "IQ3_XXS", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"),
    *("Q5_0", "Q5_1", "Q4_0", "Q4_1", "IQ4_NL", "IQ4_XS", "MXFP4_MOE", "TQ2_0", "TQ1_0", "Q2_0", "Q1_0"),
]
KEPT_IN_F32 = ("ffn_gate_inp", "position_embd", "ssm_conv1d", "shortconv.conv")  # by converters
MAPS = Path(__file__).parent.parent / "tests" / "conformance" / "type_maps"


@dataclass(frozen=True)
class Shape:
    """The published hyperparameters of a model. experts: how many; expert_ffn: their width, ffn otherwise."""

    architecture: str
    layers: int
    width: int
    ffn: int
    heads: int
    value_heads: int
    vocabulary: int
    tied: bool = False
    head_width: int = 0
    experts: int = 0
    expert_ffn: int = 0
    attention: str = "separate"  # or "fused" (attn_qkv), "latent" (DeepSeek's)
    gated: bool = True
    fused_gate: bool = False  # gate and up in one matrix, Phi-3's way
    biases: bool = False
    positions: int = 0  # learned position embeddings
    shared_expert_ffn: int = 0
    dense_layers: int = 0  # before the first layer with experts
    extra: Mapping[str, Any] = field(default_factory=dict)


MODELS = {
    "llama-2-7b": Shape("llama", 32, 4096, 11008, 32, 32, 32000),
    "llama-3.2-1b": Shape("llama", 16, 2048, 8192, 32, 8, 128256, tied=True),
    "llama-3-8b": Shape("llama", 32, 4096, 14336, 32, 8, 128256),
    "llama-3-70b": Shape("llama", 80, 8192, 28672, 64, 8, 128256),
    "llama-65b": Shape("llama", 80, 8192, 22016, 64, 64, 32000),
    "smollm2-135m": Shape("llama", 30, 576, 1536, 9, 3, 49152, tied=True),
    "llama-uneven": Shape("llama", 7, 1200, 3216, 12, 4, 1000),  # not real: rows that nothing divides
    "mixtral-8x7b": Shape("llama", 32, 4096, 14336, 32, 8, 32000, experts=8),
    "qwen2.5-0.5b": Shape("qwen2", 24, 896, 4864, 14, 2, 151936, tied=True, biases=True),
    "qwen2.5-72b": Shape("qwen2", 80, 8192, 29568, 64, 8, 152064, biases=True),
    "qwen1.5-moe-a2.7b": Shape(
        "qwen2moe", 24, 2048, 5632, 16, 16, 151936, experts=60, expert_ffn=1408, shared_expert_ffn=5632
    ),
    "qwen3-1.7b": Shape("qwen3", 28, 2048, 6144, 16, 8, 151936, tied=True, head_width=128),
    "qwen3-30b-a3b": Shape(
        "qwen3moe", 48, 2048, 6144, 32, 4, 151936, head_width=128, experts=128, expert_ffn=768
    ),
    "gemma-2-2b": Shape("gemma2", 26, 2304, 9216, 8, 4, 256000, tied=True, head_width=256),
    "gemma-3-1b": Shape("gemma3", 26, 1152, 6912, 4, 1, 262144, tied=True, head_width=256),
    "phi-3-mini": Shape("phi3", 32, 3072, 8192, 32, 32, 32064, attention="fused", fused_gate=True),
    "phi-4-mini": Shape("phi3", 32, 3072, 8192, 24, 8, 200064, tied=True, attention="fused", fused_gate=True),
    "smollm3-3b": Shape("smollm3", 36, 2048, 11008, 16, 4, 128256, tied=True),
    "granite-3.1-2b": Shape("granite", 40, 2048, 8192, 32, 8, 49155, tied=True),
    "olmo-2-7b": Shape("olmo2", 32, 4096, 11008, 32, 32, 100352),
    "gpt2": Shape(
        "gpt2", 12, 768, 3072, 12, 12, 50257, tied=True, attention="fused", gated=False, biases=True, positions=1024
    ),
    "pythia-1.4b": Shape(
        "gptneox", 24, 2048, 8192, 16, 16, 50304, attention="fused", gated=False, biases=True,
        extra={"use_parallel_residual": True, "rope.dimension_count": 32},
    ),
    "starcoder2-3b": Shape("starcoder2", 30, 3072, 12288, 24, 2, 49152, tied=True, gated=False, biases=True),
    "falcon-7b": Shape("falcon", 32, 4544, 18176, 71, 1, 65024, attention="fused", gated=False),
    "falcon-40b": Shape("falcon", 60, 8192, 32768, 128, 8, 65024, attention="fused", gated=False),
    "deepseek-v2-lite": Shape(
        "deepseek2", 27, 2048, 10944, 16, 16, 102400, head_width=192, experts=64, expert_ffn=1408, attention="latent",
        shared_expert_ffn=2816, dense_layers=1,
        extra={"leading_dense_block_count": 1, "attention.kv_lora_rank": 512, "expert_shared_count": 2,
               "expert_weights_scale": 1.0, "rope.dimension_count": 64, "attention.value_length": 128},
    ),
}  # fmt: skip


def metadata(shape: Shape) -> dict[str, int | float]:
    """Return the keys, without the architecture in front, that llama.cpp needs to know such a model."""
    keys: dict[str, int | float] = {
        "block_count": shape.layers,
        "context_length": 4096,
        "embedding_length": shape.width,
        "feed_forward_length": shape.ffn,
        "vocab_size": shape.vocabulary,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.value_heads,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.layer_norm_epsilon": 1e-5,
        "attention.sliding_window": 4096,
        "rope.freq_base": 10000.0,
        "logit_scale": 1.0,
    }
    if shape.head_width:
        keys |= {"attention.key_length": shape.head_width, "attention.value_length": shape.head_width}
    if shape.experts:
        keys |= {"expert_count": shape.experts, "expert_used_count": 2}
    if shape.expert_ffn:
        keys["expert_feed_forward_length"] = shape.expert_ffn
    if shape.shared_expert_ffn:
        keys["expert_shared_feed_forward_length"] = shape.shared_expert_ffn
    return keys | dict(shape.extra)


def tensors(shape: Shape) -> list[Row]:
    """Return (name with {} for the layer, first layer, layer after the last, shape) of every kind of tensor;
    0, 0 for tensors outside of the layers."""
    n, width, dense = shape.layers, shape.width, shape.dense_layers if shape.experts else shape.layers
    head = shape.head_width or width // shape.heads
    queries, values = head * shape.heads, head * shape.value_heads
    table: list[Row] = []

    def add(name: str, *dimensions: int, bias: bool = False, layers: tuple[int, int] = (0, n)) -> None:
        first, last = layers if name.startswith("blk.") else (0, 0)
        table.append((f"{name}.weight", first, last, dimensions))
        if bias and shape.biases:
            table.append((f"{name}.bias", first, last, dimensions[:-1]))

    add("token_embd", shape.vocabulary, width)
    if shape.positions:
        add("position_embd", shape.positions, width)
    add("output_norm", width)
    if not shape.tied:
        add("output", shape.vocabulary, width)
    add("blk.{}.attn_norm", width)
    if shape.attention == "fused":
        add("blk.{}.attn_qkv", queries + 2 * values, width, bias=True)
    elif shape.attention == "latent":
        add("blk.{}.attn_q", queries, width)
        add("blk.{}.attn_kv_a_mqa", 512 + 64, width)
        add("blk.{}.attn_kv_a_norm", 512)
        add("blk.{}.attn_kv_b", 16 * (128 + 128), 512)
        queries = 16 * 128
    else:
        add("blk.{}.attn_q", queries, width, bias=True)
        add("blk.{}.attn_k", values, width, bias=True)
        add("blk.{}.attn_v", values, width, bias=True)
    add("blk.{}.attn_output", width, queries)
    add("blk.{}.ffn_norm", width)
    if dense:
        if shape.gated and not shape.fused_gate:
            add("blk.{}.ffn_gate", shape.ffn, width, layers=(0, dense))
        add("blk.{}.ffn_up", shape.ffn * (1 + shape.fused_gate), width, bias=True, layers=(0, dense))
        add("blk.{}.ffn_down", width, shape.ffn, bias=True, layers=(0, dense))
    if shape.experts:
        sparse, inner = (dense if shape.dense_layers else 0, n), shape.expert_ffn or shape.ffn
        add("blk.{}.ffn_gate_inp", shape.experts, width, layers=sparse)
        add("blk.{}.ffn_gate_exps", shape.experts, inner, width, layers=sparse)
        add("blk.{}.ffn_up_exps", shape.experts, inner, width, layers=sparse)
        add("blk.{}.ffn_down_exps", shape.experts, width, inner, layers=sparse)
        if shape.shared_expert_ffn:
            add("blk.{}.ffn_gate_shexp", shape.shared_expert_ffn, width, layers=sparse)
            add("blk.{}.ffn_up_shexp", shape.shared_expert_ffn, width, layers=sparse)
            add("blk.{}.ffn_down_shexp", width, shape.shared_expert_ffn, layers=sparse)
    return table


Row = tuple[str, int, int, tuple[int, ...]]  # name with {} for the layer, first layer, layer after the last, shape


@dataclass(frozen=True)
class Subject:
    """A model to ask about. keys: its metadata, without the architecture in front."""

    architecture: str
    keys: Mapping[str, Any]
    rows: list[Row]

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield (name, shape) of every tensor, in the order in which types are recorded."""
        for name, first, last, dimensions in self.rows:
            for layer in range(first, last) if last else [0]:
                yield name.format(layer), dimensions


def of_shape(shape: Shape) -> Subject:
    return Subject(shape.architecture, metadata(shape), tensors(shape))


def of_config(config: Path) -> Subject:
    """Return the model that a config.json describes, as Thriftbit converts it."""
    with tempfile.TemporaryDirectory() as folder:
        model = open_outline(shutil.copy(config, Path(folder) / "config.json"), offline=True).model
    shapes: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    for tensor in model.tensors:
        block = re.match(r"blk\.(\d+)\.", tensor.name)
        name = tensor.name.replace(block[0], "blk.{}.", 1) if block else tensor.name
        shapes.setdefault((name, tensor.shape), []).append(int(block[1]) if block else -1)
    rows = [(name, first, last, shape) for (name, shape), layers in shapes.items() for first, last in runs(layers)]
    own = f"{model.architecture}."
    keys = {key.removeprefix(own): plain(value) for key, value in model.metadata.items() if key.startswith(own)}
    return Subject(model.architecture, keys, rows)


def runs(layers: list[int]) -> Iterator[tuple[int, int]]:
    """Yield (first, after the last) of layers that follow one another; 0, 0 for what is in no layer."""
    for _, group in itertools.groupby(enumerate(layers), lambda pair: pair[1] - pair[0]):
        numbers = [layer for _, layer in group]
        yield (0, 0) if numbers[0] < 0 else (numbers[0], numbers[-1] + 1)


def plain(value: Any) -> Any:
    """Return a metadata value as JSON has it."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def write_hollow_gguf(subject: Subject, path: Path) -> None:
    """A GGUF with a true header and no weights: matrices F16, the rest F32, as converters write them."""
    writer = gguf.GGUFWriter(path, subject.architecture)
    kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    for key, value in subject.keys.items():
        add = kinds.get(type(value), writer.add_array)
        add(f"{subject.architecture}.{key}", value)
    for name, dimensions in subject.tensors():
        single = len(dimensions) == 1 or not name.endswith("weight") or any(part in name for part in KEPT_IN_F32)
        dtype = np.dtype(np.float32 if single else np.float16)
        writer.add_tensor_info(name, dimensions, dtype, int(np.prod(dimensions)) * dtype.itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    size = sum(-(-info.nbytes // 32) * 32 for info in writer.tensors[0].values())
    writer.close()
    with path.open("r+b") as file:
        file.truncate(-(-path.stat().st_size // 32) * 32 + size)


def write_imatrix(path: Path) -> None:
    """Importance data for one tensor: its presence is all that changes the choice of types."""
    writer = gguf.GGUFWriter(path, "")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["text"])
    writer.add_uint32("imatrix.chunk_count", 1)
    writer.add_uint32("imatrix.chunk_size", 512)
    writer.add_tensor("blk.0.ffn_down.weight.in_sum2", np.ones((1, 32), np.float32))
    writer.add_tensor("blk.0.ffn_down.weight.counts", np.ones((1, 1), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def chosen_types(quantize: Path, model: Path, preset: str, imatrix: Path | None) -> dict[str, str] | None:
    """Return tensor name to GGML type name, as llama-quantize prints them; None where it has none for some rows."""
    options = ["--imatrix", str(imatrix)] if imatrix else []
    command = [str(quantize), *options, "--dry-run", str(model), preset]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if "no tensor type fallback is defined" in result.stdout + result.stderr:
        return None
    if result.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
    line = re.compile(
        r"\] +(\S+) +- \[[^\]]*\], type = +(\w+), size = .*? MiB(?: -> .*? MiB \((\w+)\))?$", re.MULTILINE
    )
    found = line.findall(result.stdout + result.stderr)
    return {name: (after or before).upper() for name, before, after in found}


def run_lengths(types: list[str]) -> str:
    groups = [(name, len(list(group))) for name, group in itertools.groupby(types)]
    return " ".join(name if count == 1 else f"{count}*{name}" for name, count in groups)


def record(quantize: Path, version: str, name: str, subject: Subject, folder: Path) -> None:
    model, imatrix = folder / f"{name}.gguf", folder / "imatrix.gguf"
    write_hollow_gguf(subject, model)
    write_imatrix(imatrix)
    types: dict[str, str | None] = {}
    for preset in PRESETS:
        for given, suffix in ((None, ""), (imatrix, "+imatrix")):
            chosen = chosen_types(quantize, model, preset, given)
            text = chosen and run_lengths([chosen[tensor] for tensor, _ in subject.tensors()])
            if not suffix or text != types[preset]:
                types[preset + suffix] = text
    model.unlink()
    sections: dict[str, Any] = {
        "recorded_from": f"llama-quantize {version} --dry-run",
        "architecture": subject.architecture,
    }
    head = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in sections.items()]
    head.append(f'"metadata": {json.dumps(subject.keys)}')
    rows = ",\n".join(f"  {json.dumps(row)}" for row in subject.rows)
    maps = ",\n".join(f"  {json.dumps(preset)}: {json.dumps(text)}" for preset, text in types.items())
    body = ",\n".join([*head, f'"tensors": [\n{rows}\n]', f'"types": {{\n{maps}\n}}'])
    (MAPS / f"{name}.json").write_text(f"{{\n{body}\n}}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("llama_quantize", type=Path)
    parser.add_argument("--version", required=True, help="the llama.cpp build, for the record")
    parser.add_argument("models", nargs="*", help="of MODELS; all of them by default")
    parser.add_argument("--config", action="append", default=[], metavar="NAME=FILE", help="in place of MODELS")
    options = parser.parse_args()
    MAPS.mkdir(parents=True, exist_ok=True)
    configs = [given.partition("=")[::2] for given in options.config]
    subjects = {name: of_config(Path(file)) for name, file in configs}
    names = options.models or ([] if subjects else MODELS)
    subjects |= {name: of_shape(MODELS[name]) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for name, subject in subjects.items():
            record(options.llama_quantize, options.version, name, subject, Path(folder))
            print(name, flush=True)


if __name__ == "__main__":
    main()

"""Peak memory while quantizing, whatever the size of the model and of its largest tensor.

    python benchmarks/memory.py [--size-gb 2] [--to Q4_K_M] [--folder DIR]

Two synthetic checkpoints in bfloat16, in shards as people download them: one in the shape of Llama 2 7B, with as many
layers as the size asks for (14 GB are about all of it), and one that is nearly all one embedding matrix. Each is
quantized in a process of its own, whose peak resident memory (VmHWM on Linux) is read at its end. Weights are one
random block, repeated: encoding takes what it takes on real ones. Tells first how much disk it needs, and removes
everything it wrote.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

BOUND_BYTES = 1_500_000_000
LARGEST_SHARD_BYTES, LEAST_SHARDS = 5_000_000_000, 3
DISK_SHARE = 2  # checkpoint and result, of the checkpoint's size: enough for results of 16 bits and less
BLOCK_WEIGHTS = 8 << 20

Shapes = dict[str, tuple[int, ...]]


def llama_shapes(layers: int, vocabulary: int, width: int, ffn: int) -> Shapes:
    layer = {
        "input_layernorm": (width,),
        "self_attn.q_proj": (width, width),
        "self_attn.k_proj": (width, width),
        "self_attn.v_proj": (width, width),
        "self_attn.o_proj": (width, width),
        "post_attention_layernorm": (width,),
        "mlp.gate_proj": (ffn, width),
        "mlp.up_proj": (ffn, width),
        "mlp.down_proj": (width, ffn),
    }
    shapes: Shapes = {"model.embed_tokens.weight": (vocabulary, width), "model.norm.weight": (width,)}
    for number in range(layers):
        shapes |= {f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()}
    return shapes


def checkpoint_of(kind: str, size_bytes: int) -> tuple[dict[str, Any], Shapes]:
    """Return (config.json, tensor shapes) of about this size in bfloat16."""
    if kind == "many layers":
        vocabulary, width, ffn = (32000, 4096, 11008) if size_bytes >= 1e9 else (8000, 1024, 2816)
        rest, layer = 2 * vocabulary * width, 4 * width * width + 3 * width * ffn
        layers = max(1, round((size_bytes / 2 - rest / 2) / layer))
    else:
        width, ffn, layers = 2048, 2048, 1
        vocabulary = round(size_bytes / 2 / width)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 128,
        "num_key_value_heads": width // 128,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
    }
    return config, llama_shapes(layers, vocabulary, width, ffn)


def shards_of(shapes: Shapes) -> Iterator[Shapes]:
    shard: Shapes = {}
    limit_bytes = min(LARGEST_SHARD_BYTES, sum(map(_bfloat16_bytes, shapes.values())) / LEAST_SHARDS)
    for name, shape in shapes.items():
        if shard and sum(map(_bfloat16_bytes, shard.values())) + _bfloat16_bytes(shape) > limit_bytes:
            yield shard
            shard = {}
        shard[name] = shape
    yield shard


def write_checkpoint(folder: Path, config: Mapping[str, Any], shapes: Shapes) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    normal = np.random.default_rng(0).standard_normal(BLOCK_WEIGHTS, np.float32) * np.float32(0.02)
    block = memoryview((normal.view(np.uint32) >> 16).astype("<u2").tobytes())
    shards = list(shards_of(shapes))
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        weight_map |= dict.fromkeys(shard, name)
        write_safetensors(folder / name, shard, block)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def write_safetensors(path: Path, shapes: Shapes, block: memoryview) -> None:
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + _bfloat16_bytes(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    raw = json.dumps(header).encode()
    with path.open("wb", buffering=0) as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        while end:
            end -= file.write(block[: min(end, len(block))])


def _bfloat16_bytes(shape: tuple[int, ...]) -> int:
    return 2 * int(np.prod(shape))


def quantize_and_report(folder: Path, preset: str) -> None:
    """The measured process: what `thriftbit quantize` does with the folder, but for the tokenizer, which it lacks"""
    from thriftbit.quantization.plan import make_plan
    from thriftbit.quantization.quantize import quantize
    from thriftbit.sources.architectures import find_architecture
    from thriftbit.sources.checkpoint import open_checkpoint
    from thriftbit.sources.model import Model

    checkpoint = open_checkpoint(folder)
    architecture = find_architecture(checkpoint.config)
    metadata, tensors = architecture.metadata(checkpoint.config), tuple(architecture.map_tensors(checkpoint))
    model = Model(architecture.gguf_name, metadata, tensors, str(folder))
    before_bytes = peak_bytes()
    result = quantize(model, make_plan(model, preset), folder / "output.gguf")
    row = {
        "source_bytes": 2 * model.parameters,
        "largest_tensor_bytes": 2 * max(tensor.parameters for tensor in model.tensors),
        "output_bytes": result.size_bytes,
        "seconds": round(result.seconds, 2),
        "before_bytes": before_bytes,
        "peak_bytes": peak_bytes(),
    }
    print(json.dumps(row))


def peak_bytes() -> int:
    """Return the most memory this process has had resident; on Linux ru_maxrss would count its parent's too."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(kind: str, size_bytes: int, preset: str, parent: Path) -> dict[str, Any]:
    config, shapes = checkpoint_of(kind, size_bytes)
    with tempfile.TemporaryDirectory(dir=parent) as scratch:
        folder = Path(scratch) / "model"
        write_checkpoint(folder, config, shapes)
        os.sync()  # so that writing it is not measured
        command = [sys.executable, __file__, "--measure", str(folder), "--to", preset]
        started = time.perf_counter()
        result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return {"kind": kind, **json.loads(result.stdout), "process_seconds": round(time.perf_counter() - started, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-gb", type=float, default=2)
    parser.add_argument("--to", default="Q4_K_M")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where there is room")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        quantize_and_report(options.measure, options.to)
        return
    needed_gb, free_gb = DISK_SHARE * options.size_gb, shutil.disk_usage(options.folder).free / 1e9
    print(f"needs {needed_gb:.1f} GB in {options.folder} for a while; {free_gb:.1f} GB are free", flush=True)
    if free_gb < needed_gb:
        raise SystemExit("too little: choose a smaller --size-gb, or another --folder")
    rows = [
        measure(kind, round(options.size_gb * 1e9), options.to, options.folder)
        for kind in ("many layers", "one huge tensor")
    ]
    print(f"{'checkpoint':<16}{'GB':>7}{'largest tensor':>16}{'to':>8}{'seconds':>9}{'peak MB':>9}")
    for row in rows:
        print(
            f"{row['kind']:<16}{row['source_bytes'] / 1e9:>7.2f}{row['largest_tensor_bytes'] / 1e9:>13.2f} GB"
            f"{options.to:>8}{row['seconds']:>9.1f}{row['peak_bytes'] / 1e6:>9.0f}"
        )
    worst_bytes = max(row["peak_bytes"] for row in rows)
    print(json.dumps({"benchmark": "memory", "to": options.to, "bound_bytes": BOUND_BYTES, "rows": rows}))
    if worst_bytes > BOUND_BYTES:
        raise SystemExit(f"peak of {worst_bytes / 1e6:.0f} MB, over the bound of {BOUND_BYTES / 1e6:.0f} MB")


if __name__ == "__main__":
    main()

"""What we say a model takes, against what llama.cpp plans for it.

Before it loads anything, llama.cpp plans all of its buffers from the header alone. So a file that has a header and
holes in place of weights is enough to ask it about a model of any size; it is ended before it reads what is not there.
The models in `memory/` are tiny ones of families with other kinds of layers; their tensors are those that llama.cpp
asked for.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thriftbit.containers.entry import Entry
from thriftbit.containers.gguf_values import Metadata, MetadataValue
from thriftbit.containers.gguf_writer import layout
from thriftbit.formats import format_named
from thriftbit.machine.detect import detect
from thriftbit.machine.kv_cache import cache_bytes
from thriftbit.machine.memory_needed import compute_bytes, repacked_bytes
from thriftbit.machine.model_shape import ModelShape, shape_of
from thriftbit.quantization.gguf_file import file_metadata
from thriftbit.quantization.plan import make_plan
from thriftbit.sources.remote import open_outline

TINY = sorted(path.stem for path in (Path(__file__).parent / "memory").glob("*.json"))
HYBRIDS = sorted((Path(__file__).parent / "memory" / "configurations").iterdir())
CONFIGURATIONS = Path(__file__).parents[1] / "unit" / "advice" / "configurations"
MEBIBYTE = 1 << 20
ASKING = """
import sys, xllamacpp
settings = xllamacpp.CommonParams()
settings.model.path, settings.n_ctx, settings.n_parallel, settings.verbosity = sys.argv[1], int(sys.argv[2]), 1, 5
settings.n_gpu_layers, settings.cpuparams.n_threads, settings.offline, settings.cache_ram_mib = 0, 1, True, 0
for name in sys.argv[3:]:
    settings.cache_type_k = settings.cache_type_v = getattr(xllamacpp.ggml_type, name)
xllamacpp.Server(settings)
"""


@dataclass(frozen=True)
class Planned:
    """Bytes, to the hundredth of a mebibyte that the log has."""

    cache: float
    compute: float | None
    repacked: int


def ask(path: Path, context_tokens: int, *cache_type: str) -> Planned:
    """Return what llama.cpp plans; it is stopped before it loads."""
    command = [sys.executable, "-c", ASKING, str(path), str(context_tokens), *cache_type]
    lines = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace", text=True
    ) as run:
        assert run.stdout is not None
        for line in run.stdout:
            lines.append(line)
            if "common_params_fit_impl: projected" in line or "will leave" in line:
                break
        run.kill()
    log = "".join(lines)
    sizes = re.findall(r"(?:llama_kv_cache|llama_memory_recurrent): size = +([\d.]+) MiB", log)
    assert sizes, log[-2000:]
    compute = re.search(r"compute buffer size = +([\d.]+) MiB", log)
    repacked = re.search(r"CPU_REPACK +\| +(\d+) ", log)
    return Planned(
        cache=MEBIBYTE * sum(map(float, sizes)),
        compute=MEBIBYTE * float(compute[1]) if compute else None,
        repacked=MEBIBYTE * int(repacked[1]) if repacked else 0,
    )


def write_hollow(path: Path, metadata: Metadata, entries: Sequence[Entry]) -> Path:
    """A GGUF whose weights are holes in the file"""
    planned = layout(metadata, entries)
    with path.open("wb") as file:
        file.write(planned.header)
        file.truncate(planned.file_size_bytes)
    return path


def typed(value: Any) -> MetadataValue:
    if isinstance(value, str | bool):
        return value
    values = np.asarray(value)
    return values.astype(np.float32 if values.dtype.kind == "f" else np.uint32)[()]


def tiny(name: str) -> tuple[Metadata, list[Entry]]:
    document = json.loads((Path(__file__).parent / "memory" / f"{name}.json").read_text())
    metadata = {key: typed(value) for key, value in document["metadata"].items()}
    return metadata, [Entry(name, tuple(shape), format_named("F32")) for name, shape in document["tensors"].items()]


def hollow_model(name: str, preset: str, path: Path) -> tuple[Path, ModelShape]:
    """Return a published model by its configuration, with no vocabulary but its length."""
    model = open_outline(CONFIGURATIONS / name).model  # a whole path stays as it is
    plan = make_plan(model, preset)
    entries = plan.entries(model)
    tokens = next(entry.shape[0] for entry in entries if entry.name == "token_embd.weight")
    metadata = dict(file_metadata(model, plan, None, ""))
    metadata |= {"tokenizer.ggml.model": "no_vocab", f"{model.architecture}.vocab_size": np.uint32(tokens)}
    return write_hollow(path, metadata, entries), shape_of(model.architecture, model.metadata, entries)


def instruction_sets_here() -> tuple[str, ...]:
    return detect().processor.instruction_sets.value or ()


@pytest.mark.parametrize("name", TINY)
def test_what_every_kind_of_layer_keeps(name: str, tmp_path: Path) -> None:
    metadata, entries = tiny(name)
    shape = shape_of(name, metadata, entries)
    planned = ask(write_hollow(tmp_path / "tiny.gguf", metadata, entries), 1024)
    assert shape.layers is not None
    assert cache_bytes(shape.layers, 1024) == pytest.approx(planned.cache, abs=0.011 * MEBIBYTE)


@pytest.mark.parametrize("folder", HYBRIDS, ids=lambda folder: folder.name)
def test_published_hybrids_keep_what_their_tables_say(folder: Path, tmp_path: Path) -> None:
    """Layers with states, with short convolutions, without either, and with attention in chunks, by their published
    configurations."""
    path, shape = hollow_model(str(folder), "Q4_K_M", tmp_path / "hollow.gguf")
    assert shape.layers is not None
    assert cache_bytes(shape.layers, 4096) == pytest.approx(ask(path, 4096).cache, abs=0.011 * MEBIBYTE)


@pytest.mark.parametrize("context_tokens", [512, 16384])
@pytest.mark.parametrize("name", ["mistral-7b", "qwen3-30b-a3b", "gemma-3-27b", "llama-3-70b"])
def test_published_models(name: str, context_tokens: int, tmp_path: Path) -> None:
    path, shape = hollow_model(name, "Q4_K_M", tmp_path / "hollow.gguf")
    planned = ask(path, context_tokens)
    assert shape.layers is not None and planned.compute is not None
    assert cache_bytes(shape.layers, context_tokens) == pytest.approx(planned.cache, rel=1e-3)
    assert compute_bytes(shape, context_tokens) - 4 * shape.tokens == pytest.approx(planned.compute, rel=0.01)
    assert repacked_bytes(shape.entries, instruction_sets_here()) == pytest.approx(
        planned.repacked, rel=1e-3, abs=MEBIBYTE
    )


@pytest.mark.parametrize(("given", "ours"), [("GGML_TYPE_Q8_0", "Q8_0"), ("GGML_TYPE_Q4_0", "Q4_0")])
def test_a_cache_in_fewer_bits(given: str, ours: str, tmp_path: Path) -> None:
    path, shape = hollow_model("mistral-7b", "Q4_K_M", tmp_path / "hollow.gguf")
    assert shape.layers is not None
    assert cache_bytes(shape.layers, 4096, ours, ours) == pytest.approx(ask(path, 4096, given).cache, rel=1e-3)


@pytest.mark.parametrize("name", ["gpt-oss-20b", "gemma-4-e4b", "gemma-4-26b-a4b"])
def test_layers_with_windows_and_others(name: str, tmp_path: Path) -> None:
    """Every second layer looks back through a window, or five of six do; in E4B the last 18 layers keep nothing."""
    path, shape = hollow_model(name, "Q8_0", tmp_path / "hollow.gguf")
    planned = ask(path, 8192)
    assert shape.layers is not None and planned.compute is not None
    assert cache_bytes(shape.layers, 8192) == pytest.approx(planned.cache, rel=1e-3)
    assert 0.98 * planned.compute <= compute_bytes(shape, 8192) <= 1.3 * planned.compute

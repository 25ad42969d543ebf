"""Threads that the system does not give, and weights in 64 bits."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from conftest import RunThriftbit
from thriftbit.containers.ggml_types import format_for
from thriftbit.containers.gguf_reader import read_gguf
from thriftbit.sources.open_model import open_model

# What llama.cpp and we were given to start with is kept; every further thread takes more address space than is left.
FEW_THREADS = """
import resource, sys
import numpy as np
from thriftbit.formats import format_named
rows = np.random.default_rng(0).standard_normal((4096, 1024), np.float32)
format = format_named(sys.argv[1])
whole = format.encode(rows, None, 1)
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (60 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
assert (format.encode(rows, None, 256) == whole).all()
print("the same")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are Linux's")
@pytest.mark.parametrize("name", ["Q4_K", "Q8_0"])
def test_a_thread_that_cannot_start_does_not_end_the_program(name: str) -> None:
    result = subprocess.run([sys.executable, "-c", FEW_THREADS, name], capture_output=True, text=True)
    assert result.stdout == "the same\n", result.stderr


@pytest.mark.parametrize("count", [-5, 0, 1, 100_000])
def test_any_number_of_threads_gives_the_same_bytes(count: int) -> None:
    from thriftbit.formats import format_named

    rows = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
    format = format_named("Q4_K")
    assert (format.encode(rows, None, count) == format.encode(rows, None, 1)).all()


def test_a_thousand_threads_are_refused_in_words(run_thriftbit: RunThriftbit, tiny_llama: Path) -> None:
    result = run_thriftbit("quantize", tiny_llama, "--to", "Q8_0", "--threads", "1000")
    assert result.returncode == 2 and "1<=x<=512" in result.stderr


@pytest.fixture(scope="module")
def in_64_bits(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-f64"
    shutil.copytree(tiny_llama, folder)
    weights = load_file(folder / "model.safetensors")
    save_file({name: values.astype(np.float64) for name, values in weights.items()}, folder / "model.safetensors")
    return folder


def test_a_checkpoint_in_64_bits_goes_through_every_command(
    in_64_bits: Path, tiny_llama: Path, run_thriftbit: RunThriftbit, tmp_path: Path
) -> None:
    for arguments in (
        ["quantize", in_64_bits, "--to", "Q4_K_M", "-o", "a.gguf"],
        ["inspect", in_64_bits],
        ["fit", in_64_bits],
    ):
        result = run_thriftbit(*arguments, "--json")
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout)
    assert run_thriftbit("quantize", tiny_llama, "--to", "Q4_K_M", "-o", "b.gguf").returncode == 0
    ours, plain = (read_gguf(tmp_path / name) for name in ("a.gguf", "b.gguf"))
    for one, other in zip(ours.tensors, plain.tensors, strict=True):
        assert (ours.read(one) == plain.read(other)).all()


def test_its_size_is_that_of_its_files(in_64_bits: Path) -> None:
    model = open_model(in_64_bits)
    assert model.size_bytes == 8 * model.parameters


def test_a_gguf_in_64_bits_is_read() -> None:
    from gguf import GGMLQuantizationType

    values = np.array([[1.5, -2.0, 3.25, 0.0]])
    decoded = format_for(GGMLQuantizationType.F64).decode(values.view(np.uint8))
    assert decoded.dtype == np.float32 and (decoded == values).all()

"""Reading safetensors: every dtype gives the float32 values it stands for, by any range of rows, in bounded memory."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from thriftbit.errors import ThriftbitError
from thriftbit.sources.safetensors_file import read_safetensors

torch = pytest.importorskip("torch")
save_file = pytest.importorskip("safetensors.torch").save_file

STORED = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}


def save(path: Path, tensors: dict[str, tuple[str, np.ndarray]]) -> Path:
    """tensors: name -> (dtype of the file, values)"""
    save_file({name: torch.from_numpy(values).to(STORED[dtype]) for name, (dtype, values) in tensors.items()}, path)
    return path


def exact_values(*shape: int) -> np.ndarray:
    """Return values that every dtype holds exactly: multiples of 1/8 below 16, of both signs."""
    return (np.random.default_rng(7).integers(-128, 128, shape) / 8).astype(np.float32)


@pytest.mark.parametrize("dtype", STORED)
def test_every_dtype_reads_as_its_values(tmp_path: Path, dtype: str) -> None:
    values = exact_values(5, 6)
    (tensor,) = read_safetensors(save(tmp_path / "m.safetensors", {"w": (dtype, values)})).values()
    assert (tensor.name, tensor.shape, tensor.source_dtype) == ("w", (5, 6), dtype)
    loaded = tensor.load()
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, values)


@pytest.mark.parametrize("dtype", STORED)
def test_special_values_survive(tmp_path: Path, dtype: str) -> None:
    values = np.array([[np.inf, -np.inf, np.nan, -0.0]], np.float32)
    (tensor,) = read_safetensors(save(tmp_path / "m.safetensors", {"w": (dtype, values)})).values()
    loaded = tensor.load()
    np.testing.assert_array_equal(loaded, values)
    assert np.signbit(loaded[0, 3])


@pytest.mark.parametrize(("shape", "rows", "width"), [((7,), 1, 7), ((3, 4), 3, 4), ((2, 3, 4), 6, 4)])
def test_rows_are_everything_but_the_last_axis(tmp_path: Path, shape: tuple[int, ...], rows: int, width: int) -> None:
    values = exact_values(*shape)
    tensor = read_safetensors(save(tmp_path / "m.safetensors", {"w": ("BF16", values)}))["w"]
    flat = values.reshape(rows, width)
    for start in range(rows + 1):
        for stop in range(start, rows + 1):
            np.testing.assert_array_equal(tensor.load(start, stop), flat[start:stop])


def test_a_scalar_is_one_row_of_one(tmp_path: Path) -> None:
    path = save(tmp_path / "m.safetensors", {"s": ("F32", np.array(2.5, np.float32))})
    np.testing.assert_array_equal(read_safetensors(path)["s"].load(), [[2.5]])


def test_several_tensors_keep_apart(tmp_path: Path) -> None:
    tensors = {f"t{i}": (dtype, exact_values(i + 1, 3)) for i, dtype in enumerate(STORED)}
    read = read_safetensors(save(tmp_path / "m.safetensors", tensors))
    assert read.keys() == tensors.keys()
    for name, (_, values) in tensors.items():
        np.testing.assert_array_equal(read[name].load(), values)


@pytest.mark.parametrize(
    ("dtype", "kind"), [(torch.int64, "I64"), (torch.float8_e4m3fn, "F8_E4M3"), (torch.bool, "BOOL")]
)
def test_other_dtypes_are_listed_and_refused_as_weights(tmp_path: Path, dtype: torch.dtype, kind: str) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"counts": torch.zeros(2, dtype=dtype)}, path)
    tensor = read_safetensors(path)["counts"]
    assert tensor.source_dtype == kind
    with pytest.raises(ThriftbitError, match=rf"'counts' is stored as {kind}"):
        tensor.load()


def test_float64_beyond_float32_becomes_infinite_quietly(tmp_path: Path) -> None:
    path = save(tmp_path / "m.safetensors", {"w": ("F64", np.array([[1e300, -1e300, 1.0]]))})
    np.testing.assert_array_equal(read_safetensors(path)["w"].load(), [[np.inf, -np.inf, 1.0]])


def test_rows_outside_the_tensor_are_a_bug_of_the_caller(tmp_path: Path) -> None:
    tensor = read_safetensors(save(tmp_path / "m.safetensors", {"w": ("F32", exact_values(3, 2))}))["w"]
    for start, stop in ((-1, 2), (0, 4), (2, 1)):
        with pytest.raises(IndexError, match="'w'"):
            tensor.read(start, stop)


def test_a_file_cut_short_after_opening_is_told(tmp_path: Path) -> None:
    path = save(tmp_path / "m.safetensors", {"w": ("F32", exact_values(3, 2))})
    tensor = read_safetensors(path)["w"]
    path.write_bytes(path.read_bytes()[:-1])
    assert tensor.load(0, 2).shape == (2, 2)
    with pytest.raises(ThriftbitError, match="ends inside 'w'"):
        tensor.load(2, 3)


def test_threads_read_at_once(tmp_path: Path) -> None:
    values = exact_values(400, 64)
    tensor = read_safetensors(save(tmp_path / "m.safetensors", {"w": ("BF16", values)}))["w"]
    ranges = [(start, min(start + 7, 400)) for start in range(0, 400, 3)] * 4
    with ThreadPoolExecutor(8) as pool:
        for (start, stop), rows in zip(ranges, pool.map(lambda r: tensor.read(*r), ranges), strict=True):
            np.testing.assert_array_equal(rows, values[start:stop])


def test_memory_is_that_of_the_rows_read(tmp_path: Path) -> None:
    path = save(tmp_path / "m.safetensors", {"w": ("BF16", np.zeros((4096, 4096), np.float32))})
    tracemalloc.start()
    try:
        tensor = read_safetensors(path)["w"]
        for start, stop in tensor.chunks(1 << 20):
            tensor.load(start, stop)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4 << 20  # of a tensor of 64 MiB as float32

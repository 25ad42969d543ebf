from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from thriftbit.errors import ThriftbitError
from thriftbit.quantization.importance import Coverage, read_importance
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import FloatArray

QUERY, EXPERTS = "blk.0.attn_q.weight", "blk.0.ffn_down_exps.weight"
QUERY_MEANS = np.linspace(1, 2, 256, dtype=np.float32)
EXPERT_MEANS = np.stack([np.linspace(3, 4, 256, dtype=np.float32), np.zeros(256, np.float32)])


def write_gguf(path: Path, sums: Mapping[str, tuple[FloatArray, list[float]]]) -> Path:
    """As llama-imatrix writes: name -> (sums of squares, counts)"""
    writer = gguf.GGUFWriter(path, "")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["wiki.txt", "code.txt"])
    writer.add_uint32("imatrix.chunk_count", 7)
    writer.add_uint32("imatrix.chunk_size", 512)
    for name, (squares, counts) in sums.items():
        writer.add_tensor(f"{name}.in_sum2", squares)
        writer.add_tensor(f"{name}.counts", np.array(counts, np.float32).reshape(-1, 1))
        writer.add_tensor(f"{name}.in_sum", squares)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def dat(values: Mapping[str, FloatArray], calls: int = 5, end: bytes | None = None) -> bytes:
    parts = [struct.pack("<i", len(values))]
    for name, numbers in values.items():
        raw = name.encode()
        parts += [struct.pack("<i", len(raw)), raw, struct.pack("<ii", calls, numbers.size)]
        parts.append((numbers * calls).astype("<f4").tobytes())
    return b"".join([*parts, struct.pack("<ii", 9, 8) + b"wiki.txt" if end is None else end])


@pytest.fixture(params=["gguf", "dat"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "gguf":
        counts = np.array([[100], [1]], np.float32)
        sums = {QUERY: (QUERY_MEANS[np.newaxis] * 10, [10.0]), EXPERTS: (EXPERT_MEANS * counts, [100.0, 0.0])}
        return write_gguf(tmp_path / "imatrix.gguf", sums)
    (tmp_path / "imatrix.dat").write_bytes(dat({QUERY: QUERY_MEANS, EXPERTS: EXPERT_MEANS}))
    return tmp_path / "imatrix.dat"


def test_both_kinds_give_mean_squares_for_each_matrix(path: Path, model: Model) -> None:
    importance = read_importance(path)
    tensors = {tensor.name: tensor for tensor in model.tensors}
    np.testing.assert_allclose(importance.for_tensor(tensors[QUERY]), QUERY_MEANS[np.newaxis], rtol=1e-6)
    experts = importance.for_tensor(tensors[EXPERTS])
    assert experts is not None
    np.testing.assert_allclose(experts[0], EXPERT_MEANS[0], rtol=1e-6)
    assert (experts[1] == 1).all(), "an expert without data gets equal weights"
    assert importance.for_tensor(tensors["output.weight"]) is None


def test_what_the_file_says_of_itself(path: Path) -> None:
    importance = read_importance(path)
    assert set(importance.entries) == {QUERY, EXPERTS}
    assert importance.datasets[0] == "wiki.txt"
    assert importance.chunks == {"gguf": 7, "dat": 9}[path.suffix[1:]]


def test_what_is_not_covered_is_reported(path: Path, model: Model) -> None:
    assert read_importance(path).check(model) == Coverage(("blk.0.attn_v.weight",), {EXPERTS: 1})


def test_another_model_is_noticed(path: Path, model: Model) -> None:
    importance = read_importance(path)
    renamed = tuple(tensor.renamed(f"x{tensor.name}") for tensor in model.tensors)
    with pytest.raises(ThriftbitError, match="knows none of the tensors of tiny"):
        importance.check(replace(model, tensors=renamed))
    narrower = tuple(replace(tensor, shape=(*tensor.shape[:-1], 32)) for tensor in model.tensors)
    with pytest.raises(ThriftbitError, match=rf"256 values for {QUERY}, which takes 1 × 32"):
        importance.check(replace(model, tensors=narrower))


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_impossible_values_are_refused(tmp_path: Path, model: Model, value: float) -> None:
    means = QUERY_MEANS.copy()
    means[17] = value
    (tmp_path / "bad.dat").write_bytes(dat({QUERY: means}))
    with pytest.raises(ThriftbitError, match=rf"{QUERY} has negative or non-finite values"):
        read_importance(tmp_path / "bad.dat").check(model)


def test_a_signalling_nan_is_refused_without_a_warning(tmp_path: Path, model: Model) -> None:
    first = (QUERY_MEANS[:1] * 5).astype("<f4").tobytes()
    (tmp_path / "bad.dat").write_bytes(dat({QUERY: QUERY_MEANS}).replace(first, b"\x01\x00\x80\x7f", 1))
    with pytest.raises(ThriftbitError, match=rf"{QUERY} has negative or non-finite values"):
        read_importance(tmp_path / "bad.dat").check(model)


def test_one_count_serves_all_matrices(tmp_path: Path, model: Model) -> None:
    path = write_gguf(tmp_path / "one.gguf", {EXPERTS: ((EXPERT_MEANS + 1) * 4, [4.0])})
    experts = next(tensor for tensor in model.tensors if tensor.name == EXPERTS)
    np.testing.assert_allclose(read_importance(path).for_tensor(experts), EXPERT_MEANS + 1, rtol=1e-6)


def test_a_gguf_that_is_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ThriftbitError, match="holds no importance data"):
        read_importance(write_gguf(tmp_path / "empty.gguf", {}))
    with pytest.raises(ThriftbitError, match="no counts that fit"):
        read_importance(write_gguf(tmp_path / "odd.gguf", {QUERY: (QUERY_MEANS[np.newaxis], [1.0, 2.0, 3.0])}))


def test_an_old_file_may_end_after_its_entries(tmp_path: Path) -> None:
    (tmp_path / "old.dat").write_bytes(dat({QUERY: QUERY_MEANS}, end=b""))
    importance = read_importance(tmp_path / "old.dat")
    assert (importance.chunks, importance.datasets) == (0, ())


def test_every_truncation_is_told_or_harmless(tmp_path: Path) -> None:
    whole = dat({"a.weight": np.ones(3, np.float32), "b.weight": np.ones(2, np.float32)})
    entries = len(dat({"a.weight": np.ones(3, np.float32), "b.weight": np.ones(2, np.float32)}, end=b""))
    file = tmp_path / "cut.dat"
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        if length in (entries, entries + 4) or length >= entries + 8:  # only what it says of itself is missing
            assert set(read_importance(file).entries) == {"a.weight", "b.weight"}
        else:
            with pytest.raises(ThriftbitError, match=r"cut\.dat"):
                read_importance(file)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 100), replacement=st.binary(min_size=1, max_size=4))
@example(position=19, replacement=b"v")  # attn_q becomes attn_v, which the model has as well: nobody can know
def test_damaged_bytes_never_do_worse_than_an_error(
    tmp_path: Path, model: Model, position: int, replacement: bytes
) -> None:
    whole = dat({QUERY: QUERY_MEANS})
    file = tmp_path / "damaged.dat"
    file.write_bytes(whole[:position] + replacement + whole[position + len(replacement) :])
    try:
        importance = read_importance(file)
        coverage = importance.check(model)
    except ThriftbitError as error:
        assert "damaged.dat" in str(error)
    else:
        named = importance.entries.keys() & {tensor.name for tensor in model.tensors}
        assert len(named) == 1
        assert not named & set(coverage.missing)
        assert QUERY in named or 8 - len(replacement) < position < 8 + len(QUERY)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ThriftbitError, match=r"none\.dat does not exist"):
        read_importance(tmp_path / "none.dat")

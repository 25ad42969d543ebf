"""GGUF files as sources, written here by the `gguf` package: values, metadata, parts, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as GGMLType

from thriftbit.errors import ThriftbitError
from thriftbit.sources.gguf_source import check_precision, open_gguf
from thriftbit.sources.model import Model

VALUES = (np.random.default_rng(3).integers(-64, 64, (4, 32)) / 8).astype(np.float32)  # exact in every float type


def write(
    path: Path,
    tensors: dict[str, GGMLType],
    metadata: dict[str, Any] | None = None,
    architecture: str = "llama",
) -> Path:
    """Every tensor holds VALUES. metadata: key -> an int (written as uint16, as gguf-split does) or text."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in (metadata or {}).items():
        if isinstance(value, int):
            writer.add_uint16(key, value)
        else:
            writer.add_string(key, value)
    for name, ggml_type in tensors.items():
        writer.add_tensor(name, gguf.quants.quantize(VALUES, ggml_type), raw_dtype=ggml_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def opened(path: Path, allow_requantize: bool = False) -> Model:
    model = open_gguf(path)
    check_precision(model, allow_requantize=allow_requantize)
    return model


def write_parts(folder: Path, parts: list[dict[str, GGMLType]], **changes: int) -> list[Path]:
    paths = []
    for number, tensors in enumerate(parts):
        split = {"split.no": number, "split.count": len(parts), "split.tensors.count": sum(map(len, parts))}
        split |= {"split." + key.replace("_", "."): value for key, value in changes.items()}
        name = f"m-{number + 1:05d}-of-{len(parts):05d}.gguf"
        paths.append(write(folder / name, tensors, split | ({"general.name": "Split"} if number == 0 else {})))
    return paths


@pytest.mark.parametrize("ggml_type", [GGMLType.F32, GGMLType.F16, GGMLType.BF16])
def test_full_precision_reads_as_its_values(tmp_path: Path, ggml_type: GGMLType) -> None:
    model = opened(write(tmp_path / "m.gguf", {"blk.0.attn_q.weight": ggml_type, "output_norm.weight": GGMLType.F32}))
    query, norm = model.tensors
    assert (query.name, query.shape, query.source_dtype) == ("blk.0.attn_q.weight", (4, 32), ggml_type.name)
    assert (query.role, norm.role) == ("attention-query", "norm")
    np.testing.assert_array_equal(query.load(), VALUES)
    np.testing.assert_array_equal(query.load(1, 3), VALUES[1:3])
    assert not model.quantized_source


def test_metadata_is_carried_over_but_for_what_the_writer_decides(tmp_path: Path) -> None:
    kept = {"general.name": "Tiny", "llama.block_count": 1, "tokenizer.chat_template": "{{ x }}", "their.own": "kept"}
    dropped = {"general.file_type": 1, "general.quantization_version": 2, "split.count": 1, "split.no": 0}
    model = opened(write(tmp_path / "m.gguf", {"token_embd.weight": GGMLType.F16}, kept | dropped, "an-unknown-one"))
    assert model.architecture == "an-unknown-one"
    assert dict(model.metadata) == kept
    assert model.source == str(tmp_path / "m.gguf")


@pytest.mark.parametrize("given", [0, 1, 2])
def test_parts_are_one_model_whichever_is_given(tmp_path: Path, given: int) -> None:
    paths = write_parts(
        tmp_path, [{"a.weight": GGMLType.F16, "b.weight": GGMLType.F32}, {"c.weight": GGMLType.BF16}, {}]
    )
    model = opened(paths[given])
    assert [tensor.name for tensor in model.tensors] == ["a.weight", "b.weight", "c.weight"]
    assert dict(model.metadata) == {"general.name": "Split"}
    for tensor in model.tensors:
        np.testing.assert_array_equal(tensor.load(), VALUES)


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    paths = write_parts(tmp_path, [{"a.weight": GGMLType.F16}, {"b.weight": GGMLType.F16}, {"c.weight": GGMLType.F16}])
    paths[1].unlink()
    with pytest.raises(ThriftbitError, match=r"3 parts; missing beside it: m-00002-of-00003\.gguf"):
        opened(paths[0])


def test_a_part_under_another_name_is_refused(tmp_path: Path) -> None:
    (path, _) = write_parts(tmp_path, [{"a.weight": GGMLType.F16}, {"b.weight": GGMLType.F16}])
    renamed = path.rename(tmp_path / "model.gguf")
    with pytest.raises(ThriftbitError, match=r"one of 2 parts of a model and is not named like one"):
        opened(renamed)


def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    first, second = write_parts(tmp_path, [{"a.weight": GGMLType.F16}, {"b.weight": GGMLType.F16}])
    second.write_bytes(first.read_bytes())
    with pytest.raises(ThriftbitError, match=r"m-00002-of-00002\.gguf is not part 2 of 2"):
        opened(first)


def test_a_tensor_in_two_parts_is_refused(tmp_path: Path) -> None:
    path = write_parts(tmp_path, [{"a.weight": GGMLType.F16}, {"a.weight": GGMLType.F16}])[0]
    with pytest.raises(ThriftbitError, match=r"'a\.weight' is both in"):
        opened(path)


def test_the_number_of_tensors_is_held_against_the_promise(tmp_path: Path) -> None:
    path = write_parts(tmp_path, [{"a.weight": GGMLType.F16}, {"b.weight": GGMLType.F16}], tensors_count=3)[0]
    with pytest.raises(ThriftbitError, match="hold 2 tensors together, and should hold 3"):
        opened(path)


def test_quantized_weights_are_refused_with_the_way_out(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", {"a.weight": GGMLType.Q8_0, "b.weight": GGMLType.Q8_0, "c.weight": GGMLType.Q4_0})
    with pytest.raises(ThriftbitError, match=r"mostly Q8_0.*--allow-requantize"):
        opened(path)


def test_quantized_weights_are_decoded_when_asked_for_and_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "m.gguf", {"a.weight": GGMLType.Q8_0, "b.weight": GGMLType.Q5_1})
    model = opened(path, allow_requantize=True)
    assert model.quantized_source
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "quantized already (mostly Q8_0)" in record.getMessage()
    for tensor, ggml_type in zip(model.tensors, (GGMLType.Q8_0, GGMLType.Q5_1), strict=True):
        expected = gguf.quants.dequantize(gguf.quants.quantize(VALUES, ggml_type), ggml_type)
        assert tensor.source_dtype == ggml_type.name
        np.testing.assert_array_equal(tensor.load(1, 4), expected[1:4])


def test_weights_that_nobody_can_decode_are_refused_by_name(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("counts", np.ones((2, 4), np.int32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = open_gguf(tmp_path / "m.gguf")
    assert len(model.fingerprint) == 64
    with pytest.raises(ThriftbitError, match=r"'counts': .*I32"):
        model.tensors[0].load()
    with pytest.raises(ThriftbitError, match=r"to I32, which can be run here but not decoded"):
        check_precision(model, allow_requantize=True)


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ThriftbitError, match="holds no tensors, only metadata"):
        opened(write(tmp_path / "vocabulary.gguf", {}))


def test_a_file_without_architecture_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", {"a.weight": GGMLType.F16})
    path.write_bytes(path.read_bytes().replace(b"general.architecture", b"general.architectuur"))
    with pytest.raises(ThriftbitError, match=r"does not say which architecture it is \(general\.architecture\)"):
        opened(path)

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType

from thriftbit.containers.entry import Entry
from thriftbit.containers.ggml_types import format_for
from thriftbit.containers.gguf_writer import GGUFWriter, layout
from thriftbit.errors import ThriftbitError
from thriftbit.inspection import Inspection, TokenizerFacts, TypeTotal, inspect

VOCABULARY, WIDTH = 32, 256
SOUND = {
    "general.architecture": "llama",
    "general.name": "Sound",
    "general.file_type": np.uint32(15),
    "general.quantization_version": np.uint32(2),
    "llama.block_count": np.uint32(1),
    "llama.context_length": np.uint32(4096),
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": [str(i) for i in range(VOCABULARY)],
    "tokenizer.chat_template": "{{ messages }}",
}


def entry(name: str, type_name: str, *shape: int) -> Entry:
    return Entry(name, shape, format_for(GGMLQuantizationType[type_name]))


EMBEDDING = entry("token_embd.weight", "Q6_K", VOCABULARY, WIDTH)
QUERY = entry("blk.0.attn_q.weight", "Q4_K", 2, WIDTH)
NORM = entry("output_norm.weight", "F32", WIDTH)
OUTPUT = entry("output.weight", "Q6_K", VOCABULARY, WIDTH)
ENTRIES = (EMBEDDING, QUERY, NORM, OUTPUT)


def write(path: Path, metadata: Mapping[str, Any] = SOUND, entries: Sequence[Entry] = ENTRIES) -> Path:
    with GGUFWriter(path, layout(metadata, entries)) as writer:
        for each in entries:
            writer.write(each.name, [np.zeros(each.size_bytes, np.uint8)])
    return path


def oddities(folder: Path, changes: Mapping[str, Any], entries: Sequence[Entry] = ENTRIES) -> tuple[str, ...]:
    """Return what is odd about the sound model after these changes to its metadata; None takes a key away."""
    metadata = {key: value for key, value in {**SOUND, **changes}.items() if value is not None}
    return inspect(write(folder / "model.gguf", metadata, entries)).oddities


def test_facts_of_a_gguf(tmp_path: Path) -> None:
    path = write(tmp_path / "sound.gguf")
    inspection = inspect(path)
    weights_bytes = 2 * 32 * 210 + 2 * 144 + 4 * 256
    assert inspection == Inspection(
        path=str(path),
        kind="GGUF",
        files=("sound.gguf",),
        name="Sound",
        architecture="llama",
        file_type="Q4_K_M",
        context_length=4096,
        parameters=(32 + 2 + 1 + 32) * 256,
        file_size_bytes=path.stat().st_size,
        weights_bytes=weights_bytes,
        bits_per_weight=8 * weights_bytes / (67 * 256),
        types=(
            TypeTotal("Q6_K", 2, 2 * 32 * 256, 2 * 32 * 210),
            TypeTotal("F32", 1, 256, 1024),
            TypeTotal("Q4_K", 1, 512, 288),
        ),
        tokenizer=TokenizerFacts("gpt2", "smollm", 32, chat_template=True),
        oddities=(),
        metadata=inspection.metadata,
        tensors=inspection.tensors,
    )
    query = inspection.tensors[1]
    assert (query.name, query.shape, query.type, query.size_bytes) == ("blk.0.attn_q.weight", (2, 256), "Q4_K", 288)
    assert query.bits_per_weight == 4.5


def test_json_holds_everything(tmp_path: Path) -> None:
    extra = {
        "general.tags": ["a", "b"],
        "llama.infinite": np.float32("inf"),
        "llama.scores": np.arange(9, dtype=np.float32),
        "llama.bad": "\udcff",
        "llama.flag": True,
    }
    inspection = inspect(write(tmp_path / "a.gguf", SOUND | extra))
    document = json.loads(json.dumps(inspection.to_dict(), allow_nan=False))
    assert document["metadata"]["general.tags"] == ["a", "b"]
    assert document["metadata"]["llama.infinite"] == "inf"
    assert document["metadata"]["llama.scores"] == {
        "array_of": "float32",
        "length": 9,
        "first": [0, 1, 2, 3, 4, 5, 6, 7],
    }
    assert document["metadata"]["llama.bad"] == "?"
    assert document["metadata"]["llama.flag"] is True
    assert document["metadata"]["llama.block_count"] == 1
    assert document["metadata"]["tokenizer.ggml.tokens"]["length"] == 32
    assert document["tensors"][1]["bits_per_weight"] == 4.5
    assert document["tensors"][1]["parameters"] == 512
    assert document["tokenizer"]["vocabulary_size"] == 32


QUERY_IN_Q5_0 = entry("blk.0.attn_q.weight", "Q5_0", 2, WIDTH)
NARROW_QUERY = entry("blk.0.attn_q.weight", "Q5_0", 2, 64)
LARGE_NORM = entry("blk.0.attn_k.weight", "F32", 4096, 256)
SECOND_LAYER = entry("blk.1.attn_q.weight", "Q4_K", 2, WIDTH)
MIXED = tuple(
    entry(f"blk.0.{number}.weight", name, 4 if name == "Q4_K" else 1, WIDTH)
    for number, name in enumerate(("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q8_0", "IQ4_XS"))
)

ODD: dict[str, tuple[dict[str, Any], tuple[Entry, ...], str]] = {
    "no architecture": (
        {"general.architecture": None, "llama.block_count": None, "llama.context_length": None},
        (EMBEDDING, OUTPUT),
        "It does not name its architecture (general.architecture), so no program can run it.",
    ),
    "no tensors": ({}, (), "It holds no tensors, only metadata."),
    "layers": ({}, (*ENTRIES, SECOND_LAYER), "llama.block_count is 1, but there are tensors of 2 layers."),
    "context": (
        {"llama.context_length": None},
        ENTRIES,
        "It does not state the length of its context (llama.context_length).",
    ),
    "context of another type": (
        {"llama.context_length": "long"},
        ENTRIES,
        "It does not state the length of its context (llama.context_length).",
    ),
    "file type": (
        {},
        (EMBEDDING, QUERY_IN_Q5_0, OUTPUT),
        "general.file_type says Q4_K_M, but 100% of the weights in layers are Q5_0.",
    ),
    "unknown file type": (
        {"general.file_type": np.uint32(999)},
        ENTRIES,
        "general.file_type is 999, a number that Thriftbit does not know.",
    ),
    "fallback": (
        {},
        (EMBEDDING, entry("blk.0.attn_v.weight", "Q4_K", 9, WIDTH), NARROW_QUERY, OUTPUT),
        "Tensors with rows that the blocks of Q4_K (256) do not divide: 1 as Q5_0.",
    ),
    "mixture": (
        {},
        (EMBEDDING, *MIXED, OUTPUT),
        "Its weights are in 7 formats (IQ4_XS, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, Q8_0); presets mix 5 at most.",
    ),
    "large F32": (
        {},
        (EMBEDDING, entry("blk.0.attn_q.weight", "Q4_K", 8192, WIDTH), LARGE_NORM, OUTPUT),
        "Tensors in F32 although they are large: 1, 4.19 MB together, 'blk.0.attn_k.weight' for instance.",
    ),
    "quantization version": (
        {"general.quantization_version": np.uint32(1)},
        ENTRIES,
        "general.quantization_version is 1; quantized weights of today have 2.",
    ),
    "tied": (
        {},
        (EMBEDDING, QUERY, NORM),
        "The token embedding is the output matrix too (tied), so its precision counts twice.",
    ),
    "no tokenizer": (
        {"tokenizer.ggml.model": None, "tokenizer.ggml.tokens": None},
        ENTRIES,
        "It has no tokenizer: it cannot turn text into tokens by itself.",
    ),
    "vocabulary": (
        {"tokenizer.ggml.tokens": ["a"] * 31},
        ENTRIES,
        "The tokenizer has 31 tokens, the embedding 32 rows; llama.cpp refuses such files.",
    ),
    "pre-tokenizer": (
        {"tokenizer.ggml.pre": None},
        ENTRIES,
        "It does not say how text is split before tokenizing (tokenizer.ggml.pre): llama.cpp may do it wrongly.",
    ),
    "chat template": (
        {"general.name": "Sound 1B Instruct", "tokenizer.chat_template": None},
        ENTRIES,
        "It is called 'Sound 1B Instruct' but has no chat template: chat programs will guess one.",
    ),
    "empty chat template": (
        {"general.name": "Sound 1B Instruct", "tokenizer.chat_template": "\n"},
        ENTRIES,
        "It is called 'Sound 1B Instruct' but has no chat template: chat programs will guess one.",
    ),
    "name": (
        {"general.name": "Phi3 distilled"},
        ENTRIES,
        "llama.cpp refuses to load it because of its name ('Phi3 distilled'): it takes every name with phi3 or phi-3 "
        "for a Phi-3 and looks for tokens that are not there. Change general.name.",
    ),
    "importance": (
        {"quantize.imatrix.file": "imatrix.gguf", "quantize.imatrix.dataset": "wiki.txt"},
        ENTRIES,
        "Quantized with importance data (imatrix) 'imatrix.gguf', measured on 'wiki.txt'.",
    ),
    "thriftbit": (
        {"thriftbit.version": "0.1.0", "thriftbit.plan": "{}"},
        ENTRIES,
        "Made by Thriftbit 0.1.0 (plan embedded).",
    ),
    "unknown keys": (
        {f"mine.{letter}": True for letter in "abcd"},
        ENTRIES,
        "Metadata that Thriftbit does not know: mine.a, mine.b, mine.c and 1 more.",
    ),
    "text": ({"general.name": "\udcff"}, ENTRIES, "general.name is not UTF-8."),
    "texts": (
        {"tokenizer.ggml.tokens": ["\udcff", "\udc80a"] + ["a"] * 30},
        ENTRIES,
        "2 of the texts under tokenizer.ggml.tokens are not UTF-8.",
    ),
    "no model": ({"general.type": "adapter"}, ENTRIES, "It holds no model: general.type is 'adapter'."),
}


@pytest.mark.parametrize(("changes", "entries", "sentence"), ODD.values(), ids=ODD.keys())
def test_oddity(tmp_path: Path, changes: dict[str, Any], entries: tuple[Entry, ...], sentence: str) -> None:
    assert sentence in oddities(tmp_path, changes, entries)


@pytest.mark.parametrize(
    ("file_type", "type_name"),
    [("ALL_F32", "F32"), ("MOSTLY_IQ1_S", "IQ1_S"), ("MOSTLY_IQ2_M", "IQ2_S"), ("MOSTLY_Q3_K_L", "Q3_K")],
)
def test_file_types_are_known_by_their_format(tmp_path: Path, file_type: str, type_name: str) -> None:
    number = np.uint32(gguf.LlamaFileType[file_type])
    agreeing = (EMBEDDING, entry("blk.0.attn_q.weight", type_name, 2, WIDTH), OUTPUT)
    assert oddities(tmp_path, {"general.file_type": number}, agreeing) == ()
    (tmp_path / "model.gguf").unlink()
    sentences = oddities(tmp_path, {"general.file_type": number}, (EMBEDDING, QUERY_IN_Q5_0, OUTPUT))
    assert any("of the weights in layers are Q5_0" in sentence for sentence in sentences)


def test_fallbacks_are_told_once(tmp_path: Path) -> None:
    types = ("Q5_0", "Q5_1", "Q8_0", "Q4_1", "IQ4_NL")
    narrow = (entry(f"blk.0.{number}.weight", name, 2, 64) for number, name in enumerate(types))
    (sentence,) = oddities(tmp_path, {}, (EMBEDDING, *narrow, OUTPUT))
    assert sentence.startswith("Tensors with rows that the blocks of Q4_K (256) do not divide: 1 as Q5_0, 1 as Q5_1")


@pytest.mark.parametrize("name", ["gemma-2-2b-it-Q4_K_M.gguf", "Llama-3.2-1B-Instruct.gguf", "zephyr_chat.gguf"])
def test_names_of_chat_models(tmp_path: Path, name: str) -> None:
    metadata = {key: value for key, value in SOUND.items() if key != "tokenizer.chat_template"}
    assert any("chat template" in sentence for sentence in inspect(write(tmp_path / name, metadata)).oddities)
    assert inspect(write(tmp_path / "little-unit.gguf", metadata)).oddities == ()


def test_older_version(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf")
    raw = bytearray(path.read_bytes())
    raw[4] = 2
    path.write_bytes(raw)
    assert inspect(path).oddities == ("It is written in GGUF version 2; the current one is 3, since 2023.",)


def test_big_endian(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama", endianess=gguf.GGUFEndian.BIG)
    writer.add_tensor("token_embd.weight", np.zeros((4, 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    inspection = inspect(tmp_path / "a.gguf")
    assert inspection.parameters == 32
    assert inspection.oddities[0].startswith("It is big-endian")


def test_trailing_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf")
    path.write_bytes(path.read_bytes() + bytes(100))
    assert inspect(path).oddities == ("the last 100 bytes of the file belong to no tensor.",)


def test_gap_between_tensors(tmp_path: Path) -> None:
    def info(name: bytes, offset: int) -> bytes:
        return struct.pack("<Q", len(name)) + name + struct.pack("<IQIQ", 1, 8, 0, offset)

    header = b"GGUF" + struct.pack("<IQQ", 3, 2, 0) + info(b"a", 0) + info(b"b", 64)
    path = tmp_path / "a.gguf"
    path.write_bytes(header + bytes(-len(header) % 32) + bytes(96))
    assert "tensor 'b' does not follow the one before it; llama.cpp refuses such files." in inspect(path).oddities


def test_split_file(tmp_path: Path) -> None:
    for number, (metadata, entries) in enumerate(((SOUND, ENTRIES[:2]), ({}, ENTRIES[2:]))):
        split = {"split.no": np.uint16(number), "split.count": np.uint16(2), "split.tensors.count": np.int32(4)}
        write(tmp_path / f"sound-0000{number + 1}-of-00002.gguf", {**metadata, **split}, entries)
    whole = inspect(write(tmp_path / "whole.gguf"))
    for number in (1, 2):
        inspection = inspect(tmp_path / f"sound-0000{number}-of-00002.gguf")
        assert inspection.files == ("sound-00001-of-00002.gguf", "sound-00002-of-00002.gguf")
        assert inspection.tensors == whole.tensors
        assert inspection.tokenizer == whole.tokenizer
        assert inspection.oddities == ()
        assert inspection.file_size_bytes == sum(path.stat().st_size for path in tmp_path.glob("sound-*"))


def test_sentences_stay_readable(tmp_path: Path) -> None:
    sentences = oddities(tmp_path, {"general.name": "instruct " * 10_000, "tokenizer.chat_template": None})
    assert len(sentences) == 1
    assert len(sentences[0]) == 1000


@pytest.mark.parametrize("content", [b"", b"\x80\x02pickle"])
def test_what_is_no_model(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ThriftbitError, match="not a GGUF file"):
        inspect(tmp_path / "file")
    with pytest.raises(ThriftbitError, match="no such file"):
        inspect(tmp_path / "missing")
    with pytest.raises(ThriftbitError, match=r"config\.json"):
        inspect(tmp_path)

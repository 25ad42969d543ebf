"""llama.cpp, given our metadata, reads text as the source tokenizer does: the same ids for a thousand lines.

Every pre-tokenizer that we have a name for gets a small tokenizer trained here, half of whose merges are then taken out
so that looking up whole words first makes a difference; SentencePiece gets one in each spelling that folders have. Real
tokenizers follow where the network allows.

llama.cpp differs from some source tokenizers in known ways. Such a difference is stated here as what it amounts to: a
change to the source tokenizer (`as_llama_cpp_reads`), with which llama.cpp must then agree on every line, and a kind of
line outside which it must agree with the unchanged one.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizers

from thriftbit.errors import ThriftbitError
from thriftbit.sources.checkpoint import Checkpoint
from thriftbit.sources.tokenizers import tokenizer_metadata
from thriftbit.sources.tokenizers.pre_tokenizers import EACH_DIGIT, GPT2, PRE_TOKENIZERS, PreTokenizer

from .llama_cpp_vocabulary import Vocabulary
from .tokenizer_lines import SENTENCES, lines

JSON = dict[str, Any]

LINES = lines(1000)
MANY_LINES = lines(4000)
PADDING_ROWS = 3  # rows of the embedding beyond the vocabulary, as real models have them


@dataclass(frozen=True)
class Difference:
    """touches: whether a line is of the kind that llama.cpp may read differently. as_llama_cpp_reads: changes
    tokenizer.json, in place, to how it does read it. share: the largest share of LINES that differs."""

    touches: Callable[[str], bool]
    as_llama_cpp_reads: Callable[[JSON], None]
    share: float


def has_mark_or_foreign_capital(line: str) -> bool:
    return any(
        unicodedata.category(character)[0] == "M"
        or (not character.isascii() and unicodedata.category(character) in ("Lu", "Lt"))
        for character in line
    )


def rewrite_splits(replacements: dict[str, str]) -> Callable[[JSON], None]:
    def change(content: JSON) -> None:
        for step in content["pre_tokenizer"]["pretokenizers"]:
            for old, new in replacements.items():
                if "pattern" in step:
                    step["pattern"]["Regex"] = step["pattern"]["Regex"].replace(old, new)

    return change


def drop_normalizer(content: JSON) -> None:
    content["normalizer"] = None


LETTER_CASES = Difference(
    has_mark_or_foreign_capital,
    rewrite_splits(
        {
            r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]": r"[\p{L}&&[^a-z]]",
            r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]": r"[\p{L}&&[^A-Z]]",
        }
    ),
    share=0.25,
)
TILDE = Difference(lambda line: "~" in line, rewrite_splits({r"\p{S}": r"[\p{S}&&[^~]]"}), share=0.02)
NO_NFC = Difference(lambda line: unicodedata.normalize("NFC", line) != line, drop_normalizer, share=0.1)

SPLIT_DIFFERENCES = {"tekken": LETTER_CASES, "gpt-4o": LETTER_CASES, "deepseek-v3": TILDE}


def assert_same_ids(folder: Path, reader: Vocabulary, texts: list[str], differences: Iterable[Difference] = ()) -> None:
    """`reader` gives the ids of the folder's tokenizer.json: of the file as it stands outside the lines that a known
    difference touches, and of the file changed by the differences for all lines."""
    content = json.loads((folder / "tokenizer.json").read_text())
    source = tokenizers.Tokenizer.from_str(json.dumps(content))
    expected = [encoding.ids for encoding in source.encode_batch(texts)]
    found = [reader.ids(text) for text in texts]
    differing = [text for text, left, right in zip(texts, expected, found, strict=True) if left != right]
    assert [text for text in differing if not any(known.touches(text) for known in differences)] == []
    assert len(differing) <= sum(known.share for known in differences) * len(texts)
    for known in differences:
        known.as_llama_cpp_reads(content)
    changed = tokenizers.Tokenizer.from_str(json.dumps(content))
    explained = [encoding.ids for encoding in changed.encode_batch(texts)]
    assert [text for text, left, right in zip(texts, explained, found, strict=True) if left != right] == []


def open_folder(folder: Path, config: JSON | None = None) -> Vocabulary:
    """Return an engine of llama.cpp with what we make of the folder's tokenizer."""
    source = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = max(source.get_vocab(with_added_tokens=True).values()) + 1 + PADDING_ROWS
    return Vocabulary(folder / "vocabulary.gguf", tokenizer_metadata(Checkpoint(folder, config or {}, {}), rows))


# Byte-level BPE


def pre_tokenizer_json(known: PreTokenizer) -> JSON:
    """Return the structure as published tokenizers spell it."""
    if known.splits[-1] == GPT2:
        steps: list[JSON] = [{"type": "Digits", "individual_digits": True}] if EACH_DIGIT in known.splits else []
        return sequence([*steps, {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}])
    splits = [
        {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
        for regex in known.splits
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return sequence([*splits, byte_level])


def sequence(steps: list[JSON]) -> JSON:
    return {"type": "Sequence", "pretokenizers": steps}


def train_byte_level(folder: Path, known: PreTokenizer) -> None:
    """A tokenizer.json with the given structure, and every other of its longer tokens out of the merges' reach"""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    skeleton = json.loads(tokenizer.to_str()) | {"pre_tokenizer": pre_tokenizer_json(known)}
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(skeleton))
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=1500,
        special_tokens=["<|end|>", "<|begin|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*SENTENCES, *LINES[:300]] * 2, trainer)
    tokenizer.add_tokens(["<tool>", "  \n"])
    content = json.loads(tokenizer.to_str())
    merges = content["model"]["merges"]
    content["model"]["merges"] = [merge for rank, merge in enumerate(merges) if rank % 2 or len("".join(merge)) < 4]
    content["model"]["ignore_merges"] = known.ignore_merges
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}))


@pytest.mark.parametrize("known", PRE_TOKENIZERS, ids=lambda known: known.name)
def test_byte_level_bpe_with_every_known_pre_tokenizer(tmp_path: Path, known: PreTokenizer) -> None:
    train_byte_level(tmp_path, known)
    config = {"model_type": known.model_types[0] if known.model_types else "llama"}
    metadata = tokenizer_metadata(Checkpoint(tmp_path, config, {}), 1600)
    assert metadata["tokenizer.ggml.pre"] == known.name
    differences = [SPLIT_DIFFERENCES[known.name]] if known.name in SPLIT_DIFFERENCES else []
    assert_same_ids(tmp_path, Vocabulary(tmp_path / "vocabulary.gguf", metadata), LINES, differences)


def test_the_lines_tell_the_pre_tokenizers_apart(tmp_path: Path) -> None:
    """The proof above would be worth little if a wrong name went unnoticed."""
    train_byte_level(tmp_path, pre_tokenizer_named("smaug-bpe"))
    source = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    expected = [encoding.ids for encoding in source.encode_batch(LINES)]
    metadata = tokenizer_metadata(Checkpoint(tmp_path, {}, {}), 1600)
    for wrong in ("gpt-2", "smollm", "llama-bpe", "qwen2", "qwen35", "tekken", "gpt-4o", "seed-coder"):
        reader = Vocabulary(tmp_path / f"{wrong}.gguf", {**metadata, "tokenizer.ggml.pre": wrong})
        assert [reader.ids(line) for line in LINES] != expected, wrong


def pre_tokenizer_named(name: str) -> PreTokenizer:
    return next(known for known in PRE_TOKENIZERS if known.name == name)


def test_added_tokens_in_the_text_and_around_it(tmp_path: Path) -> None:
    train_byte_level(tmp_path, pre_tokenizer_named("qwen2"))
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|begin|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|begin|>": {"id": "<|begin|>", "ids": [1], "tokens": ["<|begin|>"]}},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    added = ("<|begin|>", "<|end|>", "<tool>", "  \n")
    texts = [f"{before}{token}{after}" for token in added for before in LINES[:20] for after in LINES[20:40]]
    reader = open_folder(tmp_path)
    assert reader.ids("a")[0] == 1
    assert_same_ids(tmp_path, reader, texts)


def test_a_stop_that_llama_cpp_does_not_know_by_name_stops_it(tmp_path: Path) -> None:
    train_byte_level(tmp_path, pre_tokenizer_named("gpt-2"))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [0, 1]}')
    assert open_folder(tmp_path).stops() == [0, 1]


# SentencePiece BPE


def train_sentencepiece(folder: Path, *, space_prefix: bool) -> sentencepiece.SentencePieceProcessor:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line.replace("\n", " ") for line in [*SENTENCES, *LINES[:300]] * 2]),
        model_writer=model,
        model_type="bpe",
        vocab_size=1200,
        character_coverage=0.98,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=space_prefix,
        user_defined_symbols=["<tool>"],
        num_threads=1,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def as_tokenizer_json(model: sentencepiece.SentencePieceProcessor, spaces: JSON) -> JSON:
    """Return the model as transformers' converter writes it: a merge for every split of a token, best token first."""
    pieces = {model.id_to_piece(index): index for index in range(model.vocab_size())}
    scores = {piece: model.get_score(index) for piece, index in pieces.items()}
    ordinary = {
        piece
        for piece, index in pieces.items()
        if not (model.is_control(index) or model.is_unknown(index) or model.is_byte(index))
    }
    merges = [
        (piece[:cut], piece[cut:])
        for piece in sorted(ordinary, key=lambda piece: -scores[piece])
        for cut in range(1, len(piece))
        if piece[:cut] in pieces and piece[cut:] in pieces
    ]
    bpe = tokenizers.models.BPE(pieces, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = tokenizers.Tokenizer(bpe)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.add_tokens([tokenizers.AddedToken("<tool>", normalized=False)])
    return json.loads(tokenizer.to_str()) | spaces


REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
LLAMA_2 = {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, REPLACE]}}
GEMMA = {
    "normalizer": REPLACE,
    "pre_tokenizer": {
        "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False
    },
}  # fmt: skip
MISTRAL = {
    "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False},
}


def prefix_like_llama_2(content: JSON) -> None:
    content |= LLAMA_2 | {"pre_tokenizer": None}


# The newer way puts no space before a space, nor after an added token
SPACE_FIRST = Difference(
    lambda line: line.startswith((" ", "▁")) or re.search(r"<s>|</s>|<unk>|<tool>", line) is not None,
    prefix_like_llama_2,
    share=0.25,
)


@pytest.mark.parametrize("space_prefix", [True, False])
def test_sentencepiece_model_alone(tmp_path: Path, space_prefix: bool) -> None:
    source = train_sentencepiece(tmp_path, space_prefix=space_prefix)
    rows = source.vocab_size() + PADDING_ROWS
    config = {"eos_token_id": 2, "bos_token_id": 1}
    reader = Vocabulary(tmp_path / "vocabulary.gguf", tokenizer_metadata(Checkpoint(tmp_path, config, {}), rows))
    plain = [line for line in LINES if "<unk>" not in line]
    assert [reader.ids(line, special=False) for line in plain] == [[1, *source.encode(line)] for line in plain]


@pytest.mark.parametrize("spaces", [LLAMA_2, GEMMA, MISTRAL], ids=["Llama 2", "Gemma", "Mistral"])
@pytest.mark.parametrize("with_model", [True, False], ids=["beside tokenizer.model", "alone"])
def test_sentencepiece_in_tokenizer_json(tmp_path: Path, spaces: JSON, with_model: bool) -> None:
    model = train_sentencepiece(tmp_path, space_prefix=spaces is not GEMMA)
    (tmp_path / "tokenizer.json").write_text(json.dumps(as_tokenizer_json(model, spaces)))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>", "bos_token": "<s>", "add_bos_token": false}')
    if not with_model:
        (tmp_path / "tokenizer.model").unlink()
    texts = LINES + [f"{before}<tool>{after}" for before in LINES[:10] for after in LINES[10:20]]
    assert_same_ids(tmp_path, open_folder(tmp_path), texts, [SPACE_FIRST] if spaces is MISTRAL else [])


def test_merges_in_an_order_of_their_own(tmp_path: Path) -> None:
    """As Gemma 4 has them: every third merge is missing, so that scores could not say the same."""
    model = train_sentencepiece(tmp_path, space_prefix=False)
    (tmp_path / "tokenizer.model").unlink()
    content = as_tokenizer_json(model, GEMMA)
    reachable = {piece for piece in content["model"]["vocab"] if len(piece) == 1}
    merges = []
    for number, (left, right) in enumerate(content["model"]["merges"]):
        if number % 3 and left in reachable and right in reachable:
            merges.append([left, right])
            reachable.add(left + right)
    content["model"]["merges"] = merges
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>", "bos_token": "<s>"}')
    reader = open_folder(tmp_path, {"model_type": "gemma4"})
    source = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    texts = LINES + [f"{before}<tool>{after}" for before in LINES[:10] for after in LINES[10:20]]
    assert [reader.ids(text)[1:] for text in texts] == [source.encode(text).ids for text in texts]
    with pytest.raises(ThriftbitError, match="do not merge"):
        open_folder(tmp_path)


# What llama.cpp makes of a model's name


@pytest.fixture(scope="session")
def fetched() -> Path:
    """Return the folder with the tokenizers of real models."""
    script = Path(__file__).parents[2] / "tools" / "fetch_test_tokenizers.py"
    result = subprocess.run([sys.executable, str(script)], check=True, capture_output=True, text=True)
    return Path(result.stdout.splitlines()[-1])


def add_stop_token(content: JSON) -> None:
    """llama.cpp takes </s> for the end of a text wherever a vocabulary has it, were it an ordinary token"""
    content["added_tokens"].append(
        {"id": content["model"]["vocab"]["</s>"], "content": "</s>", "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    )


def find_runs_of_spaces(content: JSON) -> None:
    """Gemma's tokens for runs of spaces are spelled ▁▁; llama.cpp finds them as spaces in the text as it came"""
    model = content["model"]
    runs = {piece for piece in model["vocab"] if len(piece) > 1 and set(piece) == {"▁"}}
    for token in content["added_tokens"]:
        if token["content"] in runs:
            token["content"] = " " * len(token["content"])
    model["vocab"] = {" " * len(piece) if piece in runs else piece: row for piece, row in model["vocab"].items()}
    model["merges"] = [pair for pair in model["merges"] if runs.isdisjoint((*pair, "".join(pair)))]


STOP_TOKEN = Difference(lambda line: "</s>" in line, add_stop_token, share=0.05)
SPACE_SIGNS = Difference(lambda line: "▁" in line, find_runs_of_spaces, share=0.05)

REAL = {
    "gpt2": [],
    "llama3_2": [],
    "qwen2_5": [NO_NFC, STOP_TOKEN],
    "qwen3": [NO_NFC, STOP_TOKEN],
    "gemma3": [SPACE_SIGNS],
    "mistral_nemo": [LETTER_CASES],
}


@pytest.mark.network
@pytest.mark.parametrize("name", REAL)
def test_real_tokenizer(fetched: Path, tmp_path: Path, name: str) -> None:
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / file).symlink_to(fetched / name / file)
    assert_same_ids(tmp_path, open_folder(tmp_path), MANY_LINES, REAL[name])


MISTRAL_MODELS = (
    "tokenizer.model.v1",
    "mistral_instruct_tokenizer_240216.model.v2",
    "mistral_instruct_tokenizer_240323.model.v3",
)


@pytest.mark.network
@pytest.mark.parametrize("name", MISTRAL_MODELS)
def test_real_sentencepiece_model(fetched: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "tokenizer.model").symlink_to(fetched / "mistral_common" / name)
    source = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    config = {"eos_token_id": 2, "bos_token_id": 1}
    metadata = tokenizer_metadata(Checkpoint(tmp_path, config, {}), source.vocab_size())
    reader = Vocabulary(tmp_path / "vocabulary.gguf", metadata)
    found = [reader.ids(line, special=False) for line in MANY_LINES]
    assert found == [[1, *source.encode(line)] for line in MANY_LINES]

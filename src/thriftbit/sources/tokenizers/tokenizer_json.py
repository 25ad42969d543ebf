"""tokenizer.json, the format of the `tokenizers` library, read as far as GGUF can carry it.

Only BPE is here. llama.cpp reads WordPiece and Unigram too, but no model family that Thriftbit knows uses them, and a
tokenizer nobody can check against its model is better refused than half supported. Everything that the library would
refuse (a merge of tokens that do not exist, two tokens with one id) is refused here as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thriftbit.errors import ThriftbitError, shown

OTHER_MODELS = {
    "Unigram": "a Unigram tokenizer (SentencePiece's other kind, as in T5)",
    "WordPiece": "a WordPiece tokenizer (as in BERT)",
    "WordLevel": "a WordLevel tokenizer",
}


@dataclass(frozen=True)
class BytePairTokenizer:
    """tokens: text to id, without the added tokens that are not in the model's own vocabulary. merges: in the order of
    their rank. byte_fallback: characters without a token become <0x..> tokens, SentencePiece's way; otherwise tokens
    are spelled in the byte alphabet of GPT-2. normalizer, pre_tokenizer, post_processor: as they stand in the file."""

    path: Path
    tokens: dict[str, int]
    merges: list[tuple[str, str]]
    unknown: str | None
    byte_fallback: bool
    ignore_merges: bool
    normalizer: Any
    pre_tokenizer: Any
    post_processor: Any


def parse_tokenizer_json(content: dict[str, Any], path: Path) -> BytePairTokenizer:
    model = content.get("model")
    if not isinstance(model, dict):
        raise ThriftbitError(f"{path} has no model: it is not a tokenizer")
    kind = model.get("type", "BPE" if "merges" in model else None)  # old files do not name it
    if kind != "BPE":
        named = OTHER_MODELS.get(str(kind), f"a tokenizer of the unknown kind {shown(kind)}")
        raise ThriftbitError(
            f"{path} is {named}; only BPE is supported. Convert this model to GGUF with llama.cpp's "
            "convert_hf_to_gguf.py and give the GGUF as the model"
        )
    for option in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(option):
            raise ThriftbitError(f"{path} uses {option} ({shown(model[option])}), which llama.cpp does not have")
    tokens = model.get("vocab")
    if not isinstance(tokens, dict) or not tokens:
        raise ThriftbitError(f"{path} has no vocabulary")
    return BytePairTokenizer(
        path=path,
        tokens=tokens,
        merges=_merges(model.get("merges"), tokens, path),
        unknown=model.get("unk_token"),
        byte_fallback=bool(model.get("byte_fallback")),
        ignore_merges=bool(model.get("ignore_merges")),
        normalizer=content.get("normalizer"),
        pre_tokenizer=content.get("pre_tokenizer"),
        post_processor=content.get("post_processor"),
    )


def flat_steps(outermost: Any, inner: str) -> list[Any]:
    """-> a normalizer, pre-tokenizer or post-processor as a list, nested sequences laid out flat. `inner` is the key
    under which a sequence has its steps"""
    flat: list[Any] = []
    waiting = [] if outermost is None else [outermost]
    while waiting:
        step = waiting.pop()
        steps = step.get(inner) if isinstance(step, dict) and step.get("type") == "Sequence" else None
        if isinstance(steps, list):
            waiting += reversed(steps)
        else:
            flat.append(step)
    return flat


def _merges(entries: Any, tokens: dict[str, Any], path: Path) -> list[tuple[str, str]]:
    if not isinstance(entries, list):
        raise ThriftbitError(f"{path} has no merges")
    merges = [_merge(entry, path) for entry in entries]
    for left, right in merges:
        for part in (left, right, left + right):
            if part not in tokens:
                raise ThriftbitError(
                    f"{path}: the merge of {shown(left)} and {shown(right)} needs {shown(part)}, which is no token"
                )
    if len(set(merges)) != len(merges):
        raise ThriftbitError(f"{path} lists the same merge twice")
    return merges


def _merge(entry: Any, path: Path) -> tuple[str, str]:
    """An old file writes "a b", a new one ["a", "b"]"""
    match entry.split(" ") if isinstance(entry, str) else entry:
        case [str(left), str(right)] if left and right:
            return left, right
    raise ThriftbitError(f"{path}: {shown(entry)} is not a merge of two tokens")

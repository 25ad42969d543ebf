"""How a byte-level tokenizer cuts text into words before merging, and what llama.cpp calls that.

GGUF carries no regular expressions; it carries a name, and llama.cpp has the expressions built in. llama.cpp's own
converter finds the name by tokenizing a test string and looking up a hash of the ids, so every fine-tune with one more
token needs a new hash. Here the name follows from the structure in tokenizer.json: the expressions in the order in
which they cut, and whether whole words are looked up before merging. A structure that is not in the table is an error,
because a model answers worse if its text is cut differently than in training.

Several of llama.cpp's names stand for the same expressions. They differ in whether spaces before punctuation are
cleaned up in detokenized text, so `model_types` gives a family the name that llama.cpp's converter gives it, too.

llama.cpp is known to cut differently from the original expressions in these cases.
`tests/conformance/test_tokenizers.py` proves that there are no other differences:
- tekken and gpt-4o: llama.cpp tells letters apart as a-z, A-Z and others instead of by Unicode case, and does not count
combining marks as letters. This matters in scripts with combining marks (Hindi, Thai, vocalised Arabic and Hebrew), and
where small letters meet capitals outside ASCII.
- deepseek-v3: ~ does not count as a symbol."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thriftbit.errors import ThriftbitError, shown

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_ENDING = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CAPITALS = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_SMALL = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED_ENDING = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_ENDING}"
QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_ENDING}"
QWEN35 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}*{_SMALL}+|[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}+{_SMALL}*|\p{{N}}|{_CASED_ENDING}"
)
GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}*{_SMALL}+{_CONTRACTIONS}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}+{_SMALL}*{_CONTRACTIONS}?|\p{{N}}{{1,3}}|{_CASED_ENDING}"
)
SEED_CODER = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1}}"
    r"| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BAILING = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

EACH_DIGIT = r"\p{N}"
CJK = "[一-龥぀-ゟ゠-ヿ]+"
CJK_AND_HANGUL = "[一-龥ࠀ-一가-퟿]+"


@dataclass(frozen=True)
class PreTokenizer:
    """One of llama.cpp's pre-tokenizers.

    name: llama.cpp's. splits: the expressions that cut the text; each cuts the pieces of the one before. ignore_merges:
    whether a word that is a token is taken whole. model_types: config.json's model_type, if only some families use the
    name."""

    name: str
    splits: tuple[str, ...]
    ignore_merges: bool = False
    model_types: tuple[str, ...] = ()


# A name of single families comes before the name that all others with the same structure get.
PRE_TOKENIZERS = (
    PreTokenizer("olmo", (GPT2,), model_types=("olmo", "gpt_neox")),
    PreTokenizer("gpt-2", (GPT2,)),
    PreTokenizer("starcoder", (EACH_DIGIT, GPT2), model_types=("starcoder2", "gpt_bigcode")),
    PreTokenizer("refact", (EACH_DIGIT, GPT2), model_types=("granite", "granitemoe")),
    PreTokenizer("command-r", (EACH_DIGIT, GPT2), model_types=("cohere", "cohere2")),
    PreTokenizer("smollm", (EACH_DIGIT, GPT2)),
    PreTokenizer("llama-bpe", (LLAMA3,), ignore_merges=True),
    PreTokenizer("dbrx", (LLAMA3,), model_types=("dbrx", "olmo2", "phi3")),
    PreTokenizer("smaug-bpe", (LLAMA3,)),
    PreTokenizer("stablelm2", (QWEN2,), model_types=("stablelm",)),
    PreTokenizer("qwen2", (QWEN2,)),
    PreTokenizer("qwen35", (QWEN35,)),
    PreTokenizer("tekken", (TEKKEN,), ignore_merges=True),
    PreTokenizer("gpt-4o", (GPT4O,)),
    PreTokenizer("seed-coder", (SEED_CODER,)),
    PreTokenizer("bailingmoe", (BAILING,)),
    PreTokenizer("deepseek-coder", (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK_AND_HANGUL, EACH_DIGIT)),
    PreTokenizer("deepseek-v3", (r"\p{N}{1,3}", CJK, DEEPSEEK3)),
)


def pre_tokenizer_name(structure: Any, ignore_merges: bool, model_type: str, origin: Path) -> str:
    """Return llama.cpp's name for a pre-tokenizer. Raises ThriftbitError if it has none.

    structure: `pre_tokenizer` in tokenizer.json. ignore_merges: see `PreTokenizer`. model_type: in config.json. origin:
    what errors call the file."""
    steps = flat_steps(structure, "pretokenizers")
    splits = tuple(regex for step in steps for regex in _splits(step, origin))
    for known in PRE_TOKENIZERS:
        if (known.splits, known.ignore_merges) == (splits, ignore_merges) and (
            not known.model_types or model_type in known.model_types
        ):
            return known.name
    names = ", ".join(known.name for known in PRE_TOKENIZERS)
    raise ThriftbitError(
        f"{origin} cuts text into words in a way that Thriftbit does not know, so llama.cpp would read text wrongly:\n"
        f"{' then '.join(splits) or 'not at all'}{' (whole words before merges)' if ignore_merges else ''}\n"
        f"Known are those of {names}"
    )


def space_prefix_refused(origin: Path) -> ThriftbitError:
    return ThriftbitError(f"{origin} puts a space before every text (add_prefix_space); llama.cpp cannot")


def without_space_prefix(structure: Any) -> Any:
    """Return the same pre-tokenizer without a space before the text."""
    if isinstance(structure, list):
        return [without_space_prefix(step) for step in structure]
    if not isinstance(structure, dict):
        return structure
    stated = {"add_prefix_space": False} if structure.get("type") == "ByteLevel" else {}
    return {key: without_space_prefix(value) for key, value in structure.items()} | stated


def _splits(step: Any, origin: Path) -> Iterator[str]:
    """Yield the regular expression of one step; none if the step only spells bytes."""
    match step:
        case {"type": "ByteLevel", "add_prefix_space": True}:
            raise space_prefix_refused(origin)
        case {"type": "ByteLevel"}:
            if step.get("use_regex", True):  # files from before the switch existed always split
                yield GPT2
        case {"type": "Digits", "individual_digits": True}:
            yield EACH_DIGIT
        # Removing the text between matches is the same as isolating matches, if the expression matches all of the text
        case {"type": "Split", "pattern": {"Regex": str(regex)}, "behavior": "Isolated", "invert": False}:
            yield _normalized(regex)
        case {"type": "Split", "pattern": {"Regex": str(regex)}, "behavior": "Removed", "invert": True} if (
            regex.endswith(r"|\s+")
        ):
            yield _normalized(regex)
        case _:
            raise ThriftbitError(f"{origin} has a pre-tokenizer that llama.cpp does not know: {shown(step)}")


def _normalized(regex: str) -> str:
    """Return the expression with line ends as escapes. Some files write them as characters."""
    return regex.replace("\r", r"\r").replace("\n", r"\n")


def flat_steps(outermost: Any, inner: str) -> list[Any]:
    """Return the steps of a normalizer, pre-tokenizer or post-processor as one list, nested sequences included. inner:
    the key under which a sequence has its steps."""
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

"""The content of a model's files, by their headers: types, true bits per weight, and whether the name is right.

A name such as Q4_K_M is a claim, and so is `general.file_type` in the header. The type of most weights in layers
decides. Embedding and output matrix do not count, because every level treats them differently. Rows that blocks of 256
do not divide get another format at every level, so they are counted separately. Otherwise honest small models would be
accused.

Nothing here reads weights, so nothing says whether they are any good."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import gguf
import numpy as np

from thriftbit.containers.entry import Entry
from thriftbit.containers.ggml_types import format_for
from thriftbit.containers.gguf_reader import GGUFFile, TensorInfo
from thriftbit.containers.gguf_values import Metadata
from thriftbit.errors import ThriftbitError
from thriftbit.library.explanations import format_bits
from thriftbit.library.kinds import KINDS, TEXT, gguf_kind
from thriftbit.library.names import QuantizationName, parse_quantization
from thriftbit.machine.memory_needed import memory_needed
from thriftbit.machine.model_shape import shape_of
from thriftbit.machine.records import from_document

IN_LAYERS, NARROW, OUTSIDE, SMALL = "layers", "narrow layers", "outside", "small"
SUPER_BLOCK = 256
CONTEXT_TOKENS = 4096  # of the conversation that has to fit into memory with the model
# The formats that llama.cpp and others use for rows that super-blocks do not divide: blocks of 32, or no blocks.
FALLBACKS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "F16", "BF16", "F32")
_LOOSEST, _TIGHTEST = 1.35, 0.7  # true bits divided by claimed bits, within which a maker's own mix is accepted
_FILE_TYPES = {each.name.removeprefix("MOSTLY_").removeprefix("ALL_") for each in gguf.LlamaFileType}
_BARE = re.compile(r"Q\d")
_MOST = 1 << 63
_TEXT_LIMIT = 200  # characters of a stranger's text that are kept


@dataclass(frozen=True)
class Group:
    """All weights of one type in one part of the network: IN_LAYERS, NARROW, OUTSIDE or SMALL (no matrices)."""

    type: str
    part: str
    parameters: int
    size_bytes: int


@dataclass(frozen=True)
class Content:
    """container: "GGUF" or "safetensors". kind: one of `kinds.KINDS`. declared: the precision that the file itself
    states, None if it states none. parameters: the number of weights, unpacked; None if that cannot be told.
    weights_bytes: of the weights with their scales. running_bytes: the most memory that llama.cpp takes for it with
    4,096 tokens of context; None if that is not known."""

    container: str
    kind: str
    name: str | None
    architecture: str | None
    declared: str | None
    groups: tuple[Group, ...]
    parameters: int | None
    weights_bytes: int
    context_length: int | None = None
    importance: bool = False
    parts: int = 1
    running_bytes: int | None = None

    @property
    def bits_per_weight(self) -> float | None:
        """The bits per weight over all weights, the embedding included; None if their number is not known."""
        return 8 * self.weights_bytes / self.parameters if self.parameters else None

    @property
    def main_type(self) -> str | None:
        """The type of most weights in layers, or of most weights if there are no layers."""
        for parts in ((IN_LAYERS,), (NARROW,), (OUTSIDE, SMALL)):
            found = _most([group for group in self.groups if group.part in parts])
            if found:
                return found
        return None

    @property
    def is_narrow(self) -> bool:
        """Whether blocks of 256 divide the rows of no layer."""
        return all(group.part != IN_LAYERS for group in self.groups)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Any) -> Content:
        """Return the content in a JSON document. Raises ThriftbitError for a document that `to_json` cannot have
        made."""
        content = from_document(Content, document)
        numbers = [content.parameters, content.weights_bytes, content.context_length, content.running_bytes]
        numbers += [count for group in content.groups for count in (group.parameters, group.size_bytes)]
        possible = all(number is None or 0 <= number < _MOST for number in numbers) and content.parts >= 1
        if not possible or content.kind not in KINDS:
            raise ThriftbitError("a record of the library has numbers or a kind that no file has")
        return content


@dataclass(frozen=True)
class Verdict:
    """label: the true precision, "Q4_K_M" or "mostly Q4_K". warning: a sentence if a name says something else, else
    None."""

    label: str
    warning: str | None = None


def gguf_content(parts: Iterable[GGUFFile]) -> Content:
    """Return the content of a GGUF file. parts: the headers of all its parts, in order."""
    parts = list(parts)
    metadata = parts[0].metadata
    architecture = _text(metadata.get("general.architecture"))
    tensors = [info for part in parts for info in part.tensors]
    kind = gguf_kind(metadata, {info.name for info in tensors})
    return Content(
        container="GGUF",
        kind=kind,
        name=_text(metadata.get("general.name")),
        architecture=architecture,
        declared=_file_type(metadata.get("general.file_type")),
        groups=grouped((info.ggml_type.name, _part(info), info.parameters, info.size_bytes) for info in tensors),
        parameters=sum(info.parameters for info in tensors),
        weights_bytes=sum(info.size_bytes for info in tensors),
        context_length=_number(metadata.get(f"{architecture}.context_length")),
        importance="quantize.imatrix.file" in metadata or metadata.get("thriftbit.plan") is not None,
        parts=len(parts),
        running_bytes=_running_bytes(architecture, metadata, tensors) if kind == TEXT else None,
    )


def judge(content: Content, name: str) -> Verdict:
    """Return the true precision of the content, and a warning if the name is wrong. name: the file's or the model's."""
    if not KINDS[content.kind].is_whole:
        return Verdict(content.kind)
    claim = parse_quantization(name)
    return _judge_gguf(content, claim) if content.container == "GGUF" else _judge_checkpoint(content, claim)


def _judge_gguf(content: Content, claim: QuantizationName | None) -> Verdict:
    main = content.main_type or "nothing"
    declared = parse_quantization(content.declared) if content.declared else None
    honest = [said for said in (declared, claim) if said is not None and agrees(said, content)]
    if claim in honest and claim is not None and claim.name not in _FILE_TYPES and not _BARE.fullmatch(claim.name):
        honest.reverse()  # there is no file type for UD-Q4_K_XL or Q4_K_L, so their headers say Q4_K_M
    label = honest[0].name if honest else main if _is_uniform(content) else f"mostly {main}"
    if claim is not None and not agrees(claim, content):
        return Verdict(label, f"called {claim.name}, but is {label}")
    if declared in honest and declared is not None and main not in declared.scheme.formats and content.is_narrow:
        return Verdict(label, f"its rows do not divide into the blocks of {declared.name}: most weights are {main}")
    return Verdict(label)


def _judge_checkpoint(content: Content, claim: QuantizationName | None) -> Verdict:
    label = content.declared or f"{content.main_type}, original"
    declared = parse_quantization(content.declared or content.main_type or "")
    if claim is None or declared is None:
        return Verdict(label)
    quantized = (claim.scheme.family.name != "float", content.declared is not None)
    claimed_bits, bits = claim.bits_per_weight, declared.bits_per_weight
    differs = claimed_bits and bits and not _TIGHTEST <= bits / claimed_bits <= _LOOSEST
    if quantized[0] != quantized[1] or differs:
        return Verdict(label, f"called {claim.name}, but is {label}")
    return Verdict(label)


def agrees(claim: QuantizationName, content: Content) -> bool:
    """Return whether the name is right for a GGUF with this content."""
    main, bits = content.main_type, content.bits_per_weight
    if main is None or main in claim.scheme.formats:
        return True
    if content.is_narrow and claim.scheme.family.name in ("k-quant", "i-quant"):
        return main in FALLBACKS
    if _BARE.fullmatch(claim.name):
        return math.floor(format_bits(main) or 0) == int(claim.name[1:])
    own_mix = claim.dynamic or not claim.scheme.formats or claim.name.endswith(("_L", "_XL", "_P"))
    if not own_mix or not bits or not claim.bits_per_weight:
        return False
    return _TIGHTEST <= bits / claim.bits_per_weight <= _LOOSEST


def grouped(items: Iterable[tuple[str, str, int, int]]) -> tuple[Group, ...]:
    """Return the sums over items of (type, part, parameters, bytes), most bytes first."""
    sums: dict[tuple[str, str], list[int]] = {}
    for type, part, parameters, size_bytes in items:
        total = sums.setdefault((type, part), [0, 0])
        total[0] += parameters
        total[1] += size_bytes
    groups = (Group(type, part, *total) for (type, part), total in sums.items())
    return tuple(sorted(groups, key=lambda group: -group.size_bytes))


def _running_bytes(architecture: str | None, metadata: Metadata, tensors: list[TensorInfo]) -> int | None:
    """Return the bytes of memory that running it takes; None if the metadata, which are a stranger's, make no sense."""
    try:
        entries = [Entry(info.name, info.shape, format_for(info.ggml_type)) for info in tensors]
        lasting = memory_needed(shape_of(architecture or "", metadata, entries), CONTEXT_TOKENS).lasting.high
    except (ThriftbitError, ArithmeticError, ValueError, TypeError):
        return None
    return None if lasting is None else round(lasting)


def _part(info: TensorInfo) -> str:
    if len(info.shape) < 2 or info.rows == 1 or "_norm" in info.name:
        return SMALL
    if not info.name.startswith("blk."):
        return OUTSIDE
    return NARROW if info.width % SUPER_BLOCK else IN_LAYERS


def _most(groups: Iterable[Group]) -> str | None:
    parameters: dict[str, int] = {}
    for group in groups:
        parameters[group.type] = parameters.get(group.type, 0) + group.parameters
    return max(parameters, key=lambda type: parameters[type]) if parameters else None


def _is_uniform(content: Content) -> bool:
    return len({group.type for group in content.groups if group.part != SMALL}) == 1


def _file_type(value: Any) -> str | None:
    """Return the name of a general.file_type: "Q4_K_M" for 15."""
    number = _number(value)
    name = next((each.name for each in gguf.LlamaFileType if each == number), None)
    return name.removeprefix("MOSTLY_").removeprefix("ALL_") if name and name != "GUESSED" else None


def _text(value: Any) -> str | None:
    return value.encode("utf-8", "replace").decode()[:_TEXT_LIMIT] if isinstance(value, str) else None


def _number(value: Any) -> int | None:
    return int(value) if isinstance(value, np.integer) else None

"""Oddities of a model that are worth a second look: one function for each, which yields plain sentences.

Nothing here is an error. A sentence says what was found and, if needed, what it means for people who want to run the
file. To add a check, write a function and add it to `FILE_CHECKS` or `MODEL_CHECKS`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from gguf import GGML_QUANT_SIZES, GGML_QUANT_VERSION, GGMLQuantizationType

from thriftbit.containers.gguf_values import VERSION, padded
from thriftbit.errors import enumeration
from thriftbit.inspection.description import InspectedTensor, ModelDescription, as_utf8
from thriftbit.sizes import counted, describe_bytes
from thriftbit.sources.architectures.rows import EMBEDDING, OUTPUT
from thriftbit.sources.tokenizers.added_tokens import refuses_name

USUAL_TYPES = 5  # the most formats that one of llama.cpp's presets mixes, F32 not counted
SENTENCE_LIMIT = 1000  # characters, since names in them come from strangers
LARGE_TENSOR = 1 << 20  # weights
UNQUANTIZED = ("F64", "F32", "F16", "BF16", "I8", "I16", "I32", "I64")
NAMESPACES = ("general", "tokenizer", "split", "quantize", "thriftbit")
CHAT_NAME = re.compile(r"(?<![a-z])(instruct|chat|it)(?![a-z])", re.IGNORECASE)
NOT_UTF8 = re.compile("[\udc80-\udcff]")  # the reader keeps such bytes as these characters

# File types whose names are not that of the format of most weights.
FORMAT_OF_FILE_TYPE = {
    "MXFP4_MOE": "MXFP4",
    "IQ2_S": "IQ2_XS",
    "IQ2_M": "IQ2_S",
    "IQ3_XS": "IQ3_S",
    "IQ3_M": "IQ3_S",
}


def oddities(description: ModelDescription) -> tuple[str, ...]:
    kind = description.text("general.type") or "model"
    checks = (*FILE_CHECKS, *MODEL_CHECKS) if kind == "model" else FILE_CHECKS
    content = () if kind == "model" else (f"It holds no model: general.type is {kind!r}.",)
    found = (sentence for check in checks for sentence in check(description))
    return tuple(as_utf8(sentence[:SENTENCE_LIMIT]) for sentence in (*content, *description.problems, *found))


def _byte_order(description: ModelDescription) -> Iterator[str]:
    if any(part.big_endian for part in description.parts):
        yield "It is big-endian: llama.cpp on ordinary machines cannot run it, and Thriftbit cannot read its weights."


def _version(description: ModelDescription) -> Iterator[str]:
    for version in sorted({part.version for part in description.parts} - {VERSION}):
        yield f"It is written in GGUF version {version}; the current one is {VERSION}, since 2023."


def _arrangement(description: ModelDescription) -> Iterator[str]:
    for part in description.parts:
        where = f"{part.path.name}: " if len(description.parts) > 1 else ""
        end = padded(part.data_offset, part.alignment)
        for info in part.tensors:
            if info.offset_bytes != end:
                yield f"{where}tensor {info.name!r} does not follow the one before it; llama.cpp refuses such files."
            end = padded(info.end_bytes, part.alignment)
        unused_bytes = part.file_size_bytes - max((info.end_bytes for info in part.tensors), default=end)
        if unused_bytes >= part.alignment:
            yield f"{where}the last {describe_bytes(unused_bytes)} of the file belong to no tensor."


def _text(description: ModelDescription) -> Iterator[str]:
    for key, value in description.metadata.items():
        texts = value if isinstance(value, list) else [value] if isinstance(value, str) else []
        if count := sum(bool(NOT_UTF8.search(text)) for text in texts):
            yield f"{count} of the texts under {key} are not UTF-8." if len(texts) > 1 else f"{key} is not UTF-8."


def _keys(description: ModelDescription) -> Iterator[str]:
    known = (*NAMESPACES, description.text("general.type"), description.architecture)
    unknown = [key for key in description.metadata if key.partition(".")[0] not in known]
    if unknown:
        yield f"Metadata that Thriftbit does not know: {enumeration(unknown)}."


def _architecture(description: ModelDescription) -> Iterator[str]:
    if description.architecture is None:
        yield "It does not name its architecture (general.architecture), so no program can run it."


def _tensors(description: ModelDescription) -> Iterator[str]:
    if not description.tensors:
        yield "It holds no tensors, only metadata."


def _layers(description: ModelDescription) -> Iterator[str]:
    told = description.number(f"{description.architecture}.block_count")
    found = {match[1] for tensor in description.tensors if (match := re.match(r"blk\.(\d+)\.", tensor.name))}
    if found and told != len(found):
        key = f"{description.architecture}.block_count"
        yield f"{key} is {told}, but there are tensors of {counted(len(found), 'layer')}."


def _context(description: ModelDescription) -> Iterator[str]:
    key = f"{description.architecture}.context_length"
    if description.parts and description.architecture and description.number(key) is None:
        yield f"It does not state the length of its context ({key})."


def _file_type(description: ModelDescription) -> Iterator[str]:
    number = description.number("general.file_type")
    if number is not None and description.file_type is None:
        yield f"general.file_type is {number}, a number that Thriftbit does not know."
    promised = _promised_format(description)
    fallen = set(_fallen(description))
    weights: Counter[str | None] = Counter()
    for tensor in _matrices(description):
        weights[promised if tensor in fallen else tensor.type] += tensor.parameters
    if promised and weights:
        most, parameters = weights.most_common(1)[0]
        if most != promised:
            share = parameters / weights.total()
            yield (
                f"general.file_type says {description.file_type}, but {share:.0%} of the weights in layers are {most}."
            )


def _fallbacks(description: ModelDescription) -> Iterator[str]:
    fallen = Counter(tensor.type for tensor in _fallen(description))
    if fallen:
        types = ", ".join(f"{count} as {type}" for type, count in fallen.most_common())
        promised, block_size = _promised_format(description), _promised_block_size(description)
        yield f"Tensors with rows that the blocks of {promised} ({block_size}) do not divide: {types}."


def _mixture(description: ModelDescription) -> Iterator[str]:
    fallen = set(_fallen(description))
    types = sorted({tensor.type for tensor in description.tensors if tensor not in fallen} - {"F32"})
    if len(types) > USUAL_TYPES:
        yield f"Its weights are in {len(types)} formats ({', '.join(types)}); presets mix {USUAL_TYPES} at most."


def _large_f32(description: ModelDescription) -> Iterator[str]:
    if _promised_format(description) in (None, "F32"):
        return
    large = [t for t in description.tensors if t.type == "F32" and len(t.shape) > 1 and t.parameters >= LARGE_TENSOR]
    if large:
        size = describe_bytes(sum(tensor.size_bytes for tensor in large))
        yield f"Tensors in F32 although they are large: {len(large)}, {size} together, {large[0].name!r} for instance."


def _quantization_version(description: ModelDescription) -> Iterator[str]:
    told = description.number("general.quantization_version")
    quantized = [
        tensor for part in description.parts for tensor in part.tensors if tensor.ggml_type.name not in UNQUANTIZED
    ]
    if quantized and told != GGML_QUANT_VERSION:
        yield f"general.quantization_version is {told}; quantized weights of today have {GGML_QUANT_VERSION}."


def _tied(description: ModelDescription) -> Iterator[str]:
    if description.tied:
        yield "The token embedding is the output matrix too (tied), so its precision counts twice."


def _tokenizer(description: ModelDescription) -> Iterator[str]:
    embedding = next((tensor for tensor in description.tensors if tensor.name == EMBEDDING), None)
    if not description.parts or not description.tensors:
        return
    if description.text("tokenizer.ggml.model") is None or not description.vocabulary_size:
        yield "It has no tokenizer: it cannot turn text into tokens by itself."
    elif embedding is not None and embedding.shape[0] != description.vocabulary_size:
        yield (
            f"The tokenizer has {description.vocabulary_size:,} tokens, the embedding {embedding.shape[0]:,} rows; "
            "llama.cpp refuses such files."
        )
    pre_tokenizer = description.text("tokenizer.ggml.pre")
    if description.text("tokenizer.ggml.model") == "gpt2" and pre_tokenizer in (None, "default"):
        yield "It does not say how text is split before tokenizing (tokenizer.ggml.pre): llama.cpp may do it wrongly."


def _name(description: ModelDescription) -> Iterator[str]:
    tokens, name = description.metadata.get("tokenizer.ggml.tokens"), description.text("general.name") or ""
    if isinstance(tokens, list) and tokens and refuses_name(name, tokens):
        yield (
            f"llama.cpp refuses to load it because of its name ({name!r}): it takes every name with phi3 or phi-3 for "
            "a Phi-3 and looks for tokens that are not there. Change general.name."
        )


def _chat_template(description: ModelDescription) -> Iterator[str]:
    names = (description.text("general.name"), description.text("general.finetune"), description.path.name)
    named = next((name for name in names if name and CHAT_NAME.search(name)), None)
    if named and description.vocabulary_size and not (description.text("tokenizer.chat_template") or "").strip():
        yield f"It is called {named!r} but has no chat template: chat programs will guess one."


def _provenance(description: ModelDescription) -> Iterator[str]:
    importance = description.text("quantize.imatrix.file")
    if importance is not None:
        dataset = description.text("quantize.imatrix.dataset")
        yield f"Quantized with importance data (imatrix) {importance!r}" + (
            f", measured on {dataset!r}." if dataset else "."
        )
    version = description.text("thriftbit.version")
    if version is not None:
        plan = " (plan embedded)" if description.text("thriftbit.plan") else ""
        yield f"Made by Thriftbit {version}{plan}."


FILE_CHECKS = (_byte_order, _version, _arrangement, _text, _keys)
MODEL_CHECKS = (
    _architecture,
    _tensors,
    _layers,
    _context,
    _file_type,
    _fallbacks,
    _mixture,
    _large_f32,
    _quantization_version,
    _tied,
    _tokenizer,
    _name,
    _chat_template,
    _provenance,
)


def _matrices(description: ModelDescription) -> list[InspectedTensor]:
    """Return the matrices in layers. A file type is about these: embedding and output matrix have formats of their
    own."""
    return [t for t in description.tensors if len(t.shape) > 1 and t.name not in (EMBEDDING, OUTPUT)]


def _fallen(description: ModelDescription) -> list[InspectedTensor]:
    """Return the tensors whose rows the blocks of the promised format do not divide. F32 tensors are left out, because
    their format was chosen."""
    block_size = _promised_block_size(description)
    return [t for t in description.tensors if len(t.shape) > 1 and t.shape[-1] % block_size and t.type != "F32"]


def _promised_block_size(description: ModelDescription) -> int:
    """Return the weights in a block of the promised format; 1, which divides all rows, if none is promised."""
    promised = _promised_format(description)
    return GGML_QUANT_SIZES[GGMLQuantizationType[promised]][0] if promised else 1


def _promised_format(description: ModelDescription) -> str | None:
    """Return the format that most weights should have by the file type:
    "Q4_K" for "Q4_K_M"; None if it promises none."""
    file_type = description.file_type or ""
    for name in (FORMAT_OF_FILE_TYPE.get(file_type, file_type), re.sub("_[SML]$", "", file_type)):
        if name in GGMLQuantizationType.__members__:
            return name
    return None

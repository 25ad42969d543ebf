"""Whether a quantized file was made from this original. Only then does a comparison say what quantization did."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from gguf import Keys, TokenType

from thriftbit.containers.gguf_values import Metadata, MetadataValue
from thriftbit.errors import ThriftbitError, shown
from thriftbit.sources.architectures.rows import EMBEDDING, OUTPUT
from thriftbit.sources.architectures.tied import same_values
from thriftbit.sources.model import Model

_logger = logging.getLogger(__name__)

FINGERPRINT = "thriftbit.source.fingerprint"
WITHOUT_EFFECT = ("context_length", "vocab_size")  # on what is computed for a window of text


def check_belongs(quantized: Model, original: Model) -> None:
    """Raises ThriftbitError, with the reason, if the two have another architecture, shape, setting or tokenizer.
    Layers that guess the tokens after the next are left out of it: a file may be made without them.

    Warns if the file says that it was made from other weights, a fine-tune's for instance.
    """
    ours, theirs = _without_layers_ahead(quantized), _without_layers_ahead(original)
    reason = (
        _architecture_differs(ours, theirs)
        or _shapes_differ(ours, theirs)
        or _output_missing(ours, theirs)
        or _settings_differ(ours, theirs)
        or _tokenizers_differ(quantized.metadata, original.metadata)
    )
    if reason:
        raise ThriftbitError(f"{quantized.source} was not made from {original.source}: {reason}")
    stated = quantized.metadata.get(FINGERPRINT)
    is_source = quantized is not original and not original.quantized_source
    if isinstance(stated, str) and is_source and stated not in (original.fingerprint, theirs.fingerprint):
        _logger.warning(
            f"{quantized.source} says that it was made from other weights than those of {original.source}, "
            "so what is measured is that difference as well"
        )


def _without_layers_ahead(model: Model) -> Model:
    """Return the model without layers that guess the tokens after the next, which take no part in what is measured."""
    prefix = f"{model.architecture}."
    layers, ahead = (model.metadata.get(prefix + key) for key in ("block_count", "nextn_predict_layers"))
    if not isinstance(layers, np.integer) or not isinstance(ahead, np.integer) or not 0 < ahead < layers:
        return model
    kept = int(layers) - int(ahead)
    metadata = {key: value for key, value in model.metadata.items() if key != f"{prefix}nextn_predict_layers"}
    for key, value in metadata.items():
        if key.startswith(prefix) and isinstance(value, np.ndarray) and len(value) == layers:
            metadata[key] = value[:kept]
    metadata[f"{prefix}block_count"] = np.uint32(kept)
    left_out = tuple(f"blk.{number}." for number in range(kept, int(layers)))
    tensors = tuple(tensor for tensor in model.tensors if not tensor.name.startswith(left_out))
    return replace(model, metadata=metadata, tensors=tensors)


def _architecture_differs(quantized: Model, original: Model) -> str:
    if quantized.architecture == original.architecture:
        return ""
    return f"it is a {shown(quantized.architecture)}, and the original a {shown(original.architecture)}"


def _shapes_differ(quantized: Model, original: Model) -> str:
    ours = {tensor.name: tensor.shape for tensor in quantized.tensors}
    theirs = {tensor.name: tensor.shape for tensor in original.tensors}
    for name in (ours.keys() | theirs.keys()) - {OUTPUT}:  # an output matrix that repeats the embedding may be left out
        if name not in ours:
            return f"it lacks {shown(name)}"
        if name not in theirs:
            return f"it has {shown(name)}, which the original has not"
    for name in sorted(ours.keys() & theirs.keys()):
        if ours[name] != theirs[name]:
            return f"{shown(name)} has shape {ours[name]}, and {theirs[name]} in the original"
    return ""


def _output_missing(quantized: Model, original: Model) -> str:
    """A file without an output matrix computes with its embedding, so the original's must hold the same numbers."""
    matrices = {tensor.name: tensor for tensor in original.tensors if tensor.name in (EMBEDDING, OUTPUT)}
    if OUTPUT not in matrices or any(tensor.name == OUTPUT for tensor in quantized.tensors):
        return ""
    if same_values(matrices[EMBEDDING], matrices[OUTPUT]):
        return ""
    return f"it lacks {OUTPUT}, and the original's differs from its embedding"


def _settings_differ(quantized: Model, original: Model) -> str:
    prefix = f"{original.architecture}."
    for key, value in original.metadata.items():
        if not key.startswith(prefix) or key.removeprefix(prefix) in WITHOUT_EFFECT:
            continue
        if key in quantized.metadata and not _same(quantized.metadata[key], value):
            return f"{key} is {shown(quantized.metadata[key])}, and {shown(value)} in the original"
    return ""


def _tokenizers_differ(quantized: Metadata, original: Metadata) -> str:
    for key in (Keys.Tokenizer.MODEL, Keys.Tokenizer.PRE, Keys.Tokenizer.ADD_BOS):
        if key in quantized and key in original and not _same(quantized[key], original[key]):
            return (
                f"its tokenizer differs ({key} is {shown(quantized[key])}, and {shown(original[key])} in the original)"
            )
    ours, theirs = quantized.get(Keys.Tokenizer.LIST), original.get(Keys.Tokenizer.LIST)
    if not isinstance(ours, list) or not isinstance(theirs, list):
        return ""
    if len(ours) != len(theirs):
        return f"its vocabulary has {len(ours)} tokens, and the original's {len(theirs)}"
    kinds = original.get(Keys.Tokenizer.TOKEN_TYPE)
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        # padding, named at will
        unused = isinstance(kinds, np.ndarray) and number < len(kinds) and kinds[number] == TokenType.UNUSED
        if one != other and not unused:
            return f"token {number} of its vocabulary is {shown(one)}, and {shown(other)} in the original"
    return ""


def _same(one: MetadataValue, other: MetadataValue) -> bool:
    """Return whether two settings have the same value: lists are compared element by element, and one number for all
    layers equals a list that repeats it for every layer."""
    ones, others = np.asarray(one), np.asarray(other)
    if ones.ndim and others.ndim and ones.shape != others.shape:
        return False
    if ones.dtype.kind == others.dtype.kind == "f":
        return bool(np.allclose(ones, others, rtol=1e-5, atol=0, equal_nan=True))
    return bool(np.all(ones == others))

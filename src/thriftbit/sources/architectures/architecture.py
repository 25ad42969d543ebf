"""One model family: what its checkpoints call things, what GGUF calls them, and how to get from one to the other.

The problem: every family names, fuses and lays out its weights differently, and llama.cpp computes only what it knows
by the family's GGUF name. The choice: a family is a table of rows (source name, container name, shape, transform) and
tables of numbers, and everything is done by the few methods here, in both directions. The tables are complete and
strict: a tensor that no row names, a row whose tensor is missing, a shape that the configuration contradicts, or a
setting that llama.cpp would silently compute otherwise, is an error and never a warning. Left out: the tokenizer, and
any policy on which format a tensor is to have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from thriftbit.containers.gguf_values import Metadata, MetadataValue
from thriftbit.errors import ThriftbitError, enumeration
from thriftbit.sources.architectures.configuration import Configuration
from thriftbit.sources.architectures.dimensions import Dimensions, dimensions_of
from thriftbit.sources.architectures.roles import role_of
from thriftbit.sources.architectures.rope import FACTOR_TENSORS, PLAIN, Rope
from thriftbit.sources.architectures.tied import settle_tied
from thriftbit.sources.architectures.transforms import IDENTITY, Transform
from thriftbit.sources.checkpoint import Checkpoint
from thriftbit.sources.tensor import FloatArray, Tensor, WeightsElsewhereError
from thriftbit.sources.views import constant

EMBEDDING = "token_embd.weight"
OUTPUT = "output.weight"

# GGUF values are typed. These keys are not whole numbers.
FLOAT_KEYS = frozenset(
    {
        "attention.layer_norm_epsilon",
        "attention.layer_norm_rms_epsilon",
        "attention.scale",
        "attn_logit_softcapping",
        "embedding_scale",
        "final_logit_softcapping",
        "logit_scale",
        "residual_scale",
    }
)
FLAG_KEYS = frozenset({"use_parallel_residual"})

# More than any model has, where only a configuration says how many there are.
MOST_LAYERS, MOST_EXPERTS = 1024, 1024

# Buffers that older releases of transformers stored beside the weights; they follow from the configuration.
BUFFERS = (r"\.rotary_emb\.inv_freq$", r"\.masked_bias$")


@dataclass(frozen=True)
class Row:
    """source, target: names, with {layer} in rows of every layer, {expert} in sources of one tensor for each expert.
    shape: of each source tensor, in words of `Dimensions`.
    when: a configuration flag without which the row does not exist ("" for always).
    """

    source: str
    target: str
    shape: str
    transform: Transform = IDENTITY
    when: str = ""


@dataclass(frozen=True)
class Entry:
    """A row filled in for one layer: the container's tensor, and the source tensors it is made of."""

    row: Row
    target: str
    sources: tuple[str, ...]


# What llama.cpp cannot do about a configuration, in words; None if there is nothing.
Check = Callable[[Configuration, Dimensions], str | None]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """classes, model_types: `architectures` and `model_type` in config.json; gguf_name: GGUF's `general.architecture`.

    rows: in container order.
    metadata_keys, optional_metadata_keys: GGUF key without the architecture's prefix -> configuration key.
    aliases, defaults: see `Configuration`.
    fixed: configuration key -> the values for which llama.cpp computes what transformers does, the family's own first.
    checks: what no table of values can say about that.
    rope_types: the rotary scalings that llama.cpp computes for this family, None if it has no rotary embeddings.
    windowed: whether llama.cpp attends through the sliding window that the configuration gives.
    untied: whether llama.cpp takes an output matrix that is not the embedding; copies_tied: whether it wants one even
        where it is the embedding.
    prefixes: how names begin in other checkpoints of the family -> how they do in `rows`.
    ignorable: regular expressions of source names that hold no weights of the text model.
    """

    classes: tuple[str, ...]
    model_types: tuple[str, ...]
    gguf_name: str
    rows: tuple[Row, ...]
    metadata_keys: Mapping[str, str]
    optional_metadata_keys: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    rope_types: frozenset[str] | None = PLAIN
    windowed: bool = False
    untied: bool = True
    copies_tied: bool = False
    prefixes: Mapping[str, str] = field(default_factory=dict)
    ignorable: tuple[str, ...] = ()

    @property
    def has_experts(self) -> bool:
        return any("{expert}" in row.source for row in self.rows)

    def metadata(self, config: Mapping[str, Any]) -> dict[str, MetadataValue]:
        """config: the parsed config.json. -> every GGUF key of the architecture, with its prefix. A setting that is
        missing, malformed, or not what llama.cpp computes is a ThriftbitError."""
        configuration = self._configuration(config)
        keys = {key: _typed(key, name, configuration) for key, name in self.metadata_keys.items()}
        for key, name in self.optional_metadata_keys.items():
            if configuration.get(name) is not None:
                keys[key] = _typed(key, name, configuration)
        if self.rope_types is not None:
            keys |= Rope(configuration, self.rope_types).metadata()
        metadata = {f"{self.gguf_name}.{key}": value for key, value in keys.items()}
        self._refuse_other_computations(configuration, dimensions_of(self.gguf_name, metadata))
        return metadata

    def limitations(self, config: Mapping[str, Any]) -> list[str]:
        """-> sentences for people: where llama.cpp departs from the original on long texts, whatever the file says"""
        configuration = self._configuration(config)
        context = configuration.integer("max_position_embeddings")
        used = configuration.get("sliding_window") is not None and configuration.get("use_sliding_window", True)
        window = configuration.integer("sliding_window") if used and not self.windowed else 0
        sentences = []
        if 0 < window < context:
            sentences.append(f"Trained with a sliding window of {window} tokens; llama.cpp attends to the whole text.")
        if self.rope_types is not None and Rope(configuration, self.rope_types).kind == "dynamic":
            sentences.append(
                f"llama.cpp does not stretch the context as dynamic scaling does: stay within {context} tokens."
            )
        return sentences

    def map_tensors(self, checkpoint: Checkpoint) -> list[Tensor]:
        """-> the container's tensors, named, with roles, in container order; nothing is read yet. A tensor that is
        missing, that no row accounts for, or whose shape the configuration contradicts is a ThriftbitError."""
        configuration = self._configuration(checkpoint.config)
        dimensions = dimensions_of(self.gguf_name, self.metadata(checkpoint.config))
        _refuse_forged_counts(str(checkpoint.path), dimensions, len(checkpoint.tensors), len(checkpoint.tensors))
        tied = configuration.flag("tie_word_embeddings")
        found = self._by_row_name(checkpoint)
        if tied:
            found = settle_tied(found, self._source_of(EMBEDDING), self._source_of(OUTPUT))
            self._refuse_output_of_its_own(str(checkpoint.path), found)
        mapped: list[Tensor] = []
        missing: list[str] = []
        for entry in self._entries(dimensions):
            row = entry.row
            if row.when and not configuration.flag(row.when):
                continue
            if row.target == OUTPUT and tied and row.source not in found:
                if self.copies_tied:
                    mapped += [_named(tensor, OUTPUT) for tensor in mapped if tensor.name == EMBEDDING]
                continue
            lacking = [name for name in entry.sources if name not in found]
            missing += lacking
            if not lacking:
                tensors = [found.pop(name) for name in entry.sources]
                for tensor in tensors:
                    _expect_shape(tensor, dimensions.shape(row.shape), f"{checkpoint.path}: config.json implies")
                mapped.append(_named(row.transform.forward(tensors, dimensions), entry.target))
        if missing == [self._source_of(OUTPUT)] and not found:
            raise ThriftbitError(
                f"{checkpoint.path}: {missing[0]} is missing, although tie_word_embeddings is false. "
                "If the embedding is the output matrix too, set tie_word_embeddings to true in config.json."
            )
        _refuse_incomplete(str(checkpoint.path), missing, [tensor.name for tensor in found.values()])
        return mapped + [_named(constant(name, values), name) for name, values in self._factors(configuration).items()]

    def implied_tensors(self, config: Mapping[str, Any], source_dtype: str) -> dict[str, Tensor]:
        """-> the checkpoint's tensors as the configuration alone implies them, under the names of `rows`; reading one
        is a ThriftbitError. source_dtype: that the weights are stored in."""
        configuration = self._configuration(config)
        dimensions = dimensions_of(self.gguf_name, self.metadata(config))
        _refuse_forged_counts("config.json", dimensions, MOST_LAYERS, MOST_EXPERTS)
        tied = configuration.flag("tie_word_embeddings")
        return {
            source: Tensor(source, dimensions.shape(entry.row.shape), source_dtype, _not_there)
            for entry in self._entries(dimensions)
            if (not entry.row.when or configuration.flag(entry.row.when)) and not (entry.target == OUTPUT and tied)
            for source in entry.sources
        }

    def unmap_tensors(self, tensors: Iterable[Tensor], metadata: Metadata) -> list[Tensor]:
        """The way back: a GGUF's tensors and metadata -> the tensors of the checkpoint, as transformers names and
        lays them out. Rotary factors are left out, since they follow from the configuration."""
        dimensions = dimensions_of(self.gguf_name, metadata)
        found = {tensor.name: tensor for tensor in tensors if tensor.name not in FACTOR_TENSORS}
        where = f"GGUF model of architecture {self.gguf_name}"
        _refuse_forged_counts(where, dimensions, len(found), max((t.shape[0] for t in found.values()), default=0))
        unmapped: list[Tensor] = []
        missing: list[str] = []
        for entry in self._entries(dimensions):
            row = entry.row
            tensor = found.pop(entry.target, None)
            if tensor is not None:
                _expect_shape(
                    tensor, row.transform.shape(dimensions.shape(row.shape), dimensions), "GGUF metadata implies"
                )
                originals = row.transform.inverse(tensor, dimensions)
                unmapped += [
                    original.renamed(name, tensor.role) for name, original in zip(entry.sources, originals, strict=True)
                ]
            elif not row.when and entry.target != OUTPUT:
                missing.append(entry.target)
        _refuse_incomplete(where, missing, list(found))
        return unmapped

    def _configuration(self, config: Mapping[str, Any]) -> Configuration:
        return Configuration(config, self.aliases, self.defaults)

    def _missing_base(self, names: Collection[str]) -> str:
        """-> "model." for a checkpoint of the bare model, whose names begin without it; "" for every other one"""
        base, _, embedding = self._source_of(EMBEDDING).partition(".")
        bare = embedding in names and not any(name.startswith(f"{base}.") for name in names)
        return f"{base}." if bare else ""

    def _source_of(self, target: str) -> str:
        return next((row.source for row in self.rows if row.target == target), "")

    def _refuse_output_of_its_own(self, where: str, found: Mapping[str, Tensor]) -> None:
        output = self._source_of(OUTPUT)
        if not self.untied and output in found:
            raise ThriftbitError(
                f"{where}: {output} differs from {self._source_of(EMBEDDING)}, although tie_word_embeddings is true; "
                f"llama.cpp's {self.gguf_name} always uses the embedding."
            )

    def _refuse_other_computations(self, configuration: Configuration, dimensions: Dimensions) -> None:
        if not self.untied and not configuration.flag("tie_word_embeddings"):
            raise ThriftbitError(
                f"config.json: tie_word_embeddings is false; llama.cpp's {self.gguf_name} always uses the embedding."
            )
        for key, values in self.fixed.items():
            value = configuration.get(key)
            if value is not None and value not in values:
                raise ThriftbitError(
                    f"config.json: {key} is {value!r}, but llama.cpp's {self.gguf_name} computes {values[0]!r} only."
                )
        for check in self.checks:
            problem = check(configuration, dimensions)
            if problem:
                raise ThriftbitError(f"config.json: {problem}")

    def _factors(self, configuration: Configuration) -> dict[str, FloatArray]:
        return {} if self.rope_types is None else Rope(configuration, self.rope_types).factors()

    def _entries(self, dimensions: Dimensions) -> Iterator[Entry]:
        """Every row for every layer, in container order: rows of layers are gone through layer by layer."""
        for in_layers, rows in groupby(self.rows, lambda row: "{layer}" in row.target):
            table = tuple(rows)
            for layer in range(dimensions.layers if in_layers else 1):
                for row in table:
                    experts = range(dimensions.experts if "{expert}" in row.source else 1)
                    sources = tuple(row.source.format(layer=layer, expert=expert) for expert in experts)
                    yield Entry(row, row.target.format(layer=layer), sources)

    def _by_row_name(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """-> the checkpoint's tensors under the names that the rows use, without those that may be ignored"""
        ignorable = [re.compile(pattern) for pattern in (*BUFFERS, *self.ignorable)]
        base = self._missing_base(checkpoint.tensors)
        found: dict[str, Tensor] = {}
        for name, tensor in checkpoint.tensors.items():
            if any(pattern.search(name) for pattern in ignorable):
                continue
            prefix = next((prefix for prefix in self.prefixes if name.startswith(prefix)), "")
            row_name = self.prefixes[prefix] + name.removeprefix(prefix) if prefix else name
            if base and not row_name.startswith(base) and row_name != self._source_of(OUTPUT):
                row_name = base + row_name
            if row_name in found:
                raise ThriftbitError(f"{checkpoint.path}: {name} and {found[row_name].name} are the same tensor twice.")
            found[row_name] = tensor
        return found


def _not_there(start: int, stop: int) -> FloatArray:
    raise WeightsElsewhereError("only the configuration of this model is here, and not its weights")


def _typed(key: str, name: str, configuration: Configuration) -> MetadataValue:
    if key in FLAG_KEYS:
        return configuration.flag(name)
    if key in FLOAT_KEYS:
        return np.float32(configuration.number(name))
    return np.uint32(configuration.integer(name))


def _named(tensor: Tensor, name: str) -> Tensor:
    return tensor.renamed(name, role_of(name))


def _expect_shape(tensor: Tensor, expected: tuple[int, ...], who: str) -> None:
    if tensor.shape != expected:
        raise ThriftbitError(f"{who} {expected} for {tensor.name}, and its shape is {tensor.shape}.")


def _refuse_forged_counts(where: str, dimensions: Dimensions, most_layers: int, most_experts: int) -> None:
    """Before tables are filled in that often."""
    if dimensions.layers > most_layers or dimensions.experts > most_experts:
        raise ThriftbitError(
            f"{where}: {dimensions.layers} layers and {dimensions.experts} experts are more than there are tensors for."
        )


def _refuse_incomplete(where: str, missing: list[str], unknown: list[str]) -> None:
    problems = [
        f"{len(names)} {kind} ({enumeration(names)})"
        for kind, names in (("missing", missing), ("not known to this architecture", unknown))
        if names
    ]
    if problems:
        raise ThriftbitError(f"{where}: tensors {' and '.join(problems)}.")

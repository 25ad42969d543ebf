"""One model family: what its checkpoints call things, what GGUF calls them, and how to get from one to the other.

The problem: every family names, fuses and lays out its weights differently. Its layers may be of several kinds, and
llama.cpp computes only what it knows by the family's GGUF name. The choice: a family is a table. It says which kinds of
layer there are, in which order they come, and which settings become which GGUF keys. The few methods here do the rest,
in both directions. The tables are complete and strict. These are errors, never warnings: a tensor that no row names, a
row whose tensor is missing, a shape that the configuration contradicts, a setting that llama.cpp would silently compute
otherwise. Left out: the tokenizer, and the choice of a tensor's format."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from thriftbit.containers.gguf_values import Metadata, MetadataValue
from thriftbit.errors import ThriftbitError, enumeration, shown
from thriftbit.sources import views
from thriftbit.sources.architectures.configuration import Configuration
from thriftbit.sources.architectures.dimensions import MOST_LAYERS, Dimensions, Length, dimensions_of
from thriftbit.sources.architectures.entries import (
    Entry,
    expect_as_many,
    expect_shape,
    filled,
    multiplied,
    not_there,
    take_sources,
)
from thriftbit.sources.architectures.keys import Setting, metadata_value
from thriftbit.sources.architectures.kinds import Order
from thriftbit.sources.architectures.layer_cache import LayerCache
from thriftbit.sources.architectures.roles import role_of
from thriftbit.sources.architectures.rope import FACTOR_TENSORS, PLAIN, Rope
from thriftbit.sources.architectures.rows import EMBEDDING, FINAL_NORM, HEAD, OUTPUT, TOKEN_EMBEDDING, Row
from thriftbit.sources.architectures.spelling import BUFFERS, other_part, other_parts, text_name
from thriftbit.sources.architectures.tied import settle_tied
from thriftbit.sources.checkpoint import Checkpoint
from thriftbit.sources.tensor import FloatArray, Tensor

# Limits above every model, for counts that only a configuration states.
MOST_EXPERTS = 1024


# Returns in words what llama.cpp cannot compute of a configuration, None if there is nothing.
Check = Callable[[Configuration, Dimensions], str | None]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """classes, model_types: `architectures` and `model_type` in config.json; gguf_name: GGUF's `general.architecture`.

    layers: gives the kind of each layer from the model's numbers. before, after: the rows before and after the layers.
    lengths: words of shapes that `Dimensions` lacks, or that mean something else in this family.
    metadata_keys, optional_metadata_keys: GGUF key without the architecture's prefix -> configuration key, or a
        function of the configuration that gives the value (`keys.py`).
    restored: functions from metadata back to settings, for keys that are not one setting. They get GGUF keys without
    prefix, and under "tensors" the names of the file's tensors.
    aliases, defaults: see `Configuration`.
    fixed: configuration key -> the values for which llama.cpp and transformers compute the same, the family's own
    first.
    checks: functions for conditions that no table of values can state. notes: sentences for people on remaining
    differences.
    rope_types: the rotary scalings that llama.cpp computes for this family, None if it has no rotary embeddings.
    rotates_parts: whether llama.cpp can rotate a part of each head. Otherwise it rotates all of it, or stops.
    untied: whether llama.cpp takes an output matrix that is not the embedding. copies_tied: whether it needs a second
    copy if the output matrix is the embedding.
    next_token_key: the setting that counts layers that guess the tokens after the next (MTP), "" if there are none.
    most_next_token_layers: how many of them llama.cpp takes.
    recognised: whether a model is of this family by its numbers, if several families share a GGUF name.
    applies: whether a parsed configuration is of this family, if several families share a class.
    multipliers: settings that are multiplied into the file's weights -> the values of these settings afterwards.
    computed_as: the model type in transformers that computes the text part of a multimodal model, "" for the model's
    own.
    prefixes: beginnings of names in other checkpoints of the family -> beginnings in the rows; beside
    `spelling.PREFIXES`.
    ignorable: regular expressions of source names that hold no weights of the text model.
    drops_layers_behind: whether layers behind the last one (MTP) are left out."""

    classes: tuple[str, ...]
    model_types: tuple[str, ...]
    gguf_name: str
    layers: Order
    metadata_keys: Mapping[str, Setting]
    before: tuple[Row, ...] = (TOKEN_EMBEDDING,)
    after: tuple[Row, ...] = (FINAL_NORM, HEAD)
    lengths: Mapping[str, Length] = field(default_factory=dict)
    optional_metadata_keys: Mapping[str, Setting] = field(default_factory=dict)
    restored: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda stated: {}
    aliases: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    notes: Callable[[Configuration], Collection[str]] = lambda configuration: ()
    rope_types: frozenset[str] | None = PLAIN
    rotates_parts: bool = False
    untied: bool = True
    copies_tied: bool = False
    next_token_key: str = ""
    most_next_token_layers: int = MOST_LAYERS
    recognised: Callable[[Dimensions], bool] | None = None
    applies: Callable[[Mapping[str, Any]], bool] = lambda config: True
    multipliers: Mapping[str, Any] = field(default_factory=dict)
    computed_as: str = ""
    prefixes: Mapping[str, str] = field(default_factory=dict)
    ignorable: tuple[str, ...] = ()
    drops_layers_behind: bool = False

    def dimensions(self, metadata: Metadata) -> Dimensions:
        """Return the numbers in a GGUF's metadata, unchecked."""
        return Dimensions(self.gguf_name, metadata, self.lengths)

    def metadata(self, config: Mapping[str, Any]) -> dict[str, MetadataValue]:
        """Return every GGUF key of the architecture, with its prefix. Raises ThriftbitError for a setting that is
        missing, malformed, or not what llama.cpp computes. config: the parsed config.json."""
        configuration = self.configuration(config)
        keys = {key: metadata_value(key, setting, configuration) for key, setting in self.metadata_keys.items()}
        for key, setting in self.optional_metadata_keys.items():
            if not isinstance(setting, str) or configuration.get(setting) is not None:
                keys[key] = metadata_value(key, setting, configuration)
        if self.next_token_key and configuration.get(self.next_token_key):
            ahead = configuration.integer(self.next_token_key)
            if ahead > self.most_next_token_layers:
                raise ThriftbitError(
                    f"config.json: {self.next_token_key} is {ahead}; llama.cpp's {self.gguf_name} takes "
                    f"{self.most_next_token_layers}."
                )
            keys["block_count"] = np.uint32(configuration.integer("num_hidden_layers") + ahead)
            keys["nextn_predict_layers"] = metadata_value("", self.next_token_key, configuration)
        if self.rope_types is not None:
            keys = {**Rope(configuration, self.rope_types).metadata(), **keys}
        metadata = {f"{self.gguf_name}.{key}": value for key, value in keys.items() if value is not None}
        self._refuse_other_computations(configuration, dimensions_of(self.gguf_name, metadata, self.lengths))
        return metadata

    def limitations(self, config: Mapping[str, Any]) -> list[str]:
        """Return sentences for people on where llama.cpp computes otherwise than the original."""
        configuration = self.configuration(config)
        context = configuration.integer("max_position_embeddings")
        used = configuration.get("sliding_window") is not None and configuration.get("use_sliding_window", True)
        window = configuration.integer("sliding_window") if used else 0
        sentences = list(self.notes(configuration))
        if 0 < window < context and not any(cache.window_tokens for cache in self.layer_caches(self.metadata(config))):
            sentences.append(f"Trained with a sliding window of {window} tokens; llama.cpp attends to the whole text.")
        stretched = self.metadata(config).get(f"{self.gguf_name}.rope.scaling.type") == "none"
        if not stretched and self.rope_types is not None and Rope(configuration, self.rope_types).kind == "dynamic":
            sentences.append(
                f"llama.cpp does not stretch the context as dynamic scaling does: stay within {context} tokens."
            )
        return sentences

    def layer_caches(self, metadata: Metadata) -> tuple[LayerCache, ...]:
        """Return what llama.cpp keeps of a text in each layer. Layers that guess ahead are not loaded, so they are left
        out."""
        model = self.dimensions(metadata)
        if model.all_layers > MOST_LAYERS:
            raise ThriftbitError(
                f"{self.gguf_name}.block_count is {model.all_layers}; models have 1 to {MOST_LAYERS} layers"
            )
        kinds = self.layers(model)[: model.layers]
        return tuple(kind.keeps(model.at(number)) for number, kind in enumerate(kinds))

    def settled(self, checkpoint: Checkpoint, next_token_layers: bool = True) -> Checkpoint:
        """Return the checkpoint with a configuration that gives the true number of layers that guess ahead (MTP).
        Configurations count some that are not stored, and omit some that are. next_token_layers: whether they are
        wanted."""
        if not self.next_token_key:
            return checkpoint
        found = self._by_row_name(checkpoint)
        count, ahead = 0, set[str]()
        while (
            count < self.most_next_token_layers
            and (more := self._next_token_tensors(checkpoint.config, count) - ahead) & found.keys()
        ):
            count, ahead = count + 1, ahead | more
        if not next_token_layers:
            found = {name: tensor for name, tensor in found.items() if name not in ahead}
        config = with_setting(checkpoint.config, self.next_token_key, count if next_token_layers else 0)
        if next_token_layers:
            return replace(checkpoint, config=config)
        return replace(checkpoint, config=config, tensors={tensor.name: tensor for tensor in found.values()})

    def other_parts(self, checkpoint: Checkpoint) -> list[str]:
        """Return the parts of a multimodal model that are left out ("pictures", "sound")."""
        return other_parts(checkpoint.tensors)

    def map_tensors(self, checkpoint: Checkpoint) -> list[Tensor]:
        """Return the container's tensors with names and roles, in container order. Nothing is read yet. Raises
        ThriftbitError for a tensor that is missing, that no row names, or whose shape the configuration contradicts."""
        configuration = self.configuration(checkpoint.config)
        model = dimensions_of(self.gguf_name, self.metadata(checkpoint.config), self.lengths)
        _refuse_forged_counts(str(checkpoint.path), model, len(checkpoint.tensors), _most_parts(checkpoint.tensors))
        tied = configuration.flag("tie_word_embeddings")
        found = self._by_row_name(checkpoint)
        if tied:
            found = settle_tied(found, self._source_of(EMBEDDING), self._source_of(OUTPUT))
            self._refuse_output_of_its_own(str(checkpoint.path), found)
        mapped: list[Tensor] = []
        missing: list[str] = []
        for entry in self._present(configuration, model):
            if entry.row.target == OUTPUT and tied and entry.row.source not in found:
                if self.copies_tied:
                    mapped += [_named(tensor, OUTPUT) for tensor in mapped if tensor.name == EMBEDDING]
                continue
            tensors = take_sources(entry, found, missing, f"{checkpoint.path}: config.json implies")
            if tensors:
                outputs = entry.row.transform.forward(tensors, entry.model)
                if entry.row.multiplied:
                    outputs = [multiplied(output, configuration, entry.row.multiplied) for output in outputs]
                mapped += [_named(output, name) for output, name in zip(outputs, entry.targets, strict=True)]
        if missing == [self._source_of(OUTPUT)] and not found:
            raise ThriftbitError(
                f"{checkpoint.path}: {missing[0]} is missing, although tie_word_embeddings is false. "
                "If the embedding is the output matrix too, set tie_word_embeddings to true in config.json."
            )
        _refuse_incomplete(str(checkpoint.path), missing, [tensor.name for tensor in found.values()])
        factors = {name: views.constant(name, values) for name, values in self._factors(configuration).items()}
        return mapped + [_named(tensor, name) for name, tensor in factors.items()]

    def implied_tensors(self, config: Mapping[str, Any], source_dtype: str) -> dict[str, Tensor]:
        """Return the checkpoint's tensors that the configuration alone implies, under transformers' names. Reading one
        raises ThriftbitError. source_dtype: the dtype that the weights are stored in."""
        configuration = self.configuration(config)
        model = dimensions_of(self.gguf_name, self.metadata(config), self.lengths)
        _refuse_forged_counts("config.json", model, MOST_LAYERS, MOST_EXPERTS)
        tied = configuration.flag("tie_word_embeddings")
        return {
            source: Tensor(source, entry.source_shape, source_dtype, not_there)
            for entry in self._present(configuration, model)
            if not (entry.row.target == OUTPUT and tied)
            for source in entry.sources
        }

    def unmap_tensors(self, tensors: Iterable[Tensor], metadata: Metadata) -> list[Tensor]:
        """Return the checkpoint's tensors for a GGUF's tensors and metadata, as transformers names and arranges them.
        Rotary factors are left out, because they follow from the configuration."""
        model = dimensions_of(self.gguf_name, metadata, self.lengths)
        found = {tensor.name: tensor for tensor in tensors if tensor.name not in FACTOR_TENSORS}
        where = f"GGUF model of architecture {self.gguf_name}"
        _refuse_forged_counts(where, model, len(found), max((t.shape[0] for t in found.values()), default=0))
        unmapped: list[Tensor] = []
        missing: list[str] = []
        for entry in self.entries(model):
            here = [found.pop(name) for name in entry.targets if name in found]
            if len(here) == len(entry.targets):
                expect_as_many(here, entry)
                for tensor, shape in zip(here, entry.target_shapes(), strict=True):
                    expect_shape(tensor, shape, "GGUF metadata implies")
                originals = entry.row.transform.inverse(here, entry.model)
                unmapped += [
                    views.reshaped(original, entry.source_shape).renamed(name, here[0].role)
                    for name, original in zip(entry.sources, originals, strict=True)
                ]
            elif here or not (entry.row.when or entry.row.optional or entry.row.target == OUTPUT):
                missing += sorted(set(entry.targets) - {tensor.name for tensor in here})
        _refuse_incomplete(where, missing, list(found))
        return unmapped

    def entries(self, model: Dimensions) -> Iterator[Entry]:
        """Yield every row for every layer, in container order."""
        for row in self.before:
            yield filled(row, model)
        for number, kind in enumerate(self.layers(model)):
            for row in kind.rows:
                yield filled(row, model.at(number), number)
        for row in self.after:
            yield filled(row, model)

    def configuration(self, config: Mapping[str, Any]) -> Configuration:
        return Configuration(config, self.aliases, self.defaults)

    def _missing_base(self, names: Collection[str]) -> str:
        """Return "model." for a checkpoint of the bare model, whose names begin without it; "" for every other one."""
        base, _, embedding = self._source_of(EMBEDDING).partition(".")
        bare = embedding in names and not any(name.startswith(f"{base}.") for name in names)
        return f"{base}." if bare else ""

    def _source_of(self, target: str) -> str:
        return next((row.source for row in (*self.before, *self.after) if row.target == target), "")

    def _refuse_output_of_its_own(self, where: str, found: Mapping[str, Tensor]) -> None:
        output = self._source_of(OUTPUT)
        if not self.untied and output in found:
            raise ThriftbitError(
                f"{where}: {output} differs from {self._source_of(EMBEDDING)}, although tie_word_embeddings is true; "
                f"llama.cpp's {self.gguf_name} always uses the embedding."
            )

    def _present(self, configuration: Configuration, model: Dimensions) -> Iterator[Entry]:
        """Yield the entries whose setting is there, and those that need none."""
        return (each for each in self.entries(model) if not each.row.when or configuration.flag(each.row.when))

    def _next_token_tensors(self, config: Mapping[str, Any], index: int) -> set[str]:
        """Return all names that a checkpoint may give to the tensors of a layer that guesses ahead."""
        metadata = self.metadata(with_setting(config, self.next_token_key, index + 1))
        model = dimensions_of(self.gguf_name, metadata, self.lengths)
        number = model.layers + index
        entries = [filled(row, model.at(number), number) for row in self.layers(model)[number].rows]
        return {name for entry in entries for names in entry.spellings() for name in names}

    def _refuse_other_computations(self, configuration: Configuration, model: Dimensions) -> None:
        if not self.untied and not configuration.flag("tie_word_embeddings"):
            raise ThriftbitError(
                f"config.json: tie_word_embeddings is false; llama.cpp's {self.gguf_name} always uses the embedding."
            )
        for key, values in self.fixed.items():
            value = configuration.get(key)
            if value is not None and value not in values:
                raise ThriftbitError(
                    f"config.json: {key} is {shown(value)}, "
                    f"but llama.cpp's {self.gguf_name} computes {values[0]!r} only."
                )
        for check in (_experts_are_chosen, self._all_is_rotated, *self.checks):
            problem = check(configuration, model)
            if problem:
                raise ThriftbitError(f"config.json: {problem}")

    def _all_is_rotated(self, configuration: Configuration, model: Dimensions) -> str | None:
        if self.rope_types is None or self.rotates_parts or model.rotary == model.head:
            return None
        return f"{model.rotary} of {model.head} entries of a head are rotated; here llama.cpp rotates all."

    def _factors(self, configuration: Configuration) -> dict[str, FloatArray]:
        return {} if self.rope_types is None else Rope(configuration, self.rope_types).factors()

    def _by_row_name(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """Return the text model's tensors under transformers' names, without those that may be ignored."""
        ignorable = [re.compile(pattern) for pattern in (*BUFFERS, *self.ignorable)]
        base = self._missing_base(checkpoint.tensors)
        layers = self.configuration(checkpoint.config).integer("num_hidden_layers") if self.drops_layers_behind else 0
        found: dict[str, Tensor] = {}
        for name, tensor in checkpoint.tensors.items():
            if other_part(name) or any(pattern.search(name) for pattern in ignorable):
                continue
            row_name = text_name(name, self.prefixes)
            if base and not row_name.startswith(base) and row_name != self._source_of(OUTPUT):
                row_name = base + row_name
            if self.drops_layers_behind and _layer_of(row_name) >= layers:
                continue
            if row_name in found:
                raise ThriftbitError(f"{checkpoint.path}: {name} and {found[row_name].name} are the same tensor twice.")
            found[row_name] = tensor
        return found


def with_setting(config: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return the configuration with another value for the key, whether it stands at the top or in `text_config`."""
    text = config.get("text_config")
    changed = {**config, key: value}
    return {**changed, "text_config": {**text, key: value}} if isinstance(text, Mapping) else changed


def _experts_are_chosen(configuration: Configuration, model: Dimensions) -> str | None:
    used = model.number("expert_used_count", 0, least=0)
    if model.experts == 0 or 1 <= used <= model.experts:
        return None
    return f"every token is to choose {used} of {model.experts} experts, which llama.cpp does not do."


def _layer_of(name: str) -> int:
    """Return the number of the layer that the tensor belongs to; -1 for a tensor outside of layers."""
    found = re.match(r"model\.layers\.(\d+)\.", name)
    return int(found[1]) if found else -1


def _most_parts(tensors: Mapping[str, Tensor]) -> int:
    """Return the most experts that a layer can have by its tensors: each is a tensor of its own, or a part of one."""
    return min(MOST_EXPERTS, max(len(tensors), max((tensor.shape[0] for tensor in tensors.values()), default=0)))


def _named(tensor: Tensor, name: str) -> Tensor:
    return tensor.renamed(name, role_of(name))


def _refuse_forged_counts(where: str, model: Dimensions, most_layers: int, most_experts: int) -> None:
    """Raise ThriftbitError for counts that exceed the tensors, before tables of that size are filled in."""
    if model.all_layers > most_layers or model.experts > most_experts:
        raise ThriftbitError(
            f"{where}: {model.all_layers} layers and {model.experts} experts are more than there are tensors for."
        )


def _refuse_incomplete(where: str, missing: list[str], unknown: list[str]) -> None:
    problems = [
        f"{len(names)} {kind} ({enumeration(names)})"
        for kind, names in (("missing", missing), ("not known to this architecture", unknown))
        if names
    ]
    if problems:
        raise ThriftbitError(f"{where}: tensors {' and '.join(problems)}.")

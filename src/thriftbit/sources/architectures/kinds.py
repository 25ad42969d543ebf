"""Kinds of layer: which tensors a layer has, what it keeps of the text, and in which order layers come.

A kind is put together from parts: `layer_of(ATTENTION_NORM, ATTENTION, FFN_NORM, GATED_FFN)`. A family says by a
function of the model's numbers which kind each of its layers is; `every_layer` and `every_nth` are the common ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from thriftbit.sources.architectures.dimensions import Dimensions
from thriftbit.sources.architectures.layer_cache import Keeps, LayerCache, both, windowed
from thriftbit.sources.architectures.rows import LAYER, Row


@dataclass(frozen=True)
class Kind:
    """A layer, or a part of one. rows: its tensors, in container order. keeps: what it keeps of the text."""

    rows: tuple[Row, ...]
    keeps: Keeps = lambda model: LayerCache()


# Gives the kind of each layer from the model's numbers; layers that guess ahead come last
Order = Callable[[Dimensions], Sequence[Kind]]


def layer_of(*parts: Kind | Row) -> Kind:
    """Return a kind of layer with all of these parts."""
    kinds = [Kind((part,)) if isinstance(part, Row) else part for part in parts]
    keeping = [part.keeps for part in parts if isinstance(part, Kind)]
    return Kind(tuple(row for kind in kinds for row in kind.rows), both(*keeping))


def sliding(kind: Kind) -> Kind:
    """Return the same kind, with attention limited to the model's sliding window."""
    return replace(kind, keeps=windowed(kind.keeps))


def named_at_source(kind: Kind, prefix: str) -> Kind:
    """Return the same kind, for layers that the source stores outside its list of layers."""
    rows = tuple(
        replace(
            row,
            source=row.source.replace(LAYER, prefix),
            spellings=tuple(tuple(name.replace(LAYER, prefix) for name in names) for names in row.spellings),
        )
        for row in kind.rows
    )
    return Kind(rows, kind.keeps)


def every_layer(*parts: Kind | Row) -> Order:
    """Return a rule: all layers are alike and made of these parts."""
    kind = layer_of(*parts)
    return lambda model: [kind] * model.all_layers


def every_nth(period: int, kind: Kind, others: Kind) -> Order:
    """Return a rule: `kind` in every `period`-th layer: with a period of 4 in layers 3, 7, 11, ..., counted from 0."""
    return lambda model: [kind if layer % period == period - 1 else others for layer in range(model.all_layers)]


def by_flag(key: str, kind: Kind, others: Kind) -> Order:
    """Return a rule: `kind` in the layers for which the metadata's list of flags `key` is true."""
    return lambda model: [kind if model.at(layer).flag(key) else others for layer in range(model.all_layers)]

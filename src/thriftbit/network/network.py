"""A language model computed layer by layer, so that memory holds one layer and never the model.

The problem: judging or calibrating a model needs its activations, and its weights do not fit in memory. The choice:
transformers supplies the computation of every family, built without weights. Its own forward pass runs with stand-ins
in place of the layers, which record the arguments of each call. Then one layer after another is filled with weights,
called for all texts, and emptied again. So masks, rotary embeddings and multipliers are computed by the code that the
model's authors published, and nothing here depends on the family. Left out: caches for generating, and training.

The vocabulary is streamed as well. Only the embedding rows of tokens that occur are read, and logits are given for a
range of the vocabulary at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, cast
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from thriftbit.errors import ThriftbitError
from thriftbit.network.skeleton import find_layers, without_weights

Function = Callable[[torch.Tensor], torch.Tensor]
Call = tuple[tuple[Any, ...], dict[str, Any]]


class Source(Protocol):
    """Where a network's weights come from: `Weights` of a model, or `StoredWeights` in a file."""

    def load(self, names: Iterable[str], prefix: str = "") -> dict[str, torch.Tensor]: ...

    def rows(self, name: str, tokens: Iterable[int]) -> torch.Tensor: ...

    def outputs(self, start: int, stop: int) -> torch.Tensor: ...


class Network:
    """config: of the model, see `configuration_of`. device: where to compute.

    Every method takes the weights to compute with, so an original and its quantized versions share one network.
    Activations are float32, tokens int64. Shorter texts are padded on the right, which does not affect causal models.

    texts: identifies the texts of `embed` and `call`. It has to be set if several batches of one shape are in progress,
    because layers of some families are called with more than hidden states: vectors of the tokens themselves, keys and
    values of earlier layers."""

    def __init__(self, config: PretrainedConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self._model = without_weights(config)
        self._embedding = cast(nn.Embedding, self._model.get_input_embeddings())
        self._tables = _find_tables(self._model, self._embedding)
        for table in self._tables.values():
            table.padding_idx = None  # torch wants it within the rows, of which only some are read
        self._head = cast(Any, self._model).get_output_embeddings()
        if self._head is None:
            raise ThriftbitError(f"{type(self._model).__name__} has no output matrix, so it predicts no tokens")
        self.layers_name, self._layers = find_layers(self._model, config.get_text_config().num_hidden_layers)
        self._stand_ins = [_StandIn(layer) for layer in self._layers]
        self._model.set_submodule(self.layers_name, nn.ModuleList(self._stand_ins))
        streamed = {id(table.weight) for table in self._tables.values()} | {
            id(part) for part in self._head.parameters()
        }
        names = {id(parameter): name for name, parameter in self._model.named_parameters(remove_duplicate=False)}
        self._head_bias = "" if getattr(self._head, "bias", None) is None else names[id(self._head.bias)]
        self._outside = [name for name, parameter in self._model.named_parameters() if id(parameter) not in streamed]
        self._outside_weights = WeakKeyDictionary[Source, dict[str, torch.Tensor]]()
        self._calls: dict[tuple[Hashable, torch.Size], list[Call]] = {}
        self.texts: Hashable = None
        self._streams = 1  # of hidden states; some families have several in parallel
        self._streams_lead = False  # whether their axis is the first; else it is the third
        self._in_tuples = False  # whether the family's layers return tuples
        self._to_device()

    @property
    def layers(self) -> int:
        return len(self._layers)

    @property
    def width(self) -> int:
        """The width of the hidden states. If a family has several streams of them, it is that of all streams, after
        `embed`."""
        return self._streams * self._embedding.embedding_dim

    @property
    def outside_names(self) -> list[str]:
        """The names of parameters outside of layers that have no row for every token."""
        return [*self._outside, *([self._head_bias] if self._head_bias else [])]

    @property
    def table_names(self) -> list[str]:
        """The names of parameters with a row for every token."""
        return list(self._tables)

    def layer_names(self, index: int) -> list[str]:
        """Return the names of the layer's parameters, without the layer's prefix."""
        return list(self._layers[index].state_dict())

    def linear_names(self, index: int) -> list[str]:
        """Return the names of the layer's linear modules, without the layer's prefix."""
        return [name for name, module in self._layers[index].named_modules() if isinstance(module, nn.Linear)]

    @property
    def texts_differ(self) -> bool:
        """Whether layers are called with something that depends on the texts or comes from an earlier layer. Then only
        this object can call them."""
        return any(key is not None for key, _ in self._calls)

    def embed(self, weights: Source, tokens: torch.Tensor) -> torch.Tensor:
        """Return the inputs of the first layer, float32 (texts, length, width). tokens: int64 (texts, length)."""
        self._model.load_state_dict(self._load_outside(weights), strict=False, assign=True)
        vocabulary, compact = torch.unique(tokens, return_inverse=True)
        for name, table in self._tables.items():
            table.weight = self._parameter(weights.rows(name, vocabulary.tolist()))
        hidden: list[torch.Tensor] = []
        calls: list[Call] = []

        def note(entering: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
            hidden.append(entering)
            calls.append((arguments, options))
            return entering

        self._head.weight = self._parameter(torch.zeros(1, self._embedding.embedding_dim))  # nobody asked for logits
        if self._head_bias:
            self._head.bias = self._parameter(torch.zeros(1))
        try:
            self._run(note, input_ids=compact.to(self.device))
        except IndexError:
            if self._in_tuples or hidden[-1].dim() == hidden[0].dim():
                raise
            self._in_tuples = True  # the model took the first text for the first entry of a tuple
            del hidden[:], calls[:]
            self._run(note, input_ids=compact.to(self.device))
        self._calls[self._key(calls), tokens.shape] = calls
        if hidden[0].dim() == 4:
            self._streams_lead = hidden[0].shape[:2] != tokens.shape
            self._streams = hidden[0].shape[0 if self._streams_lead else 2]
        return self._joined(hidden[0])

    @contextmanager
    def layer(self, index: int, weights: Source) -> Iterator[nn.Module]:
        """Yield the layer as transformers built it, filled with weights while the context lasts. `call` computes it."""
        module = self._layers[index]
        empty = module.state_dict()
        loaded = weights.load(empty, f"{self.layers_name}.{index}.")
        module.load_state_dict({name: tensor.to(self.device) for name, tensor in loaded.items()}, assign=True)
        try:
            yield module
        finally:
            module.load_state_dict(empty, assign=True)

    def call(self, index: int, module: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        """Return the hidden states after the layer, float32 (texts, length, width).

        module: layer `index`. hidden: the states before it, of the same shape as `embed` returned."""
        shape = hidden.shape[:2]
        calls = self._calls.get((None, shape)) or self._calls[self.texts, shape]
        arguments, options = calls[index]
        computed = module(self._apart(hidden), *arguments, **options)
        return self._joined(cast(torch.Tensor, computed[0] if self._in_tuples else computed))

    def head(self, weights: Source, start: int, stop: int) -> Function:
        """Return the function from hidden states after the last layer, float32 (positions, width), to the logits of the
        tokens from `start` to `stop`, float32 (positions, stop - start)."""
        outside, rows = self._load_outside(weights), self._parameter(weights.outputs(start, stop))
        bias = weights.load([self._head_bias])[self._head_bias][start:stop] if self._head_bias else None

        def logits(hidden: torch.Tensor) -> torch.Tensor:
            self._model.load_state_dict(outside, strict=False, assign=True)
            self._head.weight = rows
            if bias is not None:
                self._head.bias = self._parameter(bias)
            for table in self._tables.values():
                table.weight = self._parameter(
                    torch.zeros(1, table.embedding_dim)
                )  # the embedding's values do not matter here
            texts = hidden[
                :, None
            ]  # each position is a text of one token: after the last layer, positions do not interact
            tokens = torch.zeros(texts.shape[:2], dtype=torch.int64, device=texts.device)
            return self._run(lambda *_, **__: self._apart(texts), input_ids=tokens)[:, 0]

        return logits

    def _joined(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return (texts, length, width), several streams joined into one width."""
        if self._streams == 1 or hidden.dim() == 3:
            return hidden
        return (hidden.permute(1, 2, 0, 3) if self._streams_lead else hidden).flatten(2)

    def _apart(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the hidden states in the shape that layers expect, streams apart."""
        if self._streams == 1:
            return hidden
        apart = hidden.reshape(*hidden.shape[:2], self._streams, -1)
        return apart.permute(2, 0, 1, 3) if self._streams_lead else apart

    def _key(self, calls: list[Call]) -> Hashable:
        """Return the texts that the calls belong to; None if the calls are the same for all texts of one shape."""
        own = any(isinstance(argument, torch.Tensor) for arguments, _ in calls for argument in arguments)
        return self.texts if own or any("shared_kv_states" in options for _, options in calls) else None

    def _run(self, layer: Callable[..., torch.Tensor], **inputs: torch.Tensor) -> torch.Tensor:
        """Return the logits that the model's forward pass gives with `layer` in place of every layer."""
        for stand_in in self._stand_ins:
            stand_in.behaviour = (lambda *given, **named: (layer(*given, **named),)) if self._in_tuples else layer
        return cast(torch.Tensor, self._model(**inputs, use_cache=False).logits)

    def _load_outside(self, weights: Source) -> dict[str, torch.Tensor]:
        """Return the few weights outside of layers and tables: the last norm, learned positions. They are kept, because
        every range of the vocabulary needs them."""
        if weights not in self._outside_weights:
            loaded = weights.load(self._outside).items()
            self._outside_weights[weights] = {name: tensor.to(self.device) for name, tensor in loaded}
        return self._outside_weights[weights]

    def _parameter(self, values: torch.Tensor) -> nn.Parameter:
        return nn.Parameter(values.to(self.device), requires_grad=False)

    def _to_device(self) -> None:
        for module in (*self._model.modules(), *(part for layer in self._layers for part in layer.modules())):
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(self.device))


class _StandIn(nn.Module):
    """Stands in for a layer: it has the layer's attributes, because models read them, and calls a given function."""

    behaviour: Callable[..., Any]

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._layer = (layer,)  # in a tuple, so that it is no submodule

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_layer"][0], name)

    def forward(self, hidden: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        return self.behaviour(hidden, *arguments, **options)


def _find_tables(model: PreTrainedModel, embedding: nn.Embedding) -> dict[str, nn.Embedding]:
    """Return the tables with a row for each token, by the names of their parameters: the embedding first, then the
    vectors that layers get besides, where a family has them."""
    tables = {name: module for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    (first,) = (name for name, module in tables.items() if module is embedding)
    others = {name: module for name, module in tables.items() if name.startswith(f"{first}_")}
    return {f"{name}.weight": module for name, module in ({first: embedding} | others).items()}

"""After quantizing: does llama.cpp compute with this file what transformers computes with the original?

The problem: a file with swapped weights, rows in a wrong order or a wrong rotary embedding runs, and its answers are a
little worse. Rounding changes the logits too, at 2 bits more than many a mistake does. So the question is split in two,
and neither half depends on how coarse the rounding is:

1. Are the file's weights the original's, rounded? Each parameter of transformers' code is read from the file, through
   the family's table, and from the original, by transformers' own rules. Rounding changes a matrix by a part of its
   size, even at 2 bits; two matrices that have nothing in common differ by more than the whole.
2. Does llama.cpp compute with the file what transformers computes with the same weights? The next token of a few short
   texts decides. What remains is that llama.cpp rounds the inputs of quantized matrices to 8 bits. How far that moves
   the logits of this very model is measured beside it, by rounding the inputs in transformers as well.

One layer is in memory at a time. Where the time would be long or the memory is short, the check ends with a reason.
Files of families without a table are judged by the second half alone (`measurement/proof.py`). Needs the extra `torch`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from thriftbit.errors import ThriftbitError
from thriftbit.machine.room import estimated_need, room_here
from thriftbit.network.checkpoint_parameters import CheckpointParameters
from thriftbit.network.configuration import configuration_of, left_of_multipliers
from thriftbit.network.network import Network
from thriftbit.network.skeleton import without_weights
from thriftbit.network.weights import Weights
from thriftbit.quantization.self_check import LogitCheck
from thriftbit.runtime import Engine
from thriftbit.sizes import describe_bytes
from thriftbit.sources.checkpoint import open_checkpoint
from thriftbit.sources.gguf_source import open_gguf
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import Tensor

TEXTS = (
    "The lighthouse keeper climbed the stairs, as on every evening, and lit the lamp before the ships came",
    "def mean(values):\n    total = 0\n    for value in values:\n        total += value\n    return",
    "Question: What is the capital of France?\nAnswer: The capital of France is",
)
LIKELIEST = 64  # tokens that are compared
VOCABULARY_ROWS = 4096  # of the output matrix in memory at once
ROWS_COMPARED = 256  # of the embedding and of the output matrix
CONTEXT_TOKENS = 512
LONGEST_SECONDS = 60.0
_FLOAT_BYTES = 2 * 4  # of a layer's weights: the file's, and one of the original's beside them

# Root mean square of what log-probabilities differ by, in units of the standard deviation of transformers' logits.
# Right files: 0.0005 with weights in 16 bits, 0.01 to 0.03 with quantized weights of a trained model, and up to 0.15 of
# a random one. Mistakes: 0.07 (another epsilon of the norms), 0.2 (another base of rotary embeddings), 1.4 (unrelated).
LIMIT, LIMIT_QUANTIZED = 0.02, 0.04
LIMIT_EXPERTS = 0.3  # a rounded input may send a token to another expert
ROUNDINGS = 3.0  # how many times as far as rounded inputs move the logits they may be apart
BLOCK = 256  # numbers that llama.cpp rounds with one scale, at most
# What a parameter may differ by, as a share of its size: one in 16 or 32 bits, and a rounded one. At 2 bits it is 0.35.
CHANGED, CHANGED_ROUNDED = 0.02, 0.9

Read = Callable[[str], torch.Tensor]


@dataclass(frozen=True)
class Predictions:
    """logits: float32 (vocabulary,), of the token after each text. rounded: the same with the inputs of every matrix in
    a layer rounded to 8 bits."""

    logits: Sequence[torch.Tensor]
    rounded: Sequence[torch.Tensor]


class _TooLongError(Exception):
    """seconds: that the whole would take, about."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


def check_logits(model: Model, path: Path, longest_seconds: float = LONGEST_SECONDS) -> LogitCheck:
    """model: as it was opened, of a family with a table. path: the file
    made of it. Returns what comparing them showed."""
    try:
        source = original_parameters(model)
        network = Network(configuration_of(model), torch.device("cpu"))
        file = open_gguf(path)
        weights = Weights(file, model)
    except Exception as error:  # transformers refuses configurations in ways of its own
        return LogitCheck(skipped=f"transformers cannot compute it: {_first_line(error)}")
    comparison = WeightComparison(source, file.quantized_source)
    comparison.compare_tables(weights)
    if lack := _lack_of_memory(file, path):
        return comparison.result(LogitCheck(skipped=lack))
    try:
        texts, theirs = engine_predictions(path)
        found = predictions(network, weights, texts, comparison.compare_layer, longest_seconds)
    except _TooLongError as error:
        reason = f"that takes about {error.seconds / 60:.0f} minutes here; `thriftbit measure` compares the whole"
        return comparison.result(LogitCheck(skipped=reason))
    except ThriftbitError as error:
        return comparison.result(LogitCheck(skipped=str(error)))
    return comparison.result(judged(found, theirs, file))


def _lack_of_memory(file: Model, path: Path) -> str:
    """Return why the logits cannot be compared in the memory that is free now; "" where they can."""
    layers: dict[str, int] = {}
    for tensor in file.tensors:
        layer = ".".join(tensor.name.split(".")[:2])
        layers[layer] = layers.get(layer, 0) + tensor.parameters
    needed = estimated_need(path.stat().st_size) + _FLOAT_BYTES * max(layers.values())
    free = room_here().main
    if free is None or needed <= free:
        return ""
    return f"that takes {describe_bytes(needed)} of memory, and {describe_bytes(free)} are free"


def judged(found: Predictions, theirs: Sequence[dict[int, float]], file: Model) -> LogitCheck:
    """theirs: llama.cpp's log-probabilities of the likeliest tokens after each text. Returns how far apart they are,
    and the limit for this file."""
    distance = max(_apart(logits, each) for logits, each in zip(found.logits, theirs, strict=True))
    if not file.quantized_source:
        return LogitCheck(texts=len(theirs), apart=distance, limit=LIMIT)
    by_rounding = max(
        _apart(logits, _likeliest(rounded)) for logits, rounded in zip(found.logits, found.rounded, strict=True)
    )
    least = LIMIT_EXPERTS if any(len(tensor.shape) == 3 for tensor in file.tensors) else LIMIT_QUANTIZED
    return LogitCheck(texts=len(theirs), apart=distance, limit=max(least, ROUNDINGS * by_rounding))


@torch.no_grad()
def predictions(
    network: Network,
    weights: Weights,
    texts: Sequence[Sequence[int]],
    look: Callable[[str, nn.Module], None] = lambda prefix, layer: None,
    longest_seconds: float = float("inf"),
) -> Predictions:
    """look: is shown each layer with its weights, and the prefix of their names. Raises _TooLongError after the first
    layers where all of them would take longer than `longest_seconds`."""
    started = time.monotonic()
    both = [*texts, *texts]  # the second time with rounded inputs
    hidden = []
    for number, ids in enumerate(both):
        network.texts = number
        hidden.append(network.embed(weights, torch.tensor([list(ids)])))
    for index in range(network.layers):
        with network.layer(index, weights) as layer:
            look(f"{network.layers_name}.{index}.", layer)
            for number, states in enumerate(hidden):
                network.texts = number
                with _rounded_inputs(layer, number >= len(texts)):
                    hidden[number] = network.call(index, layer, states)
        expected = (time.monotonic() - started) / (index + 1) * network.layers
        if expected > longest_seconds:
            raise _TooLongError(expected)
    last = torch.cat([states[:, -1] for states in hidden])
    rows = weights.output.rows
    ranges = [(start, min(start + VOCABULARY_ROWS, rows)) for start in range(0, rows, VOCABULARY_ROWS)]
    logits = torch.cat([network.head(weights, *each)(last) for each in ranges], dim=1)
    return Predictions(tuple(logits[: len(texts)]), tuple(logits[len(texts) :]))


def engine_predictions(path: Path) -> tuple[list[list[int]], list[dict[int, float]]]:
    """path: of a GGUF. Returns token ids of each of TEXTS, and the log-probabilities of the tokens that llama.cpp finds
    the likeliest after it. Raises ThriftbitError if llama.cpp does not run the file."""
    with Engine(path, context_tokens=CONTEXT_TOKENS) as engine:
        texts = [ids for ids in engine.tokenize(list(TEXTS), add_special=True) if ids]
        return texts, [engine.likeliest(ids, LIKELIEST) for ids in texts]


@contextmanager
def _rounded_inputs(layer: nn.Module, wanted: bool) -> Iterator[None]:
    """Rounds what enters each matrix as llama.cpp does with quantized weights: to 8 bits, with a scale for a block."""

    def rounded(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        values = inputs[0]
        block = BLOCK if values.shape[-1] % BLOCK == 0 else values.shape[-1]
        blocks = values.reshape(*values.shape[:-1], -1, block)
        scale = (blocks.abs().amax(-1, keepdim=True) / 127).clamp(min=1e-30)
        return ((blocks / scale).round() * scale).flatten(-2), *inputs[1:]

    matrices = [module for module in layer.modules() if isinstance(module, nn.Linear)] if wanted else []
    hooks = [module.register_forward_pre_hook(rounded) for module in matrices]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _apart(logits: torch.Tensor, found: dict[int, float]) -> float:
    """found: others' log-probabilities of some tokens"""
    ours = torch.log_softmax(logits, dim=0)[list(found)]
    difference = ours - torch.tensor(list(found.values()))
    return float(difference.square().mean().sqrt() / logits.std())


def _likeliest(logits: torch.Tensor) -> dict[int, float]:
    values, tokens = torch.log_softmax(logits, dim=0).topk(min(LIKELIEST, len(logits)))
    return dict(zip(tokens.tolist(), values.tolist(), strict=True))


@dataclass(frozen=True)
class OriginalParameters:
    """The original's parameters under the names of transformers' code. load: one of them. rows: some rows of one of
    them. embedding, output: names of the matrices before the first layer and after the last. are_multiplied: whether
    the file's rows have multipliers of the configuration in them, so that only their directions can be compared."""

    load: Read
    rows: Callable[[str, Sequence[int]], torch.Tensor]
    embedding: str
    output: str
    are_multiplied: bool = False


def original_parameters(model: Model) -> OriginalParameters:
    """Return the hashes of the parameters as they are read from the folder without our table, which may have the
    same mistake as the file; of a GGUF through it."""
    code: Any = without_weights(configuration_of(model))
    embedding, output = (
        next(f"{name}.weight" for name, module in code.named_modules() if module is table)
        for table in (code.get_input_embeddings(), code.get_output_embeddings())
    )
    if model.folder is None:
        weights = Weights(model)
        by_name = {embedding: weights.embedding, output: weights.output}
        return OriginalParameters(
            lambda name: weights.load([name])[name],
            lambda name, rows: _rows(by_name[name], rows),
            embedding,
            output,
        )
    found = CheckpointParameters(code, open_checkpoint(model.folder).tensors, model.source)
    last = output if output in found.names else embedding
    return OriginalParameters(found.load, found.rows, embedding, last, bool(left_of_multipliers(model.config or {})))


class WeightComparison:
    """Which parameters are compared, and which differ by more than rounding."""

    def __init__(self, source: OriginalParameters, quantized: bool) -> None:
        self._source, self._quantized = source, quantized
        self.compared = 0
        self.differing: dict[str, float] = {}

    def compare_layer(self, prefix: str, layer: nn.Module) -> None:
        for name, parameter in layer.named_parameters():
            self._compare(prefix + name, parameter, self._source.load(prefix + name))

    def compare_tables(self, weights: Weights) -> None:
        """Some rows of the embedding and of the output matrix, from the first to the last."""
        source = self._source
        for name, tensor in ((source.embedding, weights.embedding), (source.output, weights.output)):
            rows = sorted({round(row) for row in torch.linspace(0, tensor.rows - 1, ROWS_COMPARED).tolist()})
            self._compare(name, _rows(tensor, rows), source.rows(name, rows))

    def result(self, check: LogitCheck) -> LogitCheck:
        return replace(check, compared=self.compared, differing=dict(self.differing))

    def _compare(self, name: str, ours: torch.Tensor, original: torch.Tensor) -> None:
        if self._source.are_multiplied and ours.dim() > 1:
            ours, original = (nn.functional.normalize(each.flatten(1)) for each in (ours, original))
        size = float(original.norm())
        difference = float((ours - original).norm())
        share = difference / size if size else difference
        self.compared += 1
        if not share <= (CHANGED_ROUNDED if self._quantized and ours.dim() > 1 else CHANGED):
            self.differing[name] = share


def _rows(tensor: Tensor, rows: Sequence[int]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([tensor.load(row, row + 1) for row in rows]))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0][:200]

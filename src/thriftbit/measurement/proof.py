"""A file of a family without a table is proven before it gets its name: llama.cpp computes what transformers does.

The problem: a converter may misread a configuration, and llama.cpp may compute a family otherwise. Such a file runs and
writes nonsense, or worse, slightly worse text. The choice: both compute the next token of a few short texts, and
transformers does it with the very weights that are in the file. So rounding is no excuse, however few bits there are.
What is left are llama.cpp's activations: with quantized weights, it rounds them to 8 bits before every product, which
may also send a token to another expert. Needs the extra `torch`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from thriftbit.containers.atomic_file import check_target
from thriftbit.containers.temporary_folder import temporary_folder
from thriftbit.errors import ThriftbitError
from thriftbit.network.configuration import configuration_of
from thriftbit.network.network import Network
from thriftbit.network.weights import Weights
from thriftbit.runtime import Engine
from thriftbit.runtime.tokenizer import Tokenizer
from thriftbit.sources.gguf_source import open_gguf
from thriftbit.sources.model import Model

_logger = logging.getLogger(__name__)

# Root mean square of what log-probabilities differ by, in units of the standard deviation of transformers' logits.
# Right conversions of random models: 0.001 with weights in 16 bits, 0.01 to 0.15 with quantized ones. Unrelated: 1.4.
LIMIT, LIMIT_QUANTIZED = 0.02, 0.3
LIKELIEST = 64  # tokens that are compared
VOCABULARY_ROWS = 4096  # of the output matrix in memory at once
TEXTS = (
    "The lighthouse keeper climbed the stairs, as on every evening, and lit the lamp before the ships came",
    "def mean(values):\n    total = 0\n    for value in values:\n        total += value\n    return",
    "Question: What is the capital of France?\nAnswer: The capital of France is",
)


@contextmanager
def proven(model: Model, output: Path, force: bool) -> Iterator[Path]:
    """model: from llama.cpp's converter. output: the file's name. force: replace an existing file.

    -> where to write the file; it gets its name at the end of `with`, if llama.cpp and transformers agree on it
    Raises ThriftbitError if they do not; nothing is left then. Where transformers lacks the class, that is logged.
    """
    check_target(output, output, force)
    with temporary_folder("unproven", output.parent) as folder:
        unproven = folder / output.name
        yield unproven
        apart = disagreement(model, unproven)
        limit = LIMIT_QUANTIZED if open_gguf(unproven).quantized_source else LIMIT
        if isinstance(apart, str):
            _logger.warning(f"{output}: not compared with transformers' computation: {apart}")
        elif not apart <= limit:
            raise ThriftbitError(
                f"{output}: llama.cpp computes something else with this file than transformers does with its weights "
                f"({apart:.3f} apart, where {limit} is the limit), so it was not kept.\n"
                "Another release of the converter may do better (--converter PATH); --no-check keeps such a file"
            )
        else:
            _logger.info(f"Checked: llama.cpp and transformers agree on it ({apart:.3f} apart; the limit is {limit})")
        check_target(output, output, force)
        unproven.replace(output)


def disagreement(model: Model, path: Path) -> float | str:
    """path: of a GGUF made of the model. -> see LIMIT, the largest of all texts; or why transformers' side is missing

    Raises ThriftbitError if llama.cpp does not run the file.
    """
    with Tokenizer(model.metadata, model.source) as tokenizer:
        texts = [ids for ids in tokenizer.tokenize(list(TEXTS), add_special=True) if ids]
    with Engine(path, context_tokens=512) as engine:
        theirs = [engine.likeliest(ids, LIKELIEST) for ids in texts]
    try:
        network = Network(configuration_of(model), torch.device("cpu"))
        weights = Weights(open_gguf(path), model)
        ours = [_next_token(network, weights, ids) for ids in texts]
    except Exception as error:  # transformers' code for a class that nobody tried here may fail in ways of its own
        return f"{type(error).__name__}: {error}".split("\n")[0][:200]
    return max(_apart(logits, found) for logits, found in zip(ours, theirs, strict=True))


@torch.no_grad()
def _next_token(network: Network, weights: Weights, ids: Sequence[int]) -> torch.Tensor:
    """-> float32 (vocabulary,): the logits after the text"""
    hidden = network.embed(weights, torch.tensor([ids]))
    for index in range(network.layers):
        with network.layer(index, weights) as layer:
            hidden = network.call(index, layer, hidden)
    rows = weights.output.rows
    ranges = [(start, min(start + VOCABULARY_ROWS, rows)) for start in range(0, rows, VOCABULARY_ROWS)]
    return torch.cat([network.head(weights, *each)(hidden[0, -1:])[0] for each in ranges])


def _apart(logits: torch.Tensor, found: dict[int, float]) -> float:
    """found: llama.cpp's log-probabilities of some tokens"""
    ours = torch.log_softmax(logits, dim=0)[list(found)]
    difference = ours - torch.tensor(list(found.values()))
    return float(difference.square().mean().sqrt() / logits.std())

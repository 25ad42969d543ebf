"""A file of a family without a table is proven before it gets its name: llama.cpp computes what transformers does.

The problem: a converter may misread a configuration, and llama.cpp may compute a family otherwise. Such a file runs and
writes nonsense, or worse, slightly worse text. The choice: both compute the next token of a few short texts, and
transformers does it with the very weights that are in the file. So rounding is no excuse, however few bits there are.
What is left are llama.cpp's activations: with quantized weights, it rounds them to 8 bits before every product, which
may also send a token to another expert (`quantization/logit_check.py`). Needs the extra `torch`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from thriftbit.containers.atomic_file import check_target
from thriftbit.containers.temporary_folder import temporary_folder
from thriftbit.errors import ThriftbitError
from thriftbit.network.configuration import configuration_of
from thriftbit.network.network import Network
from thriftbit.network.weights import Weights
from thriftbit.quantization.logit_check import engine_predictions, judged, predictions
from thriftbit.quantization.self_check import LogitCheck
from thriftbit.sources.gguf_source import open_gguf
from thriftbit.sources.model import Model

_logger = logging.getLogger(__name__)


@contextmanager
def proven(model: Model, output: Path, force: bool) -> Iterator[Path]:
    """model: from llama.cpp's converter. output: the file's name. force: replace an existing file.

    Yields where to write the file; it gets its name at the end of `with`, if llama.cpp and transformers agree on it.
    Raises ThriftbitError if they do not; nothing is left then. Where transformers lacks the class, that is logged."""
    check_target(output, output, force)
    with temporary_folder("unproven", output.parent) as folder:
        unproven = folder / output.name
        yield unproven
        check = disagreement(model, unproven)
        apart, limit = check.apart, check.limit
        if check.skipped:
            _logger.warning(f"{output}: not compared with transformers' computation: {check.skipped}")
        elif check.is_wrong:
            raise ThriftbitError(
                f"{output}: llama.cpp computes something else with this file than transformers does with its weights "
                f"({apart:.3f} apart, where {limit:.3f} is the limit), so it was not kept.\n"
                "Another release of the converter may do better (--converter PATH); --no-check keeps such a file"
            )
        else:
            _logger.info(
                f"Checked: llama.cpp and transformers agree on it ({apart:.3f} apart; the limit is {limit:.3f})"
            )
        check_target(output, output, force)
        unproven.replace(output)


def disagreement(model: Model, path: Path) -> LogitCheck:
    """path: of a GGUF made of the model. Returns how far the logits are apart; or why transformers' side is missing.

    Raises ThriftbitError if llama.cpp does not run the file."""
    texts, theirs = engine_predictions(path)
    file = open_gguf(path)
    try:
        network = Network(configuration_of(model), torch.device("cpu"))
        found = predictions(network, Weights(file, model), texts)
    except Exception as error:  # transformers' code for a class that nobody tried here may fail in ways of its own
        return LogitCheck(skipped=f"{type(error).__name__}: {error}".split("\n")[0][:200])
    return judged(found, theirs, file)

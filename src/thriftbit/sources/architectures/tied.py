"""The output matrix of a model whose configuration says that it is the token embedding ("tied").

Some configurations are wrong about this: a fine-tune with new tokens trains `lm_head` and leaves `tie_word_embeddings`
true, and some programs store one matrix under the name of the other. So the weights decide, as in transformers
(`PreTrainedModel.tie_weights`): two matrices that differ are both kept, and one matrix alone serves both purposes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from thriftbit.sources.tensor import Tensor, WeightsElsewhereError

CHUNK_BYTES = 8 << 20


def settle_tied(tensors: Mapping[str, Tensor], embedding: str, output: str) -> dict[str, Tensor]:
    """tensors: of a checkpoint that claims to be tied, by name. embedding, output: the names of the two matrices.

    Returns the tensors without an output matrix that repeats the embedding, and with the output matrix as the embedding
    where only the output matrix is stored. Two matrices that differ both stay."""
    settled = dict(tensors)
    if output in settled and embedding not in settled:
        settled[embedding] = settled.pop(output)
    elif output in settled and same_values(settled[embedding], settled[output]):
        del settled[output]
    return settled


def same_values(one: Tensor, other: Tensor) -> bool:
    """Return whether both hold the same numbers, read up to the first difference. Weights that are not on this computer
    are taken to agree, because only the configuration speaks for them."""
    if one.shape != other.shape:
        return False
    try:
        return all(np.array_equal(one.load(*rows), other.load(*rows)) for rows in one.chunks(CHUNK_BYTES))
    except WeightsElsewhereError:
        return True

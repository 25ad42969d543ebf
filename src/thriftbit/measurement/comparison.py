"""An original and its quantized versions, run side by side over the same text. Needs the extra `torch`.

The problem: a KL divergence needs both distributions over the vocabulary at once, for every token. Saved logits take
tens of gigabytes, and two models at a time do not fit into memory. The choice: the hidden states of all models are
kept, and weights are not. Each layer of each model is read once, applied to all the text and dropped. After the last
layer, the vocabulary passes in ranges, and only sums are carried from range to range: the normaliser of the softmax (as
in arXiv 1805.02867) and Σ p·log(p/q). So memory holds the hidden states, one layer and one range of the vocabulary,
whatever the size of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from thriftbit.measurement.scores import Passage, Scores
from thriftbit.network.batches import in_batches
from thriftbit.network.network import Network
from thriftbit.network.weights import Weights
from thriftbit.progress import Progress, no_progress, part_of

VOCABULARY_BYTES = 32 << 20  # of the output matrix that are in memory at once, as float32
POSITIONS = 512  # that meet a range of the vocabulary at once
LENGTH_STEP = 16  # texts are padded to a multiple: every length has a mask of its own

COMPARING = "comparing predictions"  # what progress says


@torch.no_grad()
def compare(
    network: Network,
    models: Sequence[Weights],
    passages: Sequence[Passage],
    progress: Progress = no_progress,
) -> list[list[Scores]]:
    """models: the first is what the others are compared with. progress: see `Progress`.

    Return, for each model, the scores of each passage. Raises ThriftbitError for want of memory.
    """
    return in_batches(lambda tokens: _compared(network, models, passages, tokens, progress), "comparing models")


def _compared(
    network: Network,
    models: Sequence[Weights],
    passages: Sequence[Passage],
    batch_tokens: int,
    progress: Progress,
) -> list[list[Scores]]:
    batches = list(_batches(passages, batch_tokens))
    states = [_embedded(network, weights, batches, model) for model, weights in enumerate(models)]
    steps = network.layers * len(models)
    head_steps = max(1, steps // 4)  # the vocabulary's part of the work, roughly
    for index in range(network.layers):
        for model, weights in enumerate(models):
            with network.layer(index, weights) as layer:
                for number, hidden in enumerate(states[model]):
                    network.texts = (model, number)
                    states[model][number] = network.call(index, layer, hidden)
            progress(COMPARING, (index * len(models) + model + 1) / (steps + head_steps))
    scored = [torch.cat([s[b.rows, b.columns] for s, b in zip(own, batches, strict=True)]) for own in states]
    del states
    targets = torch.cat([batch.targets for batch in batches]).to(network.device)
    totals = _over_vocabulary(network, models, scored, targets, part_of(progress, steps / (steps + head_steps), 1))
    return [_by_passage(total, totals[0], batches, len(passages)) for total in totals]


def _embedded(network: Network, weights: Weights, batches: Sequence[_Batch], model: int) -> list[torch.Tensor]:
    hidden = []
    for number, batch in enumerate(batches):
        network.texts = (model, number)
        hidden.append(network.embed(weights, batch.tokens))
    return hidden


@dataclass(frozen=True)
class _Batch:
    """Passages of about the same length. tokens: int64 (passages, length), padded. rows, columns: of the scored
    positions, passage by passage; targets: the tokens that follow them. counts: scored positions of each passage."""

    passages: list[int]
    tokens: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    targets: torch.Tensor
    counts: list[int]


def _batches(passages: Sequence[Passage], batch_tokens: int) -> Iterator[_Batch]:
    order = sorted(range(len(passages)), key=lambda number: -len(passages[number].tokens))
    while order:
        length = -(-len(passages[order[0]].tokens) // LENGTH_STEP) * LENGTH_STEP
        count = max(1, batch_tokens // length)
        chosen, order = order[:count], order[count:]
        tokens = torch.zeros(len(chosen), length, dtype=torch.int64)
        for row, number in enumerate(chosen):
            tokens[row, : len(passages[number].tokens)] = torch.tensor(passages[number].tokens)
        counts = [len(passages[number].scored) for number in chosen]
        rows = torch.repeat_interleave(torch.arange(len(chosen)), torch.tensor(counts))
        columns = torch.tensor([position for number in chosen for position in passages[number].scored])
        yield _Batch(chosen, tokens, rows, columns, tokens[rows, columns + 1], counts)


class _Totals:
    """What is carried over the vocabulary for one model, float64 (positions,) each: the greatest logit so far and its
    token, Σ exp(logit − greatest), the logit of the token that follows; of the first model's p, Σ exp(logit of p −
    greatest of p) · (logit of p − logit), scaled as p's sum is."""

    def __init__(self, positions: int, device: torch.device) -> None:
        self.greatest = torch.full((positions,), -torch.inf, device=device)
        self.top = torch.zeros(positions, dtype=torch.int64, device=device)
        self.sum, self.target, self.cross = torch.zeros(3, positions, dtype=torch.float64, device=device)

    def add(
        self, rows: slice, logits: torch.Tensor, start: int, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return exp(logits − greatest), and what sums so far are to be scaled by."""
        greatest, top = logits.max(dim=1)
        greatest = torch.maximum(before := self.greatest[rows].clone(), greatest)
        self.top[rows] = torch.where(greatest > before, top + start, self.top[rows])
        self.greatest[rows] = greatest
        exponentials = (logits - greatest[:, None]).exp_()
        scale = (before - greatest).exp().double()
        self.sum[rows] = self.sum[rows] * scale + exponentials.sum(dim=1, dtype=torch.float64)
        inside = (targets >= start) & (targets < start + logits.shape[1])
        position = (targets - start).clamp(0, logits.shape[1] - 1)
        found = logits.gather(1, position[:, None])[:, 0].double()
        self.target[rows] = torch.where(inside, found, self.target[rows])
        return exponentials, scale

    @property
    def normaliser(self) -> torch.Tensor:
        return torch.add(self.greatest.double(), self.sum.log())


def _over_vocabulary(
    network: Network,
    models: Sequence[Weights],
    hidden: Sequence[torch.Tensor],
    targets: torch.Tensor,
    progress: Progress,
) -> list[_Totals]:
    positions, width = hidden[0].shape
    totals = [_Totals(positions, network.device) for _ in models]
    vocabulary = models[0].output.rows
    step = max(1, VOCABULARY_BYTES // (4 * width))
    for start in range(0, vocabulary, step):
        stop = min(start + step, vocabulary)
        heads = [network.head(weights, start, stop) for weights in models]
        for first in range(0, positions, POSITIONS):
            rows = slice(first, first + POSITIONS)
            reference = heads[0](hidden[0][rows])
            exponentials, scale = totals[0].add(rows, reference, start, targets[rows])
            for head, own, total in zip(heads[1:], hidden[1:], totals[1:], strict=True):
                logits = head(own[rows])
                total.add(rows, logits, start, targets[rows])
                cross = exponentials.mul(reference - logits).sum(dim=1, dtype=torch.float64)
                total.cross[rows] = total.cross[rows] * scale + cross
        progress(COMPARING, stop / vocabulary)
    return totals


def _by_passage(total: _Totals, first: _Totals, batches: Sequence[_Batch], passages: int) -> list[Scores]:
    log_probability = (total.target - total.normaliser).cpu().numpy()
    # Σ p·log(p/q) = Σ p·(logit of p − logit of q) − log Z of p + log Z of q, and no rounding may make it negative
    divergence = (total.cross / first.sum - first.normaliser + total.normaliser).clamp(min=0).cpu().numpy()
    same_top = (total.top == first.top).cpu().numpy()
    scores: list[Scores | None] = [None] * passages
    start = 0
    for batch in batches:
        for number, count in zip(batch.passages, batch.counts, strict=True):
            part = slice(start, start + count)
            scores[number] = Scores(log_probability[part], divergence[part], same_top[part])
            start += count
    return [score for score in scores if score is not None]

"""What files lose, judged side by side: KL divergence from the original on evaluation text, ratios with intervals.

Text that calibration has seen plays no part: the texts are those that `thriftbit measure` judges on. Windows are the
same for all, so ratios are of pairs; their intervals are a bootstrap over windows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from thriftbit import Model
from thriftbit.measurement.comparison import compare
from thriftbit.measurement.scores import Passage, Scores
from thriftbit.measurement.texts import DOMAINS, read_text, scored_positions, spread, windows
from thriftbit.network.configuration import configuration_of
from thriftbit.network.network import Network
from thriftbit.network.weights import Weights
from thriftbit.runtime.tokenizer import Tokenizer

CONTEXT_TOKENS = 512
BOOTSTRAPS = 2000


def cut_windows(tokenizer: Tokenizer, name_or_path: str, count: int) -> NDArray[np.int64]:
    """Return (count, CONTEXT_TOKENS) token ids, spread over the text."""
    tokens = tokenizer.tokenize([read_text(name_or_path).text], add_special=False)[0]
    cut = windows(tokens, CONTEXT_TOKENS, None)
    return cut[np.sort(spread(len(cut), count))]


@dataclass(frozen=True)
class Verdict:
    """Of one file, on the same windows as of every other. scores: of each window; domains: of which text each is."""

    scores: Sequence[Scores]
    domains: NDArray[np.str_]

    @cached_property
    def of_windows(self) -> NDArray[np.float64]:
        """Mean KL divergence in each window, nats."""
        return np.array([score.divergence.mean() for score in self.scores])

    @property
    def summary(self) -> dict[str, float]:
        divergence = np.concatenate([score.divergence for score in self.scores])
        return {
            "divergence": float(divergence.mean()),
            "divergence_999": float(np.quantile(divergence, 0.999)),
            "same_top": float(np.mean(np.concatenate([score.same_top for score in self.scores]))),
        }

    def only(self, domain: str) -> Verdict:
        chosen = np.flatnonzero(self.domains == domain)
        return Verdict([self.scores[number] for number in chosen], self.domains[chosen])

    def against(self, theirs: Verdict) -> dict[str, Any]:
        """Return the ratio of mean divergences, its 95% interval, and the same for each domain."""
        return self._ratio(theirs) | {
            "domains": {
                domain: self.only(domain).summary | self.only(domain)._ratio(theirs.only(domain)) for domain in DOMAINS
            }
        }

    def _ratio(self, theirs: Verdict) -> dict[str, Any]:
        chosen = np.random.default_rng(0).integers(0, len(self.scores), (BOOTSTRAPS, len(self.scores)))
        ratios = self.of_windows[chosen].mean(axis=1) / theirs.of_windows[chosen].mean(axis=1)
        return {
            "ratio": float(self.of_windows.mean() / theirs.of_windows.mean()),
            "interval": [float(edge) for edge in np.quantile(ratios, [0.025, 0.975])],
        }


class Judge:
    """windows: for each domain."""

    def __init__(self, model: Model, tokenizer: Tokenizer, windows: int) -> None:
        self._original = Weights(model)
        self._network = Network(configuration_of(model), torch.device("cpu"))
        cut = {domain: cut_windows(tokenizer, domain, windows) for domain in DOMAINS}
        self._passages = [Passage(w.tolist(), scored_positions(CONTEXT_TOKENS)) for each in cut.values() for w in each]
        self._domains = np.array([domain for domain, each in cut.items() for _ in each])

    def judge(self, files: Sequence[Weights]) -> list[Verdict]:
        scores = compare(self._network, [self._original, *files], self._passages)[1:]
        return [Verdict(own, self._domains) for own in scores]


def describe(theirs: Verdict, ours: Verdict, number: Callable[[float], str] = "{:.5f}".format) -> str:
    """Return a line that compares two files."""
    before, after, found = theirs.summary, ours.summary, ours.against(theirs)
    by_domain = ", ".join(f"{domain} {part['ratio']:.2f}" for domain, part in found["domains"].items())
    return (
        f"KL {number(before['divergence'])} → {number(after['divergence'])}, ratio {found['ratio']:.3f} "
        f"[{found['interval'][0]:.3f}, {found['interval'][1]:.3f}]; {by_domain}; "
        f"same top token {before['same_top']:.4f} → {after['same_top']:.4f}; "
        f"99.9% {before['divergence_999']:.3f} → {after['divergence_999']:.3f}"
    )

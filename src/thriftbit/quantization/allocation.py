"""From a budget to a plan: the formats with which a model loses least, and how certain that is.

The map (`model_map.py`) says what each tensor would lose in each format. A budget limits the file. Choosing one format
for each tensor within a limit is a multiple-choice knapsack (`knapsack.py`), solved with a bound on the distance from
the optimum. A budget of loss is the same problem turned around: the fewest bytes whose predicted loss, error bar
included, stays within it. Speed is a second limit: the seconds for one token are bytes divided by this machine's rate
for each format.

File sizes are exact: tensors with their padding, and the plan, which is stored in the file as text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from thriftbit.containers.gguf_values import alignment_of
from thriftbit.errors import ThriftbitError, UsageError
from thriftbit.quantization.allocation_choices import Choices
from thriftbit.quantization.importance import ImportanceMatrix
from thriftbit.quantization.knapsack import Choice, Limit, choose
from thriftbit.quantization.plan import Plan
from thriftbit.quantization.sensitivity import PLAIN, Loss, Sensitivities
from thriftbit.sizes import describe_bytes
from thriftbit.sources.model import Model

ATTEMPTS = 4  # at a file size that is known to the byte only when the plan is written down


class CannotFitError(ThriftbitError):
    """No plan stays within the budget."""

    exit_code = 3


@dataclass(frozen=True)
class Budget:
    """The limits of the result. None means no limit.

    size_bytes: of the file; or bits_per_weight: of the tensors, counted as llama.cpp does. max_loss: the share by which
    perplexity may rise, 0.01 for 1%, with the prediction's error bar included; the file is then as small as that
    allows. seconds_per_token: for reading the weights of one token, at `rates`: bytes per second of each format.
    Formats without a rate are not used.
    """

    size_bytes: int | None = None
    bits_per_weight: float | None = None
    max_loss: float | None = None
    seconds_per_token: float | None = None
    rates: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        limits = (self.size_bytes, self.bits_per_weight, self.max_loss, self.seconds_per_token)
        if all(limit is None for limit in limits):
            raise UsageError("a budget says at least one of: size, bits per weight, loss, speed")
        if any(limit is not None and not 0 < limit < math.inf for limit in limits):
            raise UsageError("every limit of a budget is a number above 0")
        if self.size_bytes is not None and self.bits_per_weight is not None:
            raise UsageError("a size and bits per weight are the same budget; give one of them")
        if self.seconds_per_token is not None and not self.rates:
            raise UsageError("a speed needs this computer's rates, which were not measured")

    @property
    def words(self) -> str:
        """Return the budget in words, such as "at most 4.00 GB, 8 ms a token"."""
        parts = [] if self.size_bytes is None else [describe_bytes(self.size_bytes)]
        parts += [] if self.bits_per_weight is None else [f"{self.bits_per_weight:.2f} bits per weight"]
        parts += [] if self.max_loss is None else [f"{100 * self.max_loss:g}% more perplexity"]
        parts += [] if self.seconds_per_token is None else [f"{1000 * self.seconds_per_token:.3g} ms a token"]
        return f"at most {', '.join(parts)}"


@dataclass(frozen=True)
class Allocation:
    """plan: what was asked for. size_bytes: of its file. loss: predicted. gap: the largest possible distance from the
    best plan, as a share of what was minimized: loss, or bytes where loss was the limit."""

    plan: Plan
    size_bytes: int
    loss: Loss
    gap: float

    def prediction_document(self) -> dict[str, Any]:
        """Return as JSON has it."""
        loss = self.loss
        return {
            "predicted": {
                "kl_divergence": loss.value,
                "low": loss.low,
                "high": loss.high,
                "perplexity_rise_at_most": loss.perplexity_rise,
                "gap": self.gap,
            }
        }

    def __repr__(self) -> str:
        return f"Allocation({self.plan!r}, predicted loss {self.loss.value:.3g} nats)"


def allocate(model: Model, sensitivities: Sensitivities, budget: Budget, effort: str = PLAIN) -> Plan:
    """Return the plan alone. See `find_plan`."""
    return find_plan(model, sensitivities, budget, effort).plan


def find_plan(
    model: Model,
    sensitivities: Sensitivities,
    budget: Budget,
    effort: str = PLAIN,
    importance: ImportanceMatrix | None = None,
) -> Allocation:
    """Return the best plan within the budget.

    effort: how the file will be rounded, PLAIN or CALIBRATED. importance: the importance data that the file will name.
    Raises ThriftbitError for sensitivities of another model, and CannotFitError where nothing stays within the budget.
    """
    sensitivities.check_belongs(model)
    rates = budget.rates if budget.seconds_per_token is not None else None
    choices = Choices.of(model, sensitivities, effort, rates, importance)
    allowed_bytes = budget.size_bytes
    for _ in range(ATTEMPTS):
        choice = _choose(choices, sensitivities, budget, effort, allowed_bytes)
        if choice is None:
            break
        plan = choices.plan(choice.picks, f"the map of the model: {budget.words}")
        size_bytes = choices.size_bytes(plan)
        if budget.size_bytes is None or allowed_bytes is None or size_bytes <= budget.size_bytes:
            return Allocation(plan, size_bytes, sensitivities.predict(plan.formats, effort), choice.gap)
        if budget.max_loss is not None:
            break
        # the header is padded, and the plan's words are part of it
        allowed_bytes -= max(size_bytes - budget.size_bytes, alignment_of(model.metadata))
    raise CannotFitError(_refusal(choices, sensitivities, budget, effort))


def _choose(
    choices: Choices, sensitivities: Sensitivities, budget: Budget, effort: str, allowed_bytes: int | None
) -> Choice | None:
    limits = []
    if budget.seconds_per_token is not None and choices.seconds is not None:
        limits.append(Limit(choices.seconds, budget.seconds_per_token))
    if budget.max_loss is not None:
        most = sensitivities.trust(effort).total_for(math.log1p(budget.max_loss))
        known = np.where(np.isfinite(choices.losses), choices.losses, 0.0)
        return choose(choices.costs_in_bytes, [Limit(known, most), *limits])
    if allowed_bytes is not None:
        limits.insert(0, Limit(choices.file_bytes, allowed_bytes - choices.fixed_file_bytes))
    if budget.bits_per_weight is not None:
        most = budget.bits_per_weight * choices.model.parameters / 8 - choices.fixed_weight_bytes
        limits.insert(0, Limit(choices.weight_bytes, most))
    return choose(choices.losses, limits)


def _refusal(choices: Choices, sensitivities: Sensitivities, budget: Budget, effort: str) -> str:
    model = choices.model
    if budget.max_loss is not None:
        picks = np.argmin(choices.losses, axis=1)
        best = choices.plan(picks, "")
        what = f"The closest to the original is {describe_bytes(choices.size_bytes(best))}"
    else:
        picks = np.argmin(choices.costs_in_bytes, axis=1)
        best = choices.plan(picks, "")
        what = f"The smallest is {describe_bytes(choices.size_bytes(best))}"
    if budget.seconds_per_token is not None and choices.seconds is not None:
        fastest = np.where(np.isfinite(choices.losses), choices.seconds, math.inf).min(axis=1).sum()
        what += f", the fastest takes {1000 * fastest:.3g} ms a token"
    loss = sensitivities.predict(best.formats, effort)
    return (
        f"{model.source}: no plan takes {budget.words}. {what}, {best.bits_per_weight(model):.2f} bits per weight, "
        f"and its divergence would be {loss.value:.2g} nats (predicted); allow more, or take a smaller model"
    )

"""How a model runs: its context, what the context is kept in, where the weights lie, and what drafts its tokens.

`advice/plans.py` chooses a plan, and the engine does what it says (`runtime/engine.py`). So what is recommended is what
runs. Words for people and options for the command line are made here, in one place, for the same reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from thriftbit.errors import UsageError
from thriftbit.machine.kv_cache import CACHE_TYPES
from thriftbit.sizes import counted

USUAL_CACHE = "F16"
NO_DRAFT, NGRAM_DRAFT, AHEAD_DRAFT = "none", "ngram", "mtp"
_AUTO = "auto"
_LAYERS = re.compile(r"(?:(gpu|experts)=)?(\d{1,4})")


@dataclass(frozen=True)
class RunningPlan:
    """context_tokens: room for all that is said. key_type, value_type: of CACHE_TYPES, in which the context's keys and
    values are kept. gpu_layers: on the GPU, the last ones, the output among them; None leaves it to llama.cpp, 0 is
    none. expert_layers: the first ones, whose experts stay in main memory though the layers are on the GPU. draft:
    "none", "ngram", "mtp" (the model's own layers for the tokens after the next) or the path of a smaller model."""

    context_tokens: int
    key_type: str = USUAL_CACHE
    value_type: str = USUAL_CACHE
    gpu_layers: int | None = None
    expert_layers: int = 0
    draft: str = NO_DRAFT

    @property
    def is_cache_usual(self) -> bool:
        return self.key_type == self.value_type == USUAL_CACHE

    @property
    def uses_gpu(self) -> bool:
        return bool(self.gpu_layers)

    def milder(self) -> Iterator[RunningPlan]:
        """Yield what to try if the engine cannot load this plan after all: without drafts, then with the placement that
        llama.cpp finds, then without the GPU."""
        plan = self
        if plan.draft != NO_DRAFT:
            plan = replace(plan, draft=NO_DRAFT)
            yield plan
        if plan.uses_gpu:
            yield replace(plan, gpu_layers=None, expert_layers=0)
            yield replace(plan, gpu_layers=0, expert_layers=0)

    def with_context(self, context_tokens: int) -> RunningPlan:
        return replace(self, context_tokens=context_tokens)

    def options(self) -> str:
        """Return the options of `thriftbit chat` and `serve` that ask for exactly this plan."""
        words = [f"--context {self.context_tokens}"]
        if not self.is_cache_usual:
            words.append(f"--cache-type-k {self.key_type.lower()} --cache-type-v {self.value_type.lower()}")
        if self.uses_gpu:
            words.append(f"--placement {f'experts={self.expert_layers}' if self.expert_layers else self.gpu_layers}")
        if self.draft != NO_DRAFT:
            words.append(f"--draft {self.draft}")
        return " ".join(words)

    def describe(self, layers: int = 0) -> str:
        """layers: of the model. Return one line for people: "a context of 8,192 tokens, kept in Q8_0, on the GPU"."""
        parts = [f"a context of {self.context_tokens:,} tokens{self._kept()}"]
        if self.expert_layers:
            parts.append(f"on the GPU, with the experts of {counted(self.expert_layers, 'layer')} in main memory")
        elif self.gpu_layers and layers and self.gpu_layers <= layers:
            parts.append(f"with {self.gpu_layers} of {layers + 1} layers on the GPU")
        elif self.uses_gpu:
            parts.append("on the GPU")
        if self.draft != NO_DRAFT:
            parts.append(describe_draft(self.draft))
        return ", ".join(parts)

    def _kept(self) -> str:
        if self.is_cache_usual:
            return ""
        if self.key_type == self.value_type:
            return f" kept in {self.key_type}"
        return f" with keys in {self.key_type} and values in {self.value_type}"


@dataclass(frozen=True)
class PlanWishes:
    """What somebody decides of a plan; None for what is left to the search. gpu_layers, expert_layers: as in
    RunningPlan. experts_in_main: some experts in main memory, as many as have to be."""

    key_type: str | None = None
    value_type: str | None = None
    gpu_layers: int | None = None
    expert_layers: int | None = None
    experts_in_main: bool = False
    all_on_gpu: bool = False
    draft: str | None = None

    @property
    def places(self) -> bool:
        """Whether anything is decided about where weights lie."""
        return self.gpu_layers is not None or self.expert_layers is not None or self.experts_in_main or self.all_on_gpu


NO_WISHES = PlanWishes()


def plan_wishes(
    key_type: str = _AUTO, value_type: str = _AUTO, placement: str = _AUTO, draft: str = _AUTO
) -> PlanWishes:
    """The words of the command line, "auto" for each that is left to the search. placement: "cpu", "gpu", "experts",
    or a number of layers on the GPU, or "experts=12". Raises UsageError for what none of these is."""
    wishes = PlanWishes(_cache_type("-k", key_type), _cache_type("-v", value_type), draft=_draft(draft))
    word = placement.strip().lower()
    if word == _AUTO:
        return wishes
    if word in ("cpu", "gpu", "experts"):
        return replace(
            wishes,
            gpu_layers=0 if word == "cpu" else None,
            all_on_gpu=word == "gpu",
            experts_in_main=word == "experts",
        )
    found = _LAYERS.fullmatch(word)
    if not found:
        raise UsageError(
            f"--placement {placement}: say auto, cpu, gpu, experts, a number of layers on the GPU, or experts=12 for "
            "those of 12 layers in main memory"
        )
    number = int(found[2])
    if found[1] == "experts":
        return replace(wishes, expert_layers=number)
    return replace(wishes, gpu_layers=number)


def describe_draft(draft: str) -> str:
    """Return what writes ahead, in words."""
    if draft == NGRAM_DRAFT:
        return "drafts from repetitions in the text"
    if draft == AHEAD_DRAFT:
        return "drafts by the model's own layers for the tokens after the next"
    return f"drafts by {Path(draft).name}" if draft != NO_DRAFT else "no drafts"


def _cache_type(option: str, word: str) -> str | None:
    if word.lower() == _AUTO:
        return None
    if word.upper() not in CACHE_TYPES:
        raise UsageError(f"--cache-type{option} {word}: say auto or one of {', '.join(CACHE_TYPES).lower()}")
    return word.upper()


def _draft(word: str) -> str | None:
    if word.lower() == _AUTO:
        return None
    return word.lower() if word.lower() in (NO_DRAFT, NGRAM_DRAFT, AHEAD_DRAFT) else word

"""What somebody wants of a model, in numbers: task, speed, loss and context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from thriftbit.errors import UsageError
from thriftbit.machine.running_plan import NO_WISHES, PlanWishes

DEFAULT_CONTEXT_TOKENS = 8192
READING_SPEED = 6.0  # tokens/s: about as fast as people read

# task -> (the share by which perplexity may rise, whether the pessimistic end of the interval has to stay below it, the
# domain of measurements that is nearest to the task)
_TASKS: Mapping[str, tuple[float, bool, str]] = {
    "chat": (0.03, False, "prose"),
    "code": (0.01, True, "code"),
    "math": (0.01, True, "math"),
    "science": (0.01, True, "prose"),
}
TASKS = tuple(_TASKS)
_OWN_TEXT = (0.01, True)


@dataclass(frozen=True)
class Wishes:
    """task: one of TASKS, or the path of a text file. min_speed: tokens/s. max_loss: the share by which perplexity may
    rise. context_tokens: None for the usual context. leave_free_bytes: memory for everything else; None for a default.
    running: what is decided of how it runs; the rest is searched. saves_energy: whether energy per token decides, as on
    battery."""

    task: str = "chat"
    min_speed: float | None = None
    max_loss: float | None = None
    context_tokens: int | None = None
    leave_free_bytes: int | None = None
    running: PlanWishes = NO_WISHES
    saves_energy: bool = False

    def __post_init__(self) -> None:
        if self.task not in _TASKS and not Path(self.task).is_file():
            raise UsageError(f"--task {self.task}: neither a file nor one of {', '.join(TASKS)}")

    @property
    def speed(self) -> float:
        return READING_SPEED if self.min_speed is None else self.min_speed

    @property
    def loss(self) -> float:
        return _TASKS.get(self.task, _OWN_TEXT)[0] if self.max_loss is None else self.max_loss

    @property
    def is_sensitive(self) -> bool:
        """Whether the pessimistic end of the estimated loss must meet the limit, not only the estimate."""
        return _TASKS.get(self.task, _OWN_TEXT)[1]

    @property
    def domain(self) -> str:
        """The domain of measurements about this task."""
        return _TASKS[self.task][2] if self.task in _TASKS else Path(self.task).name

    def context(self, model_tokens: int) -> int:
        """Return the context to plan for: at most the model's own context, if that is known."""
        return min(self.context_tokens or DEFAULT_CONTEXT_TOKENS, model_tokens or (1 << 31))

"""What an engine answers: a text with llama.cpp's own clock, and the memory that its process takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Generation:
    """What the model wrote, and llama.cpp's own clock: reading the prompt (prefill) and writing (decode) apart.

    prompt_tokens: of the prompt, those that were read and not remembered. prompt_seconds: until the first token of the
    answer was known. generation_seconds: from then until the last was. seconds: all of it, by our clock.
    Of an answer that was streamed also: thought, what a model that thinks first thought; ended, "stop" by itself,
    "length" for want of room, "stopped" by us; remembered_tokens, of the prompt, that were not read again.
    With a draft: drafted_tokens, that were guessed ahead; accepted_tokens, of these, that the model would have written.
    """

    text: str
    prompt_tokens: int
    prompt_seconds: float
    generated_tokens: int
    generation_seconds: float
    seconds: float
    thought: str = ""
    ended: str = ""
    remembered_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def prompt_tokens_per_second(self) -> float:
        return self.prompt_tokens / self.prompt_seconds if self.prompt_seconds else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Written; the first token belongs to the reading, so there are as many steps as tokens less one."""
        return (self.generated_tokens - 1) / self.generation_seconds if self.generation_seconds else 0.0


@dataclass(frozen=True)
class EngineMemory:
    """Of the engine's process, resident. peak_bytes: the most so far. before_loading_bytes: Python and llama.cpp
    without a model."""

    peak_bytes: int
    before_loading_bytes: int

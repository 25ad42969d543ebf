"""Plans for running, on the real engine: what a cache is kept in, what drafts, and what happens if it does not go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from thriftbit.demo import DEMO_MODEL
from thriftbit.errors import ThriftbitError, UsageError
from thriftbit.machine.running_plan import RunningPlan, plan_wishes
from thriftbit.quantization.plan import make_plan
from thriftbit.quantization.quantize import quantize
from thriftbit.runtime.engine import Engine
from thriftbit.runtime.generation import Generation
from thriftbit.sources.open_model import open_model

QUESTION = "Once upon a time a cat and a dog, a cat and a dog, a cat and"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The demo model in Q8_0 and, to write ahead for it, in Q4_K_M"""
    folder, model = tmp_path_factory.mktemp("plans"), open_model(DEMO_MODEL)
    first, second = (
        quantize(model, make_plan(model, level), folder / f"{level}.gguf").path for level in ("Q8_0", "Q4_K_M")
    )
    return first, second


def written(path: Path, plan: RunningPlan) -> Generation:
    with Engine(path, plan=plan, threads=1) as engine:
        return engine.generate(QUESTION, max_tokens=24, temperature=0, ignore_end=True)


def test_a_draft_changes_no_token_and_tells_what_was_accepted(files: tuple[Path, Path]) -> None:
    path, smaller = files
    plan = RunningPlan(256)
    alone = written(path, plan)
    helped = written(path, replace(plan, draft=str(smaller)))
    repeated = written(path, replace(plan, draft="ngram"))
    assert alone.text == helped.text == repeated.text and alone.drafted_tokens == 0
    assert 0 < helped.accepted_tokens <= helped.drafted_tokens


def test_a_cache_of_fewer_bits_writes_nearly_the_same(files: tuple[Path, Path]) -> None:
    usual, packed = (written(files[0], RunningPlan(256, kind, kind)) for kind in ("F16", "Q8_0"))
    assert packed.generated_tokens == usual.generated_tokens == 24
    assert packed.text.split()[0] == usual.text.split()[0]


def test_a_plan_that_does_not_load_falls_back_with_a_sentence(files: tuple[Path, Path], told: list[str]) -> None:
    """The demo model has no layers for the tokens after the next, so llama.cpp refuses to draft with them."""
    with Engine(files[0], plan=RunningPlan(256, draft="mtp"), threads=1) as engine:
        assert engine.plan.draft == "none"
        assert engine.generate("Hello", max_tokens=2).generated_tokens
    assert any("Trying a context of 256 tokens" in sentence for sentence in told)


def test_a_draft_that_cannot_help_is_refused_before_loading(
    files: tuple[Path, Path], tiny_llama: Path, tmp_path: Path
) -> None:
    model = open_model(tiny_llama)
    other = quantize(model, make_plan(model, "Q8_0"), tmp_path / "other.gguf").path
    for draft, words in ((other, "another vocabulary"), (tmp_path / "absent.gguf", "no such file")):
        with pytest.raises(ThriftbitError, match=words), Engine(files[0], plan=RunningPlan(256, draft=str(draft))):
            pass


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"key_type": "q9_9"}, "--cache-type-k q9_9: say auto or one of"),
        ({"placement": "everywhere"}, "--placement everywhere: say auto, cpu, gpu, experts"),
    ],
)
def test_words_that_mean_nothing(words: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan_wishes(**words)


def test_the_options_of_a_plan_ask_for_the_same_plan() -> None:
    for plan in (
        RunningPlan(8192, gpu_layers=0),
        RunningPlan(4096, "Q8_0", "Q4_0", gpu_layers=20),
        RunningPlan(512, "Q8_0", "Q8_0", gpu_layers=41, expert_layers=12, draft="ngram"),
    ):
        words = plan.options().split()
        given = dict(zip(words[::2], words[1::2], strict=True))
        wishes = plan_wishes(
            given.get("--cache-type-k", "auto"),
            given.get("--cache-type-v", "auto"),
            given.get("--placement", "auto"),
            given.get("--draft", "auto"),
        )
        usual = plan.is_cache_usual
        assert (wishes.key_type, wishes.value_type) == ((None, None) if usual else (plan.key_type, plan.value_type))
        assert wishes.expert_layers == (plan.expert_layers or None)
        assert int(given["--context"]) == plan.context_tokens

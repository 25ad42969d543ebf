"""Five models on five computers: 25 answers, as somebody who knows these models would give them.

They were reasoned by hand. Memory decides most: a system and a browser keep 1.5 GB, a GPU keeps 1 GiB. Then reading
speed, then the loss. In short:

- 70B needs 15 GB in one bit and 42 GB in Q4_K_M. Nothing of use fits into 16 GB. Where it only fits in two bits, or at
  one token per second, a smaller model is the better advice, and the answer says so.
- 35B-A3B reads 3B weights for a token, so it is fast from main memory. 16 GB hold it in three bits. With a GPU, experts
  stay in main memory, and attention goes on the GPU. 24 GB of GPU hold all of it. Of its 40 layers only 10 have a cache
  that grows, so F16 costs nothing.
- 27B is dense: in 16 GB it takes Q3_K_M and is slow. 8 GB of GPU take less than half of it. 12 GB take three quarters,
  which is just reading speed. 24 GB take all.
- 26B-A4B loses much with a quantized cache, and its windows keep the cache small: always F16.
- gpt-oss was made in MXFP4. Any other format costs more or loses what it was trained for.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from thriftbit.advice.choice import Recommendation, choose
from thriftbit.advice.fit import computer_for
from thriftbit.advice.losses import Evidence, evidence_for
from thriftbit.advice.options import Level, Option, all_options, levels_of
from thriftbit.advice.wishes import Wishes
from thriftbit.formats import FORMATS
from thriftbit.machine.detect import detect
from thriftbit.machine.facts import Gpu, known, unknown
from thriftbit.machine.profile import Bandwidth, FormatRate, Profile, Spread
from thriftbit.sources.remote import Outline, open_outline

CONFIGURATIONS = Path(__file__).parent / "configurations"
GIB, GIGA = 1 << 30, 10**9

# GiB of main memory, GB/s that it reads, GiB of the GPU, GB/s that that reads
COMPUTERS = {
    "8": (8, 25, 0, 0),
    "16": (16, 40, 0, 0),
    "16+8": (16, 45, 8, 250),
    "32+12": (32, 55, 12, 340),
    "64+24": (64, 65, 24, 900),
}

# level, place, cache; then what is better, cheaper and faster
ANSWERS = {
    ("llama-3.3-70b", "8"): None,
    ("llama-3.3-70b", "16"): None,
    ("llama-3.3-70b", "16+8"): ("IQ2_XXS", "partly", "F16", "IQ2_XS", "IQ1_M", None),
    ("llama-3.3-70b", "32+12"): ("Q4_K_S", "partly", "Q8_0", "Q4_K_M", "IQ4_XS", "IQ2_M"),
    ("llama-3.3-70b", "64+24"): ("IQ3_M", "partly", "F16", "Q3_K_L", "IQ3_XS", "IQ2_M"),
    ("qwen3.6-35b-a3b", "8"): None,
    ("qwen3.6-35b-a3b", "16"): ("IQ3_XS", "CPU", "F16", "IQ3_M", "IQ3_XXS", None),
    ("qwen3.6-35b-a3b", "16+8"): ("IQ4_XS", "experts", "F16", "Q4_K_M", "Q3_K_M", None),
    ("qwen3.6-35b-a3b", "32+12"): ("IQ4_XS", "experts", "F16", "Q4_K_M", "Q3_K_M", None),
    ("qwen3.6-35b-a3b", "64+24"): ("IQ4_XS", "GPU", "F16", "Q4_K_M", "Q3_K_M", None),
    ("qwen3.8-27b", "8"): None,
    ("qwen3.8-27b", "16"): ("Q3_K_M", "CPU", "F16", "IQ4_XS", "IQ3_M", None),
    ("qwen3.8-27b", "16+8"): ("Q3_K_L", "partly", "F16", "IQ4_XS", "Q3_K_M", "IQ2_M"),
    ("qwen3.8-27b", "32+12"): ("IQ4_XS", "partly", "F16", "Q4_K_M", "Q3_K_L", None),
    ("qwen3.8-27b", "64+24"): ("IQ4_XS", "GPU", "F16", "Q4_K_M", "Q3_K_L", None),
    ("gemma-4-26b-a4b", "8"): None,
    ("gemma-4-26b-a4b", "16"): ("IQ4_XS", "CPU", "F16", "Q4_K_M", "Q3_K_M", None),
    ("gemma-4-26b-a4b", "16+8"): ("IQ4_XS", "experts", "F16", "Q4_K_M", "Q3_K_M", None),
    ("gemma-4-26b-a4b", "32+12"): ("IQ4_XS", "experts", "F16", "Q4_K_M", "Q3_K_M", None),
    ("gemma-4-26b-a4b", "64+24"): ("IQ4_XS", "GPU", "F16", "Q4_K_M", "Q3_K_M", None),
    ("gpt-oss-20b", "8"): None,
    ("gpt-oss-20b", "16"): ("MXFP4", "CPU", "F16", None, None, None),
    ("gpt-oss-20b", "16+8"): ("MXFP4", "experts", "F16", None, None, None),
    ("gpt-oss-20b", "32+12"): ("MXFP4", "experts", "F16", None, None, None),
    ("gpt-oss-20b", "64+24"): ("MXFP4", "GPU", "F16", None, None, None),
}


def spread(rate_gb: float) -> Spread:
    return Spread(rate_gb * GIGA, 0.9 * rate_gb * GIGA, 1.1 * rate_gb * GIGA)


@cache
def profile(name: str) -> Profile:
    """A computer that was measured: formats on the GPU where there is one, and the main memory's bandwidth"""
    memory_gib, memory_rate, gpu_gib, gpu_rate = COMPUTERS[name]
    facts = detect()
    memory = replace(
        facts.memory,
        total_bytes=known(round(0.97 * memory_gib * GIB), "written here"),  # firmware keeps some
        limit_bytes=unknown("no container", "written here"),
    )
    card = Gpu(
        "NVIDIA", known("RTX", ""), known(gpu_gib * GIB, ""), known(gpu_gib * GIB, ""), known(False, ""),
        known("8.9", ""), known("", ""),
    )  # fmt: skip
    facts = replace(facts, memory=memory, gpus=(card,) if gpu_gib else (), engines=())
    rate = 0.8 * (gpu_rate or memory_rate)
    rates = tuple(FormatRate(each, 8, spread(rate), spread(1000)) for each in FORMATS)
    device = "RTX" if gpu_gib else "CPU"
    bandwidth = (Bandwidth(8, spread(memory_rate)),)
    return Profile(facts, bandwidth, rates, best_threads=8, measured_at="2026-11-01", device=device, busy_cores=0.0)


@cache
def described(model: str) -> tuple[Outline, list[Level], Evidence]:
    outline = open_outline(CONFIGURATIONS / model)
    return outline, levels_of(outline), evidence_for(outline.model, (), "prose")


def answer(model: str, computer: str, wishes: Wishes) -> Recommendation:
    outline, levels, evidence = described(model)
    options = all_options(outline, computer_for(profile(computer), False, wishes), wishes, evidence, levels)
    return choose(options, wishes)


def named(option: Option | None) -> str | None:
    return option and option.name


@pytest.mark.parametrize(("model", "computer"), ANSWERS)
def test_an_expert_would_say_the_same(model: str, computer: str) -> None:
    wanted, choice = ANSWERS[model, computer], answer(model, computer, Wishes())
    option = choice.option
    if option is None or wanted is None:
        assert option is wanted
        return
    plan, place = option.plan, option.place
    assert plan.key_type == plan.value_type and plan.context_tokens == 8192
    others = map(named, (choice.better, choice.cheaper, choice.faster))
    assert (option.name, place.where, plan.key_type, *others) == wanted
    memory_gib, _, gpu_gib, _ = COMPUTERS[computer]
    assert place.main_bytes < memory_gib * GIB and place.gpu_bytes < max(1, gpu_gib) * GIB
    if place.where == "experts":
        assert 0 < plan.expert_layers < place.layers and plan.gpu_layers == place.layers + 1


def test_where_a_smaller_model_is_the_better_advice_it_says_so() -> None:
    misses = " ".join(answer("llama-3.3-70b", "16+8", Wishes()).misses)
    assert "a smaller model with more bits may answer better" in misses and "slower than people read" in misses


@pytest.mark.parametrize(
    ("model", "computer", "cache"),
    [("llama-3.3-70b", "64+24", "Q8_0"), ("gemma-4-26b-a4b", "64+24", "F16")],
)
def test_a_long_context_is_kept_in_fewer_bits_where_that_loses_little(model: str, computer: str, cache: str) -> None:
    option = answer(model, computer, Wishes(context_tokens=131072)).option
    assert option and option.plan.key_type == option.plan.value_type == cache

"""What is recommended, on computers that are written down here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from thriftbit.advice.feedback import learn
from thriftbit.advice.fit import Advice, computer_for, fit
from thriftbit.advice.literature import literature_loss
from thriftbit.advice.options import measured_watts
from thriftbit.advice.ranking import rank_local
from thriftbit.advice.wishes import Wishes
from thriftbit.advice.wording import describe_loss, next_command, reason
from thriftbit.errors import UsageError
from thriftbit.machine.corrections import read_correction
from thriftbit.machine.detect import detect
from thriftbit.machine.facts import Gpu, known, unknown
from thriftbit.machine.identity import describe_machine
from thriftbit.machine.profile import Bandwidth, FormatRate, Profile, Spread, load_profile
from thriftbit.machine.room import room_in
from thriftbit.machine.running_plan import PlanWishes
from thriftbit.measurement.measurement import Measurement, Subject
from thriftbit.measurement.store import append, read, store_path
from thriftbit.quantization import model_map
from thriftbit.quantization.plan import make_plan
from thriftbit.quantization.presets import PRESETS, is_quantizable
from thriftbit.quantization.quantize import quantize
from thriftbit.quantization.sensitivity import Sensitivities
from thriftbit.sources.open_model import open_model

CONFIGURATIONS = Path(__file__).parent / "configurations"
GIGA = 10**9


def spread(value: float) -> Spread:
    return Spread(value, 0.9 * value, 1.1 * value)


def computer(path: Path, memory_gb: float, *, gpu_gb: float = 0, rate_gb: float = 40, shared: bool = False) -> Path:
    """A profile of a computer with so much memory, on which every format is read at one rate"""
    facts = detect()
    memory = replace(
        facts.memory,
        total_bytes=known(round(memory_gb * GIGA), "here"),
        available_bytes=known(round(memory_gb * GIGA), "here"),
    )
    card = Gpu(
        "NVIDIA", known("RTX", ""), known(round(gpu_gb * GIGA), ""), known(round(gpu_gb * GIGA), ""), known(shared, ""),
        known("8.9", ""), known("", ""),
    )  # fmt: skip
    facts = replace(facts, memory=memory, gpus=(card,) if gpu_gb else ())
    formats = ("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K", "MXFP4", "Q4_0", "IQ4_XS")
    rates = tuple(FormatRate(f, 8, spread(rate_gb * GIGA), spread(200 * GIGA)) for f in formats) if rate_gb else ()
    bandwidth = (Bandwidth(8, spread(rate_gb * GIGA)),) if rate_gb else ()
    profile = Profile(facts, bandwidth, rates, best_threads=8, measured_at="2026-11-01", device="CPU", busy_cores=0.0)
    file = path / "computer.json"
    file.write_text(profile.to_json())
    return file


@pytest.fixture
def empty_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("THRIFTBIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def advise(name: str, machine: Path, **wishes: object) -> Advice:
    return fit(CONFIGURATIONS / name, Wishes(**wishes), machine=machine)  # type: ignore[arg-type]


def chosen(advice: Advice) -> str:
    assert advice.choice.option is not None
    return advice.choice.option.name


# Published: Mistral AI, Meta, Qwen and Google on their pages; OpenAI in the model card of gpt-oss, where active
# parameters leave out the embedding (Qwen's 3.3e9 count it: 151,936 × 2,048). Sizes: the files of these models on the
# Hub.
@pytest.mark.parametrize(
    ("name", "parameters", "active", "kilobytes_a_token", "size_q4_gb"),
    [
        ("mistral-7b", 7.2417e9, 7.2417e9, 128, 4.37),
        ("llama-3-70b", 70.5537e9, 70.5537e9, 320, 42.52),
        ("qwen3-30b-a3b", 30.532e9, 3.04e9, 96, 18.56),
        ("gemma-3-27b", 27.009e9, 27.009e9, None, 16.55),
        ("gpt-oss-20b", 20.9148e9, 3.61e9, None, 12.11),
    ],
)
def test_published_models_are_read_right(
    name: str, parameters: float, active: float, kilobytes_a_token: int | None, size_q4_gb: float, tmp_path: Path,
    empty_store: Path,
) -> None:  # fmt: skip
    advice = advise(name, computer(tmp_path, 128), context_tokens=8192)
    wanted = "MXFP4_MOE" if name == "gpt-oss-20b" else "Q4_K_M"
    option = next(option for option in advice.options if option.name == wanted)
    assert advice.outline.model.parameters == pytest.approx(parameters, rel=1e-4)
    assert option.shape.active_parameters == pytest.approx(active, rel=0.01)
    assert option.size.value == pytest.approx(size_q4_gb * GIGA, rel=0.003)
    if kilobytes_a_token:
        assert option.memory.cache == kilobytes_a_token * 1024 * 8192


def test_every_precision_has_a_row_from_32_bits_down(tmp_path: Path, empty_store: Path) -> None:
    advice = advise("mistral-7b", computer(tmp_path, 64))
    for_models_made_so = {"MXFP4_MOE", "NVFP4", "TQ2_0", "TQ1_0", "Q2_0", "Q1_0"}
    assert {option.name for option in advice.options} == set(PRESETS) - for_models_made_so
    bits = [option.bits_per_weight for option in advice.options]
    assert bits == sorted(bits, reverse=True) and advice.options[0].name == "F32"


def test_a_7b_model_on_an_8_gb_laptop(tmp_path: Path, empty_store: Path) -> None:
    advice = advise("mistral-7b", computer(tmp_path, 8))
    assert chosen(advice) == "Q4_K_M"
    assert {option.name for option in advice.options if not option.fits} >= {"F32", "F16", "Q8_0"}
    sentence = reason(advice)
    assert "30% of the original's space" in sentence and "hard to notice" in sentence
    assert next_command(advice) == "thriftbit find 'mistral-7b Q4_K_M'"  # there are no weights in that folder


def test_a_sensitive_task_takes_more_bits(tmp_path: Path, empty_store: Path) -> None:
    machine = computer(tmp_path, 64)
    bits = {}
    for task in ("chat", "code"):
        option = advise("mistral-7b", machine, task=task).choice.option
        assert option is not None
        bits[task] = option.bits_per_weight
    assert bits["code"] > bits["chat"]


def test_an_accepted_loss_that_is_larger_takes_less(tmp_path: Path, empty_store: Path) -> None:
    machine = computer(tmp_path, 64)
    sizes = [advise("mistral-7b", machine, max_loss=loss).choice.option.size.value for loss in (0.001, 0.01, 0.05, 0.2)]  # type: ignore[union-attr]
    assert sizes == sorted(sizes, reverse=True)  # type: ignore[type-var]


def test_when_nothing_fits_it_says_what_would(tmp_path: Path, empty_store: Path) -> None:
    advice = advise("llama-3-70b", computer(tmp_path, 8))
    assert not advice.fits
    assert any("smaller model of the same family" in sentence for sentence in advice.rescue)
    assert any("GB of memory" in sentence for sentence in advice.rescue)


def test_a_cache_of_fewer_bits_is_taken_or_offered(tmp_path: Path, empty_store: Path) -> None:
    machine = computer(tmp_path, 9.5)
    option = advise("mistral-7b", machine, context_tokens=32768).choice.option
    assert option and (option.name, option.plan.key_type, option.plan.value_type) == ("Q5_K_S", "Q8_0", "Q8_0")
    assert option.cache_loss.value and option.loss.share.value and option.loss.share.value > option.cache_loss.value
    wishes = PlanWishes("F16", "F16")
    worse = advise("mistral-7b", machine, context_tokens=32768, running=wishes).choice.option
    assert worse and worse.bits_per_weight < option.bits_per_weight and worse.plan.is_cache_usual
    decided = advise("mistral-7b", computer(tmp_path, 5.5), context_tokens=32768, running=wishes)
    assert not decided.fits
    assert any("to the search" in sentence and "kept in Q" in sentence for sentence in decided.rescue)


def test_a_shorter_context_is_offered(tmp_path: Path, empty_store: Path) -> None:
    advice = advise("mistral-7b", computer(tmp_path, 3.5), context_tokens=32768)
    assert not advice.fits
    assert any("--context 16384" in sentence for sentence in advice.rescue)


def test_a_speed_that_was_asked_for_is_not_bent(tmp_path: Path, empty_store: Path) -> None:
    machine = computer(tmp_path, 64, rate_gb=10)
    assert not advise("gemma-3-27b", machine, min_speed=100.0).fits
    usual = advise("gemma-3-27b", machine)
    assert usual.fits and "less than 6 tokens/s" in usual.choice.misses[0]


def test_fewer_bits_are_faster_and_a_mixture_is_as_fast_as_what_it_uses(tmp_path: Path, empty_store: Path) -> None:
    machine = computer(tmp_path, 64)
    dense = {o.name: o.speed.value for o in advise("gemma-3-27b", machine).options if o.speed.value}
    mixture = {o.name: o.speed.value for o in advise("qwen3-30b-a3b", machine).options if o.speed.value}
    assert dense["Q4_K_M"] > dense["Q6_K"] > dense["Q8_0"]
    assert 5 < mixture["Q4_K_M"] / dense["Q4_K_M"] < 10


def test_without_a_measurement_speeds_are_unknown(tmp_path: Path, empty_store: Path) -> None:
    advice = advise("mistral-7b", computer(tmp_path, 16, rate_gb=0))
    assert not advice.is_measured and advice.fits
    assert all(option.speed.value is None for option in advice.options)
    assert not advice.is_undecided
    assert advise("mistral-7b", computer(tmp_path, 16, rate_gb=0), min_speed=10.0).is_undecided


@pytest.mark.parametrize(("gpu_gb", "where"), [(24, "GPU"), (4, "partly"), (1.05, "CPU")])
def test_where_it_runs(gpu_gb: float, where: str, tmp_path: Path, empty_store: Path) -> None:
    advice = advise("mistral-7b", computer(tmp_path, 16, gpu_gb=gpu_gb))
    option = next(option for option in advice.options if option.name == "Q4_K_M")
    assert option.place.where == where
    if where == "partly":
        assert 0 < option.place.gpu_layers < 33
    if where != "CPU":  # the processor was measured, and not the GPU
        assert option.speed.value and "the GPU was not measured" in option.speed.reason
        assert option.speed.high / option.speed.low > 4  # type: ignore[operator]


def test_memory_to_be_left_free_is_left_free(tmp_path: Path, empty_store: Path) -> None:
    machine = computer(tmp_path, 16)
    assert advise("mistral-7b", machine).room.main == 14_500_000_000
    assert advise("mistral-7b", machine, leave_free_bytes=4 * GIGA).room.main == 10_500_000_000


def test_in_a_container_nothing_else_needs_memory(tmp_path: Path) -> None:
    facts = load_profile(computer(tmp_path, 0.537)).facts
    contained = replace(facts, memory=replace(facts.memory, limit_bytes=known(537_000_000, "the container")))
    bare = replace(facts, memory=replace(facts.memory, limit_bytes=unknown("the container", "no limit")))
    assert room_in(contained, None, is_here=True).main == 537_000_000 - 26_850_000
    assert room_in(bare, None, is_here=True).main == 37_000_000
    assert room_in(contained, 100_000_000, is_here=True).main == 437_000_000


def test_a_model_that_was_made_small_is_left_as_it_is(tmp_path: Path, empty_store: Path) -> None:
    advice = advise("gpt-oss-20b", computer(tmp_path, 32))
    assert chosen(advice) == "MXFP4"
    assert "made in MXFP4" in reason(advice)
    assert "quantize" not in next_command(advice)
    others = [option for option in advice.options if option.name in ("Q4_K_M", "Q6_K")]
    assert all(option.loss.share.value is None for option in others)


def row(what: str, level: str, value: float, fingerprint: str, name: str = "tiny", **more: object) -> Measurement:
    original = Subject(name, "F32", fingerprint, 1, 32.0)
    subject = Subject(f"{name}-{level}.gguf", level, f"of {level}", 1, 4.0)
    return Measurement(what=what, value=value, subject=subject, against=original, **more)  # type: ignore[arg-type]


def test_a_loss_that_was_measured_of_this_model_comes_first(
    tiny_llama: Path, tmp_path: Path, empty_store: Path
) -> None:
    fingerprint = open_model(tiny_llama).fingerprint
    append(
        [
            row("perplexity_ratio", "Q4_K_M", 1.02, fingerprint, low=1.01, high=1.03, settings={"domain": "all"}),
            row("perplexity_ratio", "Q4_K_M", 1.04, fingerprint, low=1.03, high=1.05, settings={"domain": "code"}),
            row("perplexity_ratio", "Q5_K_M", 1.5, "another model", name="other-7B", settings={"domain": "all"}),
        ]
    )
    found = {}
    for task in ("chat", "code"):
        advice = fit(tiny_llama, Wishes(task=task), machine=computer(tmp_path, 8))
        found[task] = {option.name: option.loss for option in advice.options}
    assert found["chat"]["Q4_K_M"].provenance == "measured here"
    assert found["chat"]["Q4_K_M"].share.value == pytest.approx(0.02)
    assert found["code"]["Q4_K_M"].share.value == pytest.approx(0.04)
    assert found["chat"]["Q5_K_M"].provenance == "from the literature"
    assert found["chat"]["F32"].share.is_exact


def test_then_what_was_measured_of_its_family(tiny_llama: Path, tmp_path: Path, empty_store: Path) -> None:
    append([row("perplexity_ratio", "Q4_K_M", 1.02, "x", name="Mini2-7B", settings={"domain": "all"})])
    folder = tmp_path / "Mini2-135M-Instruct"
    folder.symlink_to(tiny_llama)
    advice = fit(folder, machine=computer(tmp_path, 8))
    loss = next(option.loss for option in advice.options if option.name == "Q4_K_M")
    assert loss.provenance == "measured on its family"
    assert loss.share.low and loss.share.high and loss.share.low < 0.02 < loss.share.high


@pytest.mark.parametrize(("memory_gb", "level"), [(25.2, "IQ2_XS"), (33.5, "IQ3_XS")])
def test_a_70b_model_fits_into_24_and_32_gb(memory_gb: float, level: str, tmp_path: Path, empty_store: Path) -> None:
    """24 and 32 GiB, of which the system reports a little less"""
    advice = advise("llama-3-70b", computer(tmp_path, memory_gb))
    assert chosen(advice) == level and advice.rescue == ()
    assert any("may lose more than" in miss for miss in advice.choice.misses)


def test_what_others_lost_has_to_be_accepted_whole(tmp_path: Path, empty_store: Path) -> None:
    advice = advise("mistral-7b", computer(tmp_path, 64), max_loss=0.03)
    option = advice.choice.option
    assert option and option.loss.share.high and option.loss.share.high <= 0.03
    smaller = [each for each in advice.options if each.bits_per_weight < option.bits_per_weight]
    assert all(each.loss.share.high is None or each.loss.share.high > 0.03 for each in smaller)
    assert describe_loss(option.loss).count("–") == 1


def test_at_most_eight_rows_and_none_that_another_beats(tmp_path: Path, empty_store: Path) -> None:
    for name in ("mistral-7b", "llama-3-70b"):
        for memory_gb in (4, 64):
            advice = advise(name, computer(tmp_path, memory_gb))
            shown = advice.shown
            assert 2 <= len(shown) <= 8
            assert advice.choice.option is None or advice.choice.option in shown
            for option in shown:
                beaten_by = [
                    other.name
                    for other in advice.options
                    if other.size.value < option.size.value  # type: ignore[operator]
                    and other.loss.share.value <= option.loss.share.value  # type: ignore[operator]
                    and (other.fits or not option.fits)
                    and other.speed.value is None
                ]
                assert beaten_by == [], option.name
    assert "Q4_1" not in [option.name for option in shown]


def test_levels_whose_files_are_the_same_are_one_row(tmp_path: Path, empty_store: Path) -> None:
    """SmolLM2-135M: rows of 576 divide into no block of 256"""
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
    }  # fmt: skip
    (tmp_path / "SmolLM2-135M").mkdir()
    (tmp_path / "SmolLM2-135M" / "config.json").write_text(json.dumps(config))
    advice = fit(tmp_path / "SmolLM2-135M", machine=computer(tmp_path, 8))
    sizes = [option.size.value for option in advice.options]
    assert len(set(sizes)) == len(sizes)
    assert any(option.same for option in advice.options)
    named = [name for option in advice.options for name in (option.name, *option.same)]
    assert len(set(named)) == len(named) and {"Q2_K", "Q3_K_S"} <= set(named)


def test_the_models_own_map_is_read_whatever_effort_it_was_made_with(
    tiny_llama: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model(tiny_llama)
    formats = ("Q4_K", "Q6_K", "Q5_K", "Q8_0")
    losses = {tensor.name: dict.fromkeys(formats, 0.001) for tensor in model.tensors if is_quantizable(tensor)}
    mapped = Sensitivities(model.fingerprint, losses, {}, {}, ())
    monkeypatch.setattr(model_map, "read_map", lambda model, effort: mapped if effort == "calibrated" else None)
    advice = fit(tiny_llama)
    found = {option.name: option.loss.provenance for option in advice.options}
    assert found["Q4_K_M"] == "predicted"
    assert found["Q3_K_M"] == "from the literature"  # the map does not know its formats


def test_small_models_may_lose_more_than_published_ones() -> None:
    small, large = literature_loss("Q4_K_M", 0.135e9), literature_loss("Q4_K_M", 7e9)
    assert small and large and small.high and large.high and small.high > large.high


def test_a_file_is_taken_as_it_is(tiny_llama: Path, tmp_path: Path, empty_store: Path) -> None:
    model = open_model(tiny_llama)
    path = quantize(model, make_plan(model, "Q4_K_M"), tmp_path / "tiny.gguf").path
    advice = fit(path, machine=computer(tmp_path, 8))
    (option,) = advice.options
    assert option.name == "Q4_K_M" and option.size.value == path.stat().st_size and option.size.is_exact
    assert next_command(advice).startswith("thriftbit chat ")


def test_files_on_the_disk_are_ranked(tiny_llama: Path, tmp_path: Path, empty_store: Path) -> None:
    model = open_model(tiny_llama)
    paths = [quantize(model, make_plan(model, preset), tmp_path / f"{preset}.gguf").path for preset in ("Q2_K", "Q8_0")]
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    ranked = rank_local(Wishes(), machine=computer(tmp_path, 8), paths=[*paths, broken])
    assert [each.path.stem for each in ranked] == ["Q8_0", "Q2_K", "broken"]
    assert ranked[-1].option is None and ranked[-1].problem


def test_a_task_that_is_neither(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="chat, code, math, science"):
        Wishes(task=str(tmp_path / "absent.txt"))


def test_energy_is_known_where_a_counter_gave_it(tiny_llama: Path, empty_store: Path) -> None:
    machine = describe_machine()
    append(
        [
            row("decode_rate", "Q8_0", 20.0, "x", machine=machine, settings={"threads": 2}),
            row("energy_per_token", "Q8_0", 1.5, "x", machine=machine, settings={"threads": 2}),
        ]
    )
    rows = [row("decode_rate", "Q8_0", 20.0, "x"), row("energy_per_token", "Q8_0", 1.5, "x")]
    assert measured_watts(rows, machine) is None  # of another computer
    assert computer_for(Profile(detect()), True, Wishes(), read(store_path())[0]).watts == Spread(30.0, 30.0, 30.0)


def test_on_battery_the_least_work_is_chosen(tmp_path: Path, empty_store: Path) -> None:
    advice = advise("qwen3-30b-a3b", computer(tmp_path, 64), saves_energy=True)
    option = advice.choice.option
    assert option is not None
    work = sum(option.shape.bytes_per_token().values())
    accepted = [each for each in advice.options if each.loss.share.value is not None and each.loss.share.value <= 0.03]
    assert work == min(sum(each.shape.bytes_per_token().values()) for each in accepted)


def test_what_was_measured_corrects_what_is_predicted(tiny_llama: Path, tmp_path: Path, empty_store: Path) -> None:
    model = open_model(tiny_llama)
    path = quantize(model, make_plan(model, "Q8_0"), tmp_path / "tiny.gguf").path
    profile = load_profile(computer(tmp_path, 8))
    settings = {"prompt_tokens": 64, "generated_tokens": 16, "threads": 8, "device": "CPU"}
    subject = Subject(path.name, "Q8_0", "", 1, 8.5)
    measured = Measurement(what="decode_rate", value=1000.0, subject=subject, settings=settings)
    on_gpu = replace(measured, settings=settings | {"device": "RTX"})
    (run,) = learn([measured, on_gpu], [path, tmp_path / "absent.gguf"], profile)
    assert run.measured == 1000.0 and run.predicted > 0
    assert read_correction("decode_rate", profile).factor == pytest.approx((1000.0 / run.predicted) ** (1 / 3))
    assert learn([measured], [path], Profile(profile.facts)) == []

"""`thriftbit measure` as users run it, on the model in the box."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import RunThriftbit
from thriftbit import make_plan, open_model, quantize
from thriftbit.demo import DEMO_MODEL, open_demo_model
from thriftbit.measurement.measurement import Measurement
from thriftbit.measurement.store import read

DOMAINS = ("prose", "code", "math", "multilingual", "all")
ACCURACY = (
    *("perplexity_ratio", "kl_divergence_mean", "kl_divergence_median", "kl_divergence_99", "kl_divergence_99_9"),
    *("same_top_token", "token_probability_change_rms"),
)
QUICK = ("--only", "accuracy", "--task", "prose", "--context", "128", "--time", "10s")


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, model = tmp_path_factory.mktemp("levels"), open_demo_model()
    return {p: quantize(model, make_plan(model, p), folder / f"demo-{p}.gguf").path for p in ("Q4_K_M", "Q2_K")}


@pytest.fixture
def cache(tmp_path: Path) -> dict[str, str]:
    """Return the environment in which the user's cache is an empty folder."""
    return {"THRIFTBIT_CACHE": str(tmp_path / "cache")}


def test_everything_about_two_files_in_one_go(
    run_thriftbit: RunThriftbit, levels: dict[str, Path], cache: dict[str, str], tmp_path: Path
) -> None:
    files = list(levels.values())
    done = run_thriftbit(
        "measure", *files, "--against", DEMO_MODEL, "--time", "20s", "-o", "rows.jsonl", "--json", **cache
    )
    assert done.returncode == 0, done.stderr
    kept, problems = read(tmp_path / "cache" / "measurements.jsonl")
    assert not problems and kept == read(tmp_path / "rows.jsonl")[0]
    assert [Measurement.from_json(json.dumps(row)) for row in json.loads(done.stdout)["rows"]] == kept

    facts = {(row.what, row.subject.name, row.settings.get("domain", "")): row for row in kept}
    for file in files:
        for domain in DOMAINS:
            for what in ACCURACY:
                row = facts[what, file.name, domain]
                assert row.value is not None and row.against is not None and row.against.name == "demo_model"
            assert 1 < (facts["perplexity", file.name, domain].value or 0) < 10_000
        for what in (
            "file_size",
            "decode_rate",
            "decode_rate_ratio",
            "peak_memory",
            "task_accuracy",
            "answers_flipped",
        ):
            assert any(row.what == what and row.subject.name == file.name for row in kept), what
    small, large = (facts["kl_divergence_mean", levels[preset].name, "all"] for preset in ("Q2_K", "Q4_K_M"))
    assert small.low is not None and large.high is not None and small.low > large.high  # 2 bits lose more than 4
    assert all(
        row.command.startswith("thriftbit measure ") and row.machine and row.versions["thriftbit"] for row in kept
    )
    assert len([row for row in kept if row.what == "answer"]) == 3 * len(DEMO_ANSWERERS)

    report = run_thriftbit("report", **cache)
    assert report.returncode == 0 and "Q4_K_M" in report.stdout and (tmp_path / "report.html").exists()


DEMO_ANSWERERS = ("original", "Q4_K_M", "Q2_K")


def test_a_threshold_that_time_does_not_suffice_for(
    run_thriftbit: RunThriftbit, levels: dict[str, Path], cache: dict[str, str]
) -> None:
    options = ("--only", "accuracy", "--task", "prose", "--context", "128", "--time", "0.1s", "--max-loss", "1%")
    done = run_thriftbit("measure", levels["Q2_K"], "--against", DEMO_MODEL, *options, **cache)
    assert done.returncode == 4, done.stderr
    assert "Within 1.00%? Cannot tell yet." in done.stderr and "More time (--time)" in done.stderr


def test_on_ones_own_text_and_questions(
    run_thriftbit: RunThriftbit, levels: dict[str, Path], cache: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "work.txt").write_text("The committee met on Monday and agreed on the budget for the next year. " * 40)
    question = {"id": "1", "context": "Paris is the capital of", "choices": [" France", " the sea"], "answer": 0}
    (tmp_path / "mine.jsonl").write_text(json.dumps(question) + "\n" + json.dumps(question | {"id": "2"}) + "\n")
    options = ("--only", "accuracy", "--context", "128", "--task", "work.txt", "--task", "mine.jsonl", "--json")
    done = run_thriftbit("measure", levels["Q4_K_M"], *options, **cache)
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)["rows"]
    assert {row["settings"].get("domain") or row["settings"]["task"] for row in rows} == {"work.txt", "mine"}
    assert {row["what"] for row in rows} == {"perplexity", "task_accuracy"}  # there is nothing to compare with


class TestRefusals:
    def test_files_that_do_not_belong_together(
        self, run_thriftbit: RunThriftbit, levels: dict[str, Path], cache: dict[str, str], tiny_llama: Path
    ) -> None:
        done = run_thriftbit("measure", levels["Q4_K_M"], "--against", tiny_llama, *QUICK, **cache)
        assert done.returncode == 1 and "was not made from" in done.stderr and len(done.stderr.splitlines()) <= 2

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "empty"),
            (b"too short", "tokens"),
            ("Füße ".encode("latin-1") * 500, "UTF-8"),
            (b"\x00\x01\x02" * 500, "binary"),
        ],
    )
    def test_text_that_cannot_be_measured_on(
        self,
        run_thriftbit: RunThriftbit,
        levels: dict[str, Path],
        cache: dict[str, str],
        tmp_path: Path,
        content: bytes,
        words: str,
    ) -> None:
        (tmp_path / "text.txt").write_bytes(content)
        done = run_thriftbit("measure", levels["Q4_K_M"], "--only", "accuracy", "--task", "text.txt", **cache)
        assert done.returncode == 1 and "text.txt" in done.stderr and words in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) <= 2

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--max-loss", "1%"], "give --against"),
            (["--time", "soon"], "is not a time"),
            (["--max-loss", "little"], "is not a share"),
            (["--context", "100000", "--only", "accuracy"], "too long"),
            (["--task", "proose", "--only", "accuracy"], "proose"),
            (["--against", "missing"], "no model here is called 'missing'"),
        ],
    )
    def test_requests_without_sense(
        self,
        run_thriftbit: RunThriftbit,
        levels: dict[str, Path],
        cache: dict[str, str],
        arguments: list[str],
        words: str,
    ) -> None:
        done = run_thriftbit("measure", levels["Q4_K_M"], *arguments, **cache)
        assert done.returncode in (1, 2) and words in done.stderr, done.stderr

    def test_a_folder_is_no_quantized_file(self, run_thriftbit: RunThriftbit, cache: dict[str, str]) -> None:
        done = run_thriftbit("measure", DEMO_MODEL, "--against", DEMO_MODEL, **cache)
        assert done.returncode == 2 and "is not a GGUF file" in done.stderr

    def test_a_file_that_the_engine_cannot_run_leaves_the_others_rows(
        self, run_thriftbit: RunThriftbit, levels: dict[str, Path], cache: dict[str, str], tmp_path: Path
    ) -> None:
        model = open_model(levels["Q2_K"], allow_requantize=True)
        broken = tmp_path / "broken.gguf"
        broken.write_bytes(levels["Q2_K"].read_bytes().replace(b"tokenizer.ggml.model", b"tokenizer.ggml.mobel"))
        assert model.tensors
        options = ("--only", "speed", "--time", "5s", "--prompt-tokens", "40", "--answer-tokens", "9", "--json")
        done = run_thriftbit("measure", levels["Q4_K_M"], broken, *options, **cache)
        rows = json.loads(done.stdout)["rows"]
        decode = {row["subject"]["name"]: row for row in rows if row["what"] == "decode_rate"}
        assert decode[levels["Q4_K_M"].name]["value"] > 0
        settings = decode[levels["Q4_K_M"].name]["settings"]
        assert (settings["prompt_tokens"], settings["generated_tokens"]) == (40, 9)
        assert decode["broken.gguf"]["value"] is None and "broken.gguf" in decode["broken.gguf"]["note"]

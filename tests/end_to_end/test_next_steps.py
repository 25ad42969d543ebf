"""What commands say about going on, and that a dry run is dry."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import RunThriftbit


def test_quantize_ends_with_how_to_go_on(run_thriftbit: RunThriftbit, tiny_llama: Path, tmp_path: Path) -> None:
    name = 'it\'s a "model" v1.0.gguf'
    done = run_thriftbit("quantize", tiny_llama, "--to", "Q8_0", "-o", name)
    assert done.returncode == 0
    _, following = done.stdout.split("\nNext:\n")
    first, second = following.splitlines()[:2]
    assert first.startswith("  thriftbit chat 'it") and "thriftbit export 'it" in second and "--to ollama" in second
    assert "ollama create" not in done.stdout


def test_the_folder_of_the_output_is_made(run_thriftbit: RunThriftbit, tiny_llama: Path, tmp_path: Path) -> None:
    done = run_thriftbit("quantize", tiny_llama, "--to", "Q8_0", "-o", "new/sub/x.gguf")
    assert done.returncode == 0 and (tmp_path / "new" / "sub" / "x.gguf").is_file()
    dry = run_thriftbit("quantize", tiny_llama, "--to", "Q8_0", "-o", "other/x.gguf", "--dry-run")
    assert dry.returncode == 0 and not (tmp_path / "other").exists()
    (tmp_path / "file").write_text("")
    wrong = run_thriftbit("quantize", tiny_llama, "--to", "Q8_0", "-o", "file/x.gguf")
    assert wrong.returncode == 1 and wrong.stderr.startswith("error: ") and "Traceback" not in wrong.stderr


def test_a_failure_leaves_no_empty_folder(run_thriftbit: RunThriftbit, tiny_llama: Path, tmp_path: Path) -> None:
    wrong = run_thriftbit(
        *(
            "quantize",
            tiny_llama,
            "--to",
            "Q8_0",
            "-o",
            "new/x.gguf",
            "--calibrate-on",
            "absent.txt",
            "--effort",
            "tuned",
        )
    )
    assert wrong.returncode == 1 and not (tmp_path / "new").exists()


def test_a_dry_run_of_a_budget_computes_no_map(run_thriftbit: RunThriftbit, tiny_llama: Path, tmp_path: Path) -> None:
    cache = {"THRIFTBIT_CACHE": str(tmp_path / "cache")}
    dry = run_thriftbit("quantize", tiny_llama, "--bpw", "5", "--dry-run", **cache)
    assert dry.returncode == 0 and "Nothing was computed" in dry.stdout and "thriftbit map " in dry.stdout
    assert "calibrating on " in dry.stdout and not (tmp_path / "cache" / "calibration").exists()
    document = json.loads(run_thriftbit("quantize", tiny_llama, "--bpw", "5", "--dry-run", "--json", **cache).stdout)
    assert document["written"] is False and document["needs"].startswith("thriftbit map ")


def test_a_dry_run_says_what_calibration_takes(run_thriftbit: RunThriftbit, tiny_llama: Path, tmp_path: Path) -> None:
    cache = {"THRIFTBIT_CACHE": str(tmp_path / "cache")}
    dry = run_thriftbit("quantize", tiny_llama, "--to", "Q4_K_M", "--effort", "calibrated", "--dry-run", **cache)
    assert dry.returncode == 0 and "first calibrating on 20,480 tokens" in dry.stdout
    assert not (tmp_path / "cache" / "calibration").exists()


def test_export_without_a_program_says_which_there_are(run_thriftbit: RunThriftbit) -> None:
    wrong = run_thriftbit("export", "x.gguf")
    assert wrong.returncode == 2 and "--to ollama, --to lmstudio or --to llama.cpp" in wrong.stderr
    missing = run_thriftbit("completion")
    assert missing.returncode == 2 and "\\t" not in missing.stderr and "\t" not in missing.stderr


def test_no_line_ends_in_blanks(run_thriftbit: RunThriftbit, tiny_llama: Path) -> None:
    for arguments in (("fit", tiny_llama), ("inspect", tiny_llama, "--tensors"), ("explain", "Q4_K_M"), ("find",)):
        for line in run_thriftbit(*arguments).stdout.splitlines():
            assert line == line.rstrip(), (arguments, line)


def test_fit_says_where_the_context_is_less_than_asked(run_thriftbit: RunThriftbit, tiny_llama: Path) -> None:
    assert "you asked for 65,536 tokens" in run_thriftbit("fit", tiny_llama, "--context", "64k").stdout
    assert "you asked for" not in run_thriftbit("fit", tiny_llama, "--context", "256").stdout

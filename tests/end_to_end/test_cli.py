"""The command line, as users run it: in a process of its own."""

from __future__ import annotations

import json
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import RunThriftbit

COMMANDS = ("quantize", "inspect", "demo")


def error_line(result: subprocess.CompletedProcess[str]) -> str:
    """Return what stands on the error output: one line, beginning with "error:"."""
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    first, _, rest = result.stderr.partition("\n")
    assert first.startswith("error: ") and not rest
    return first


@pytest.mark.parametrize("arguments", [(), *((command,) for command in COMMANDS)])
def test_help_has_examples(run_thriftbit: RunThriftbit, arguments: tuple[str, ...]) -> None:
    result = run_thriftbit(*arguments, "--help")
    assert result.returncode == 0 and result.stderr == ""
    _, examples = result.stdout.split("Examples:\n")
    assert examples.lstrip().startswith(f"thriftbit {' '.join(arguments)}".rstrip())


def test_version(run_thriftbit: RunThriftbit) -> None:
    result = run_thriftbit("--version")
    assert result.stdout.startswith("thriftbit ") and result.returncode == 0


def test_quantize_writes_a_file_named_after_model_and_preset(
    run_thriftbit: RunThriftbit, tiny_llama: Path, tmp_path: Path
) -> None:
    result = run_thriftbit("quantize", tiny_llama, "--to", "q8_0", "--threads", "1")
    assert result.returncode == 0 and result.stderr == ""
    (file,) = tmp_path.iterdir()
    assert file.name == "tiny-llama-Q8_0.gguf"
    assert "Wrote tiny-llama-Q8_0.gguf" in result.stdout
    assert "llama-cli -m tiny-llama-Q8_0.gguf" in result.stdout


def test_quantize_json_is_one_document_that_tells_the_truth(
    run_thriftbit: RunThriftbit, tiny_llama: Path, tmp_path: Path
) -> None:
    result = run_thriftbit("quantize", tiny_llama, "--to", "Q8_0", "-o", "out.gguf", "--json")
    document = json.loads(result.stdout)
    assert document["written"] is True and document["output"] == "out.gguf"
    assert document["size_bytes"] == (tmp_path / "out.gguf").stat().st_size
    assert document["model_bytes"] == 4 * document["parameters"]
    assert document["bits_per_weight"] == pytest.approx(8.5, abs=0.05)


def test_dry_run_knows_the_size_and_writes_nothing(
    run_thriftbit: RunThriftbit, tiny_llama: Path, tmp_path: Path
) -> None:
    arguments = ("quantize", tiny_llama, "--to", "Q8_0")
    text = run_thriftbit(*arguments, "--dry-run")
    document = json.loads(run_thriftbit(*arguments, "--dry-run", "--json").stdout)
    assert list(tmp_path.iterdir()) == []
    written = json.loads(run_thriftbit(*arguments, "--json").stdout)
    assert document["size_bytes"] == written["size_bytes"] == (tmp_path / written["output"]).stat().st_size
    assert f"{document['size_bytes']:,} bytes exactly" in text.stdout
    assert sum(role["parameters"] for role in document["roles"]) == document["parameters"]
    for role in document["roles"]:
        assert role["role"] in text.stdout


def test_a_plan_from_a_dry_run_can_be_edited_and_used(
    run_thriftbit: RunThriftbit, tiny_llama: Path, tmp_path: Path
) -> None:
    document = json.loads(run_thriftbit("quantize", tiny_llama, "--to", "Q8_0", "--dry-run", "--json").stdout)
    plan = document["plan"]
    plan["tensors"]["output.weight"] = "F16"
    plan["preset"] = "custom"
    (tmp_path / "plan.json").write_text(json.dumps(document))
    result = run_thriftbit("quantize", tiny_llama, "--plan", "plan.json")
    assert result.returncode == 0, result.stderr
    inspection = json.loads(run_thriftbit("inspect", "tiny-llama-custom.gguf", "--json").stdout)
    assert {t["name"]: t["type"] for t in inspection["tensors"]} == plan["tensors"]


def test_a_plan_that_is_none_is_named(run_thriftbit: RunThriftbit, tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    (tmp_path / "model.gguf").write_bytes(b"GGUF\xff")
    for name, part in (("plan.json", "not one of ours"), ("model.gguf", "not text"), ("none.json", "does not exist")):
        result = run_thriftbit("quantize", tiny_llama, "--plan", name)
        missing = part == "does not exist"
        assert error_line(result).startswith(f"error: {name} " if missing else f"error: {name}: ")
        assert part in error_line(result)


def test_an_existing_file_is_kept_unless_forced(run_thriftbit: RunThriftbit, tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.gguf").write_text("precious")
    arguments = ("quantize", tiny_llama, "--to", "Q8_0", "-o", "precious.gguf")
    refused = run_thriftbit(*arguments)
    assert refused.returncode == 1 and "--force" in error_line(refused)
    assert (tmp_path / "precious.gguf").read_text() == "precious"
    assert run_thriftbit(*arguments, "--force").returncode == 0
    assert (tmp_path / "precious.gguf").read_bytes()[:4] == b"GGUF"


def test_without_a_preset_the_choices_are_explained(run_thriftbit: RunThriftbit, tiny_llama: Path) -> None:
    result = run_thriftbit("quantize", tiny_llama)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("error: say how small with --to PRESET")
    for preset in ("Q8_0", "Q4_K_M", "Q2_K", "IQ4_XS"):
        assert f"  {preset} " in result.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "part"),
    [
        (("quantize", "there-is-no-such-model", "--to", "Q8_0"), 1, "no model here is called 'there-is-no-such-model'"),
        (("quantize", ".", "--to", "Q8_0"), 1, "is empty"),
        (("quantize", ".", "--to", "Q9_0"), 2, "Q9_0"),
        (("quantize", ".", "--to", "Q8_0", "--plan", "plan.json"), 2, "--plan"),
        (("quantize", "owner/model", "--to", "Q8_0", "--offline"), 1, "owner/model"),
        (("quantize", ".", "--to", "Q8_0", "--imatrix", "none.gguf"), 1, "none.gguf"),
        (("inspect", "none.gguf"), 1, "none.gguf"),
    ],
)
def test_a_mistake_is_one_line(
    run_thriftbit: RunThriftbit, arguments: tuple[str, ...], exit_code: int, part: str
) -> None:
    result = run_thriftbit(*arguments)
    assert part in error_line(result)
    assert result.returncode == exit_code

    as_json = run_thriftbit(*arguments, "--json")
    error = json.loads(as_json.stdout)["error"]
    assert error["exit_code"] == as_json.returncode == exit_code
    assert part in error["message"] and part in as_json.stderr


def test_a_missing_folder_is_made_and_a_dry_run_makes_none(
    run_thriftbit: RunThriftbit, tiny_llama: Path, tmp_path: Path
) -> None:
    output = tmp_path / "new" / "inner" / "tiny.gguf"
    command = ("quantize", tiny_llama, "--to", "Q8_0", "-o", output)
    dry = run_thriftbit(*command, "--dry-run")
    assert dry.returncode == 0 and not output.parent.parent.exists(), dry.stderr
    written = run_thriftbit(*command)
    assert written.returncode == 0 and output.is_file(), written.stderr


def test_a_missing_folder_is_not_left_behind_by_an_error(
    run_thriftbit: RunThriftbit, tiny_llama: Path, tmp_path: Path
) -> None:
    output = tmp_path / "new" / "inner" / "tiny.gguf"
    options = ("--effort", "calibrated", "--save-imatrix", tmp_path / "nowhere" / "imatrix.gguf")
    result = run_thriftbit("quantize", tiny_llama, "--to", "Q8_0", "-o", output, *options)
    assert result.returncode == 1 and "there is no folder" in error_line(result)
    assert not output.parent.parent.exists()


def test_a_folder_that_cannot_be_made_is_told(run_thriftbit: RunThriftbit, tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("a file, and no folder")
    output = tmp_path / "notes.txt" / "tiny.gguf"
    result = run_thriftbit("quantize", tiny_llama, "--to", "Q8_0", "-o", output)
    assert result.returncode == 1 and "notes.txt: cannot be made" in error_line(result)


@pytest.mark.parametrize("arguments", [("unknown",), ("quantize",), ("quantize", ".", "--unknown")])
def test_wrong_usage_points_to_the_help(run_thriftbit: RunThriftbit, arguments: tuple[str, ...]) -> None:
    result = run_thriftbit(*arguments)
    assert result.returncode == 2 and result.stdout == ""
    error, hint = result.stderr.splitlines()
    assert error.startswith("error: ") and hint.startswith("Try: thriftbit ") and hint.endswith(" --help")


def test_inspect_shows_what_is_in_a_folder_and_in_a_file(run_thriftbit: RunThriftbit, tiny_llama: Path) -> None:
    folder = run_thriftbit("inspect", tiny_llama, "--tensors")
    assert folder.returncode == 0, folder.stderr
    for part in ("folder, llama", "32.00 bits per weight", "model.layers.2.mlp.down_proj.weight", "256 × 512"):
        assert part in folder.stdout
    assert run_thriftbit("quantize", tiny_llama, "--to", "Q8_0", "-o", "tiny.gguf").returncode == 0
    file = run_thriftbit("inspect", "tiny.gguf")
    for part in ("GGUF, llama, Q8_0", "general.architecture", "257 tokens", "Made by Thriftbit"):
        assert part in file.stdout
    assert "blk.2.ffn_down.weight" not in file.stdout
    assert "blk.2.ffn_down.weight" in run_thriftbit("inspect", "tiny.gguf", "--tensors").stdout


def test_names_from_strangers_are_shown_and_not_obeyed(
    run_thriftbit: RunThriftbit, tiny_llama: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "[red]model")
    (folder / "README.md").write_text('---\nmodel_name: "[bold]x[/bold] \\e[31m :smile:"\n---\n')
    result = run_thriftbit("inspect", folder, FORCE_COLOR="1")
    assert result.returncode == 0, result.stderr
    assert "[bold]x[/bold] \\x1b[31m :smile:" in result.stdout
    assert "\x1b[31m" not in result.stdout
    assert "tiny-llama" not in result.stdout and result.stderr == ""
    missing = run_thriftbit("inspect", "[red]\x1b[31m.gguf")
    assert "[red]\\x1b[31m.gguf" in error_line(missing)


@pytest.mark.parametrize("form", ["--tensors", "--json"])
def test_a_reader_that_has_seen_enough_is_no_reason_to_complain(
    tiny_llama: Path, thriftbit_environment: dict[str, str], form: str
) -> None:
    command = [sys.executable, "-P", "-m", "thriftbit", "inspect", str(tiny_llama), form]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=thriftbit_environment)
    assert process.stdout is not None
    process.stdout.close()
    assert process.communicate()[1] == b""
    assert process.returncode == 1


def test_ctrl_c_leaves_nothing_behind(tiny_llama: Path, tmp_path: Path, thriftbit_environment: dict[str, str]) -> None:
    model = large_model(tiny_llama, tmp_path / "large")
    command = [sys.executable, "-P", "-m", "thriftbit", "quantize", str(model), "--to", "IQ4_XS", "--threads", "1"]
    work = tmp_path / "work"
    work.mkdir()
    process = subprocess.Popen(
        command,
        cwd=work,
        env=thriftbit_environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=listen_to_ctrl_c,
    )
    deadline = time.monotonic() + 120
    while not any(file.stat().st_size > 1 << 20 for file in work.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert output == "" and errors.strip() == "error: interrupted"
    assert list(work.iterdir()) == []


def listen_to_ctrl_c() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so would its children; a user's command does not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def large_model(tiny_llama: Path, folder: Path) -> Path:
    """Return a model of 2 GB, all zeros and so without a byte on the disk, that takes seconds to encode."""
    shutil.copytree(tiny_llama, folder)
    config = json.loads((folder / "config.json").read_text())
    ffn, width = 1 << 19, config["hidden_size"]
    config |= {"intermediate_size": ffn, "num_hidden_layers": 1}
    (folder / "config.json").write_text(json.dumps(config))
    with (folder / "model.safetensors").open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    shapes = {
        name: [ffn if size == 512 else size for size in entry["shape"]]
        for name, entry in header.items()
        if name != "__metadata__" and "layers.1." not in name and "layers.2." not in name
    }
    offset, large = 0, {}
    for name, shape in shapes.items():
        size_bytes = 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        large[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size_bytes]}
        offset += size_bytes
    assert offset > 3 * 4 * ffn * width
    encoded = json.dumps(large).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        file.truncate(8 + len(encoded) + offset)
    return folder

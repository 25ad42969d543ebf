"""The Hub, which is a small HTTP server here: what it has, what it refuses, and what is done without it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from thriftbit.errors import UsageError
from thriftbit.library.finding import Finding, Findings, expected_quality, find
from thriftbit.machine.room import Room

from .disk import write_gguf
from .fake_hub import FakeHub, Repository

WEIGHTS = 8_190_735_360
BITS = {"Q2_K": 3.2, "Q4_K_M": 4.9, "Q6_K": 6.56, "Q8_0": 8.5, "BF16": 16.0}


def size(bits: float) -> int:
    return int(WEIGHTS * bits / 8)


@pytest.fixture
def full_hub(hub: FakeHub, home: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    room = Room(10_500_000_000, 0, "", False, "free now", 14_000_000_000)
    monkeypatch.setattr("thriftbit.library.finding.room_here", lambda: room)
    hub.repositories = {
        "unsloth/Qwen3-8B-GGUF": Repository(
            {f"Qwen3-8B-{level}.gguf": size(bits) for level, bits in BITS.items()}
            | {"Qwen3-8B-UD-Q4_K_XL.gguf": size(5.0), "mmproj-F16.gguf": 10**9, "imatrix.gguf": 10**6, "README.md": 9}
            | {f"big/Qwen3-8B-F32-0000{n}-of-00002.gguf": size(16) for n in (1, 2)},
            gguf={"total": WEIGHTS, "architecture": "qwen3"},
            downloads=900,
        ),
        "somebody/Qwen3-8B-GGUF": Repository(
            {"Qwen3-8B-Q8_0.gguf": size(3.0)}, gguf={"total": WEIGHTS}, downloads=1, gated="manual"
        ),
        "Qwen/Qwen3-8B": Repository({}, safetensors={"BF16": WEIGHTS}, downloads=10**6),
        "Qwen/Qwen3-8B-AWQ": Repository({}, safetensors={"I32": 10**9, "F16": 10**9}, downloads=10**5),
        "meta/Llama-8B": Repository({}, safetensors={"BF16": WEIGHTS}),
    }
    return hub


def named(findings: Findings) -> dict[str, Finding]:
    found = {finding.name.removeprefix("unsloth/Qwen3-8B-GGUF/"): finding for finding in findings.hub}
    assert len(found) == len(findings.hub)
    return found


def test_files_and_originals_are_found_by_words(full_hub: FakeHub) -> None:
    findings = find(["qwen3", "8b"])
    assert findings.notes == ()
    assert findings.hub_answered
    assert set(named(findings)) == {
        *(f"Qwen3-8B-{level}.gguf" for level in BITS),
        "Qwen3-8B-UD-Q4_K_XL.gguf",
        "big/Qwen3-8B-F32-00001-of-00002.gguf",
        "somebody/Qwen3-8B-GGUF/Qwen3-8B-Q8_0.gguf",
        "Qwen/Qwen3-8B",
        "Qwen/Qwen3-8B-AWQ",
    }
    assert not full_hub.served  # nothing is downloaded


def test_what_the_rows_say(full_hub: FakeHub) -> None:
    found = named(find(["qwen3 8b"]))
    usual = found["Qwen3-8B-Q4_K_M.gguf"]
    assert (usual.what, usual.known_by, usual.fits, usual.is_local) == ("Q4_K_M", "size and name", "yes", False)
    assert usual.bits_per_weight == pytest.approx(4.9)
    assert usual.command == "thriftbit chat unsloth/Qwen3-8B-GGUF:Qwen3-8B-Q4_K_M.gguf"
    assert found["Qwen3-8B-UD-Q4_K_XL.gguf"].what == "UD-Q4_K_XL"
    assert found["Qwen3-8B-Q8_0.gguf"].fits == "yes"
    split = found["big/Qwen3-8B-F32-00001-of-00002.gguf"]
    assert (split.what, split.size_bytes, split.fits) == ("F32", 2 * size(16), "no")
    assert split.command.endswith("Qwen3-8B-GGUF:big/Qwen3-8B-F32-00001-of-00002.gguf")
    original = found["Qwen/Qwen3-8B"]
    assert (original.what, original.is_original, original.known_by) == ("BF16, original", True, "header")
    assert original.command == "thriftbit quantize Qwen/Qwen3-8B --to Q4_K_M"
    packed = found["Qwen/Qwen3-8B-AWQ"]
    assert (packed.what, packed.fits, packed.parameters) == ("AWQ", "needs a GPU", 9 * 10**9)


def test_a_size_that_the_name_does_not_allow_is_shown(full_hub: FakeHub) -> None:
    liar = named(find(["qwen3 8b"]))["somebody/Qwen3-8B-GGUF/Qwen3-8B-Q8_0.gguf"]
    assert liar.warning == "called Q8_0, but its size says about 3.0 bits"
    assert liar.what == "about 3.0 bits"
    assert liar.gated


def test_the_best_comes_first_and_the_next_steps_fit(full_hub: FakeHub) -> None:
    findings = find(["qwen3 8b"])
    ours = [finding.what for finding in findings.hub if finding.name.startswith("unsloth")]
    assert ours == ["BF16", "F32", "Q8_0", "Q6_K", "UD-Q4_K_XL", "Q4_K_M", "Q2_K"]
    commands = [command for _, command in findings.next_steps]
    assert commands == [
        "thriftbit chat unsloth/Qwen3-8B-GGUF:Qwen3-8B-Q8_0.gguf",
        "thriftbit quantize Qwen/Qwen3-8B --to Q4_K_M",
    ]
    assert "8.70 GB" in findings.next_steps[0][0]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["qwen3", "q4_k_m"], {"Qwen3-8B-Q4_K_M.gguf"}),
        (["qwen3", "8b", "Q8_0"], {"Qwen3-8B-Q8_0.gguf", "somebody/Qwen3-8B-GGUF/Qwen3-8B-Q8_0.gguf"}),
        (["qwen3", "bf16"], {"Qwen3-8B-BF16.gguf", "Qwen/Qwen3-8B"}),
        (["qwen3", "awq"], {"Qwen/Qwen3-8B-AWQ"}),
    ],
)
def test_a_level_among_the_words_chooses_files(full_hub: FakeHub, words: list[str], expected: set[str]) -> None:
    """Repositories of GGUF files have no level in their names, and the Hub searches nothing else."""
    assert set(named(find(words))) == expected


def test_this_disk_comes_with_it(full_hub: FakeHub, home: Path) -> None:
    write_gguf(home / "work/Qwen3-8B-Q4_K_M.gguf")
    write_gguf(home / "work/gemma.gguf", layers=2)
    findings = find(["qwen3", "8b"])
    assert [finding.name for finding in findings.local] == ["Qwen3-8B-Q4_K_M.gguf"]
    assert findings.next_steps[0] == ("chat with the best model on this disk", "thriftbit chat Qwen3-8B-Q4_K_M.gguf")


@pytest.mark.parametrize("options", [{"local": True}, {"offline": True}])
def test_nobody_is_asked_who_should_not_be(full_hub: FakeHub, home: Path, options: dict[str, bool]) -> None:
    write_gguf(home / "work/Qwen3-8B-Q4_K_M.gguf")
    assert len(find(["qwen3"], **options).local) == 1
    assert len(find([]).local) == 1
    assert full_hub.asked == []


def test_offline_by_environment(full_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    findings = find(["qwen3"])
    assert findings.notes == ("HF_HUB_OFFLINE is set, so the Hub was not asked.",)
    assert not findings.hub_answered and full_hub.asked == []


def test_headers_are_read_by_ranges_when_asked_for(hub: FakeHub, home: Path) -> None:
    liar = write_gguf(home / "files/a-Q8_0.gguf", "Q4_K_M", layers=30)
    hub.repositories = {
        "x/liar-GGUF": Repository({"a-Q8_0.gguf": liar}, gguf={"total": 10**8}),
        "x/liar-gated-GGUF": Repository({"b-Q8_0.gguf": liar}, gguf={"total": 10**8}, gated="auto"),
    }
    findings = find(["liar"], look=True)
    read, gated = sorted(findings.hub, key=lambda finding: finding.gated)
    assert (read.what, read.known_by, read.warning) == ("Q4_K_M", "header", "called Q8_0, but is Q4_K_M")
    assert read.needed_is_counted
    assert gated.problem is not None and "log in with `hf auth login`" in gated.problem
    assert gated.what == "Q8_0"
    assert sum(count for _, count in hub.served) < liar.stat().st_size / 10


@pytest.mark.parametrize("options", [{"local": True}, {"offline": True}])
def test_looking_where_nobody_is_asked_makes_no_sense(home: Path, options: dict[str, bool]) -> None:
    with pytest.raises(UsageError, match="--look"):
        find(["x"], look=True, **options)


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        ((429, {"Retry-After": "77"}), "Try again in 77 seconds, or log in: hf auth login"),
        ((429, {}), "Try again in a few minutes"),
        ((401, {}), "log in with `hf auth login`"),
        ((403, {}), "log in with `hf auth login`"),
        ((500, {}), "The Hub refused (500). Try again later."),
        ((418, {}), "The Hub refused (418). Try again later."),
    ],
)
def test_a_refusal_is_a_sentence_and_this_disk_is_shown(
    full_hub: FakeHub, home: Path, refusal: tuple[int, dict[str, str]], reason: str
) -> None:
    write_gguf(home / "work/Qwen3-8B-Q4_K_M.gguf")
    full_hub.refusal = refusal
    findings = find(["qwen3"])
    (note,) = findings.notes
    assert reason in note and "\n" not in note
    assert len(findings.local) == 1 and not findings.hub and not findings.hub_answered


def test_a_repository_that_fails_leaves_the_others(full_hub: FakeHub) -> None:
    full_hub.broken = ("unsloth/Qwen3-8B-GGUF",)
    findings = find(["qwen3"])
    assert findings.notes == ("unsloth/Qwen3-8B-GGUF: The Hub refused (500). Try again later.",)
    assert {finding.name for finding in findings.hub} >= {"Qwen/Qwen3-8B", "somebody/Qwen3-8B-GGUF/Qwen3-8B-Q8_0.gguf"}


@pytest.mark.parametrize("garbage", [b"<html>log in to the hotel</html>", b'{"error": 1}', b"\xff\xfe"])
def test_something_that_is_not_the_hub(full_hub: FakeHub, garbage: bytes) -> None:
    full_hub.garbage = garbage
    (note,) = find(["qwen3"]).notes
    assert "answered with something that is not the Hub's" in note


@pytest.mark.parametrize(
    "answer",
    [
        [7, None, "x", {}, {"id": 7}, {"id": "a\x1b[31m/b"}, {"id": "y" * 1000}],
        [{"id": "a/b", "safetensors": {"parameters": {"BF16": -1, "XX": 5, "F16": "many"}, "total": 0}}],
        [{"id": "a/b", "safetensors": {"parameters": {"BF16": 10**40}, "total": 10**40}, "downloads": "a lot"}],
    ],
)
def test_answers_that_make_no_sense_give_no_rows(full_hub: FakeHub, answer: list[object]) -> None:
    full_hub.garbage = json.dumps(answer).encode()
    full_hub.repositories["a/b"] = Repository({"x\x1b[31m.gguf": 5, "ok.gguf": -7})
    findings = find(["qwen3"])
    assert all(finding.name.isprintable() for finding in findings.hub)
    assert {finding.name for finding in findings.hub} <= {"a/b/ok.gguf"}


def test_a_hub_out_of_reach_is_told_at_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        (note,) = find(["qwen3"]).notes
    assert note.startswith("The Hub cannot be reached (")


def test_expected_quality_orders_by_size_and_bits() -> None:
    assert expected_quality(8 * 10**9, 16) > expected_quality(8 * 10**9, 4.9) > expected_quality(8 * 10**9, 2.1)
    assert expected_quality(8 * 10**9, 4.9) > expected_quality(4 * 10**9, 16)
    assert expected_quality(8 * 10**9, 32) == expected_quality(8 * 10**9, 16)
    assert expected_quality(None, 4) == expected_quality(7, None) == 0


def test_memory_decides_what_fits() -> None:
    here = Room(8, 0, "", False, "free now", 12)
    assert [here.fits(n) for n in (8, 9, 12, 13, None)] == ["yes", "tight", "tight", "no", "unknown"]
    assert (here.fits(1, "GPU"), here.fits(1, "Mac")) == ("needs a GPU", "needs a Mac")
    card = Room(8, 20, "card", False, "free now", 12, 24)
    assert [card.fits(n, "GPU") for n in (20, 21, 25)] == ["yes", "tight", "no"]
    assert [card.fits(n) for n in (28, 29, 36, 37)] == ["yes", "tight", "tight", "no"]  # layers are divided among both
    unified = Room(8, 6, "M4", True, "free now", 12, 10, is_mac=True)
    assert [unified.fits(n) for n in (8, 9, 13)] == ["yes", "tight", "no"] and unified.fits(1, "Mac") == "yes"
    assert Room(None, 0, "", False, "").fits(1) == "unknown"


def run(home: Path, hub: FakeHub, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Return `thriftbit ARGUMENTS` as users run it, with a mirror of the Hub."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-P", "-m", "thriftbit", *arguments],
        env=clean | {"HF_ENDPOINT": hub.url} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
    )


def test_the_command_with_a_mirror(full_hub: FakeHub, home: Path) -> None:
    write_gguf(home / "work/Qwen3-8B-Q8_0.gguf", "Q4_K_M")
    for columns in ("80", "120"):
        done = run(home, full_hub, "find", "qwen3", "8b", "--all", COLUMNS=columns)
        assert (done.returncode, done.stderr) == (0, "")
        assert max(map(len, done.stdout.partition("\n\n")[0].splitlines())) <= int(columns)
        assert "called Q8_0, but is Q4_K_M" in done.stdout
        assert "unsloth/Qwen3-8B-GGUF/Qwen3-8B-Q2_K.gguf" in done.stdout
        assert "thriftbit quantize Qwen/Qwen3-8B --to Q4_K_M" in done.stdout


def test_the_command_as_json(full_hub: FakeHub, home: Path) -> None:
    write_gguf(home / "work/Qwen3-8B-Q8_0.gguf", "Q4_K_M")
    document = json.loads(run(home, full_hub, "find", "qwen3", "--json").stdout)
    assert document["local"][0]["what"] == "Q4_K_M"
    assert document["local"][0]["path"] == str(home / "work/Qwen3-8B-Q8_0.gguf")
    assert {row["known_by"] for row in document["hub"]} == {"header", "size and name", "name"}
    assert document["next"][0]["command"].startswith("thriftbit chat ")


def test_exit_codes(full_hub: FakeHub, home: Path) -> None:
    assert run(home, full_hub, "find").returncode == 0
    nothing = run(home, full_hub, "find", "no", "such", "model")
    assert (nothing.returncode, nothing.stderr) == (3, "")
    assert "Nothing on this disk and on the Hub has all of these words in its name: no such model" in nothing.stdout
    assert run(home, full_hub, "find", "x", "--local").returncode == 3
    full_hub.refusal = (503, {})
    assert run(home, full_hub, "find", "x").returncode == 4
    assert run(home, full_hub, "find", "x", "--look", "--offline").returncode == 2


def test_explaining_on_the_command_line(full_hub: FakeHub, home: Path) -> None:
    for columns in ("80", "120"):
        done = run(home, full_hub, "explain", "q4_k_m", COLUMNS=columns)
        assert (done.returncode, done.stderr) == (0, "")
        assert max(map(len, done.stdout.splitlines()[1:])) <= int(columns)
    document = json.loads(run(home, full_hub, "explain", "Q8_0", "--json").stdout)
    assert (document["bits_per_weight"], document["bits_are_exact"]) == (8.5, True)
    unknown = run(home, full_hub, "explain", "Q4_X_M")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "Do you mean Q4_K_M" in unknown.stderr

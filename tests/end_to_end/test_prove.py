"""`thriftbit quantize --prove`: a wish is proved by a file that was made and measured, and kept for the next time."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import RunThriftbit


def test_a_wish_is_proved_once_and_known_the_next_time(
    run_thriftbit: RunThriftbit, tiny_llama: Path, tmp_path: Path
) -> None:
    cache = str(tmp_path / "cache")

    def prove(*wishes: str) -> tuple[int, dict]:
        result = run_thriftbit(
            "quantize", tiny_llama, *wishes, "--context", "128", "--prove", "--json", THRIFTBIT_CACHE=cache
        )
        return result.returncode, json.loads(result.stdout)

    code, proof = prove("--min-speed", "1", "--max-loss", "900%")
    assert (code, proof["verdict"], proof["files_made"]) == (0, "met", 1), proof
    (tried,) = proof["tried"]
    speed, loss = tried["tokens_per_second"], tried["loss"]
    assert speed["low"] <= speed["value"] <= speed["high"] and loss["low"] <= loss["value"] <= loss["high"] < 9
    assert [file.name for file in tmp_path.glob("*.gguf")] == [proof["output"]]
    assert (tmp_path / proof["output"]).stat().st_size == proof["size_bytes"]

    (tmp_path / proof["output"]).unlink()  # what was measured of it is kept
    code, refused = prove("--min-speed", "1000000", "--max-loss", "900%")
    known = tried | {"measured_before": True, "tokens_per_second": speed | {"wish": "missed"}}
    assert (code, refused["verdict"], refused["tried"], refused["files_made"]) == (3, "missed", [known], 1)
    assert refused["would_have_to_give"][0].startswith("With --min-speed ")


def test_what_does_not_go_with_a_proof_is_said_first(run_thriftbit: RunThriftbit, tmp_path: Path) -> None:
    result = run_thriftbit("quantize", "missing", "--prove", "--to", "Q8_0", "--min-speed", "3")
    assert result.returncode == 2 and "leave out --to" in result.stderr
    assert run_thriftbit("quantize", "missing", "--prove").returncode == 2

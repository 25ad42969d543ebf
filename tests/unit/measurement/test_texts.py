"""Texts in the box and of the user, and how they are cut into windows."""

from __future__ import annotations

import codecs
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from thriftbit.errors import ThriftbitError, UsageError
from thriftbit.measurement.texts import CORPORA, DOMAINS, read_text, scored_positions, spread, windows

WIKITEXT_2_TEST_SHA256 = "173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08"


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_domain_has_a_text_in_the_box(domain: str) -> None:
    text = read_text(domain)
    assert text.domain == domain
    assert text.text.strip() and text.origin
    assert len(text.text.encode()) > 90_000  # dozens of windows of 512 tokens


def test_the_prose_is_wikitext_as_everybody_measures_it() -> None:
    assert hashlib.sha256(read_text("prose").text.encode()).hexdigest() == WIKITEXT_2_TEST_SHA256


def test_the_box_lists_what_is_in_it_with_its_hash() -> None:
    readme = (CORPORA / "README.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `([\w./]+)` \|.*?`([0-9a-f]{16})` \|$", readme, re.MULTILINE))
    files = {path.relative_to(CORPORA).as_posix(): path for path in CORPORA.rglob("*.gz")}
    assert listed == {name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for name, path in files.items()}


def test_the_box_is_light() -> None:
    assert sum(path.stat().st_size for path in CORPORA.rglob("*") if path.is_file()) < 1_000_000


def test_a_file_is_its_own_domain(tmp_path: Path) -> None:
    path = tmp_path / "letters.txt"
    path.write_bytes("Größe\r\nв порядке\n".encode())
    text = read_text(str(path))
    assert (text.domain, text.text, text.origin) == ("letters.txt", "Größe\r\nв порядке\n", str(path))


def test_a_domain_wins_over_a_file_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prose").write_text("mine")
    assert read_text("prose").text != "mine"
    assert read_text("./prose").text == "mine"


@pytest.mark.parametrize(
    "packed",
    [
        "Ünïcödé 𝄞".encode(),
        codecs.BOM_UTF8 + "Ünïcödé 𝄞".encode(),
        codecs.BOM_UTF16_LE + "Ünïcödé 𝄞".encode("utf-16-le"),
        codecs.BOM_UTF16_BE + "Ünïcödé 𝄞".encode("utf-16-be"),
    ],
)
def test_encodings_that_say_what_they_are(tmp_path: Path, packed: bytes) -> None:
    path = tmp_path / "text"
    path.write_bytes(packed)
    assert read_text(str(path)).text == "Ünïcödé 𝄞"


def test_a_long_file_is_the_same_however_it_falls_into_pieces(tmp_path: Path) -> None:
    written = "aé€𝄞" * 300_000  # characters of 1, 2, 3 and 4 bytes, so that pieces cut some of them
    path = tmp_path / "long"
    path.write_bytes(b"x" + written.encode())
    assert read_text(str(path)).text == "x" + written
    path.write_bytes(codecs.BOM_UTF16_BE + written.encode("utf-16-be"))
    assert read_text(str(path)).text == written


def test_a_limit_is_in_characters(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("é€𝄞" * 10, encoding="utf-8")
    assert read_text(str(path), limit_characters=4).text == "é€𝄞é"


def test_windows_do_not_overlap_and_drop_the_rest() -> None:
    cut = windows(range(11), 4, None)
    assert cut.dtype == np.int64
    assert cut.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_the_first_token_of_every_window_becomes_the_beginning_of_a_sequence() -> None:
    tokens = [1, *range(100, 111)]
    assert windows(tokens, 4, 1).tolist() == [[1, 100, 101, 102], [1, 104, 105, 106], [1, 108, 109, 110]]
    assert tokens == [1, *range(100, 111)]


def test_one_window_is_enough_and_less_is_not() -> None:
    assert windows([7] * 512, 512, None).shape == (1, 512)
    with pytest.raises(ThriftbitError, match=r"the text has 511 tokens, and one window takes 512"):
        windows([7] * 511, 512, None)
    with pytest.raises(ThriftbitError, match=r"0 tokens"):
        windows([], 512, None)


@pytest.mark.parametrize("context_tokens", [3, 4, 5, 511, 512, 2048])
def test_scored_are_the_predictions_of_the_second_half(context_tokens: int) -> None:
    positions = scored_positions(context_tokens)
    first = context_tokens // 2
    assert len(positions) == context_tokens - 1 - first  # `n_ctx - 1 - first` in perplexity.cpp
    assert (positions[0], positions[-1] + 1) == (first, context_tokens - 1)  # the last predicts the last token


@pytest.mark.parametrize("context_tokens", [-1, 0, 1, 2])
def test_a_window_has_something_to_predict(context_tokens: int) -> None:
    with pytest.raises(UsageError, match="nothing to predict"):
        windows(range(10), context_tokens, None)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 100, 1000, 4096])
def test_spreading_ends_with_everything_once(count: int) -> None:
    assert sorted(spread(count, count).tolist()) == list(range(count))
    assert spread(count, count + 5).tolist() == spread(count, count).tolist()


def test_a_longer_spread_extends_a_shorter_one() -> None:
    longest = spread(300, 300).tolist()
    for chosen in range(301):
        assert spread(300, chosen).tolist() == longest[:chosen]


@pytest.mark.parametrize("count", [50, 301, 818])
def test_no_part_of_the_text_is_left_out(count: int) -> None:
    for chosen in range(2, count + 1):
        taken = np.sort(spread(count, chosen))
        gaps = np.diff(np.concatenate([[-1], taken, [count]]))
        assert gaps.max() <= 2.7 * count / chosen + 1, chosen


def test_spreading_nothing() -> None:
    assert spread(0, 5).tolist() == spread(5, 0).tolist() == []

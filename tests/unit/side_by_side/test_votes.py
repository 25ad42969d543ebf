"""Votes: kept, read among whatever else is in the file, added up, and put into a fair sentence."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from thriftbit.errors import ThriftbitError
from thriftbit.side_by_side import votes
from thriftbit.side_by_side.votes import Tally, Vote
from thriftbit.side_by_side.wording import halves, result

VOTE = Vote("a-1", "b-2", "model-BF16.gguf", "model-Q4_K_M.gguf", "original", 0.0, "2026-11-27T18:00:00+00:00")


def test_a_half_makes_the_interval_no_narrower() -> None:
    assert Tally(3.5, 9).interval == (Tally(3, 9).interval[0], Tally(4, 9).interval[1])
    for wrong in ((-1, 3), (4, 3), (0, 0)):
        with pytest.raises(ValueError):
            _ = Tally(*wrong).interval


def test_the_interval_covers_somebody_who_guesses_as_often_as_it_says() -> None:
    chance = random.Random(0)
    covered = 0
    for _ in range(400):
        low, high = Tally(sum(chance.random() < 0.5 for _ in range(20)), 20).interval
        covered += low <= 0.5 <= high
    assert covered / 400 >= 0.93  # 95% and the noise of 400 tries


def test_votes_come_back_among_whatever_else_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "votes.jsonl"
    assert votes.read(path) == ([], 0)
    votes.append(VOTE, path)
    good = {"kind": votes.KIND, "version": votes.VERSION, **asdict(VOTE)}
    bad = [
        *(b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'"x"', b"1e999", b"{}"),
        *(json.dumps(good | change).encode() for change in BAD_CHANGES),
        json.dumps({name: value for name, value in good.items() if name != "other"}).encode(),
    ]
    with path.open("ab") as file:
        file.write(b"\n".join(bad))  # the last without its end, as after a crash
    votes.append(replace(VOTE, picked="cannot tell", original_name="\ud800"), path)
    read, passed_over = votes.read(path)
    assert [vote.picked for vote in read] == ["original", "cannot tell"] and read[0] == VOTE
    assert passed_over == sum(bool(line) for line in bad)


BAD_CHANGES: list[dict[str, object]] = [
    {"kind": "another"},
    {"version": 2},
    {"version": [1]},
    {"picked": "both"},
    {"picked": ["original"]},
    {"temperature": True},
    {"temperature": "0"},
    {"original": 5},
    {"more": "x"},
]


def test_a_file_that_cannot_be_written_or_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ThriftbitError, match="votes cannot be kept"):
        votes.append(VOTE, tmp_path / "file" / "votes.jsonl")
    with pytest.raises(ThriftbitError, match="is not a regular file"):
        votes.read(tmp_path)


def test_votes_are_added_up_by_content_and_cannot_tell_counts_half() -> None:
    cast = [replace(VOTE, picked=picked) for picked in ("original", "other", "cannot tell", "original")]
    cast += [replace(VOTE, other="c-3"), replace(VOTE, original="b-2", other="a-1")]
    assert votes.tally(cast, "a-1", "b-2") == Tally(2.5, 4, 1)
    assert votes.tally(cast, "a-1", "nothing") == Tally()


@pytest.mark.parametrize(
    ("tally", "words"),
    [
        (Tally(), "No votes on BF16 and Q4_K_M yet."),
        (Tally(23, 40), "in 23 of 40 (57%, 95% interval 41–73%): that is no better than guessing."),
        (Tally(5, 5), "in 5 of 5 (100%, 95% interval 48–100%): too few votes to tell."),
        (Tally(6, 6), "in 6 of 6 (100%, 95% interval 54–100%): you can tell them apart."),
        (Tally(2, 20), "you can tell them apart, but take the other one for the original."),
        (Tally(3.5, 8, 1), "in 3½ of 8 (44%, 95% interval 9–84%), the one “can't tell” counted half: too few votes"),
        (Tally(4, 8, 2), ", each of the 2 “can't tell” counted half: too few votes"),
    ],
)
def test_the_sentence_says_no_more_than_the_votes_do(tally: Tally, words: str) -> None:
    assert words in result(tally, "BF16", "Q4_K_M")


def test_halves_are_written_as_people_write_them() -> None:
    assert [halves(right) for right in (0, 0.5, 1, 23.5)] == ["0", "½", "1", "23½"]

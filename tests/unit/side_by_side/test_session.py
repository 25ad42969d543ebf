"""A session without a page: which answers stand where in blind rounds, and what of them may be known."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from thriftbit.errors import UsageError
from thriftbit.machine.running_plan import RunningPlan
from thriftbit.measurement.measurement import Subject
from thriftbit.side_by_side.lineup import Contender, lineup
from thriftbit.side_by_side.rounds import Answer, Round, view
from thriftbit.side_by_side.session import Session
from thriftbit.side_by_side.writing import AnswerNumbers, Writers, Written

FILES = tuple(
    Contender(Path(f"m-{level}.gguf"), Subject(f"m-{level}.gguf", level, level, 1_000_000, bits), level)
    for level, bits in (("BF16", 16.0), ("Q4_K_M", 5.0), ("Q2_K", 3.0))
)
NUMBERS = AnswerNumbers(50, 12.5, 0.25, 2_000_000)


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """Return one that is never asked, so that its writers never start."""
    monkeypatch.setenv("THRIFTBIT_DATA", str(tmp_path))
    (tmp_path / "x.gguf").touch()
    writers = Writers([tmp_path / "x.gguf"] * 3, manner="one loaded at a time", plans=[RunningPlan(64)] * 3)
    return Session(FILES, writers, "in turn")


def round_of(texts: dict[int, str], *, blind: bool = False, ended: str = "stop") -> Round:
    """texts: of the models, in the order of their columns"""
    answers = [Answer(model) for model in texts]
    for answer in answers:
        answer.end(Written(texts[answer.model], ended, numbers=NUMBERS))
    return Round(1, "Why?", blind, 0.0, 7, answers)


def columns(it: Round) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = view(it, FILES)["columns"]
    return shown


def test_the_places_in_blind_rounds_are_random_and_balanced(session: Session) -> None:
    orders = [session._blind_order(2) for _ in range(4000)]
    assert {tuple(order) for order in orders} == {(0, 2), (2, 0)}
    first = [order[0] == 0 for order in orders]
    assert abs(sum(first) - 2000) < 160  # five standard deviations
    same_again = sum(a == b for a, b in pairwise(first))
    assert abs(same_again - 2000) < 160  # and the one before says nothing of the next


def test_a_blind_round_is_sent_without_anything_that_tells(session: Session) -> None:
    it = round_of({1: "Because.", 0: "Therefore."}, blind=True)
    sent = json.dumps(view(it, FILES))
    assert "Because." in sent and not any(word in sent for word in ("BF16", "Q4_K_M", "tokens/s", "MB"))
    it.answers[1].state = "writing"
    assert "Because." not in json.dumps(view(it, FILES))  # not before both have ended
    it.answers[1].state, it.picked = "ended", "other"
    assert "BF16" in json.dumps(view(it, FILES)) and "12.5 tokens/s" in json.dumps(view(it, FILES))


@pytest.mark.parametrize("ended", ["stopped", "failed"])
def test_a_blind_round_that_broke_off_is_open_and_void(ended: str, session: Session) -> None:
    it = round_of({1: "Be", 0: "Ther"}, blind=True, ended=ended)
    shown = view(it, FILES)
    assert shown["void"] and not shown["can_vote"] and "BF16" in json.dumps(shown)
    session.rounds.append(it)
    with pytest.raises(UsageError, match="nothing to vote on"):
        session.vote(1, 0)


def test_a_vote_counts_once_and_results_tell_sessions_apart(session: Session) -> None:
    session.rounds.append(round_of({1: "a b", 0: "a c"}, blind=True))
    with pytest.raises(UsageError, match="for the first answer"):
        session.vote(1, 2)
    session.vote(1, 0)
    with pytest.raises(UsageError, match="voted on already"):
        session.vote(1, 1)
    assert session.rounds[0].picked == "other" and session.results()[0].startswith(
        "You picked the original (BF16, not Q4_K_M) in 0 of 1 (0%"
    )
    later = Session(FILES, session._writers, "in turn")
    assert later.results() == []
    later.rounds.append(round_of({0: "a b", 1: "a c"}, blind=True))
    later.vote(1, None)
    now, before = later.results()
    assert "in ½ of 1" in now and before.startswith("With earlier sessions: ") and "in ½ of 2" in before


def test_what_differs_is_marked_against_the_original() -> None:
    original, other = columns(round_of({0: "The sky is blue today.", 1: "The sky is red today."}))
    assert other["pieces"] == [["The sky is ", False], ["red", True], [" today.", False]]
    assert original["pieces"] == [["The sky is ", False], ["blue", True], [" today.", False]]
    assert other["remark"] == "The first 3 words are the same."
    original, *others = columns(round_of({0: "a b", 1: "a b", 2: "c b"}))
    assert original["pieces"] == [["a b", False]]  # with two others, theirs are marked
    assert others[0]["pieces"] == [["a b", False]] and "the same" in others[0]["remark"]
    assert others[1]["pieces"] == [["c", True], [" b", False]]


def test_what_could_drive_a_page_is_shown_as_it_is() -> None:
    (column, _) = columns(round_of({0: "a\x1b[31m\u202eb\r\nc\td\x00", 1: ""}, ended="length"))
    text = "".join(piece for piece, _ in column["pieces"])
    assert text == "a\\x1b[31m\\u202eb\nc\td\\x00"


def test_files_that_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two files or more"):
        lineup([tmp_path / "a.gguf"])

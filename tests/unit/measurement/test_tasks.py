"""Multiple-choice questions: reading them, what of them is scored, and the rows of the answers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

import thriftbit
from thriftbit.errors import ThriftbitError
from thriftbit.measurement.measurement import CONFIDENCE_95, Measurement, Subject
from thriftbit.measurement.tasks import (
    LIMIT_LINE_BYTES,
    TASKS,
    Question,
    Task,
    accuracy_row,
    choice_tokens,
    choose,
    read_task,
    task_rows,
)

BOS = 0
ROW = {"id": "q-1", "context": "Question: What is wet?\nAnswer:", "choices": [" water", " sand"], "answer": 0}
ORIGINAL = Subject("model", "BF16", "f", 1000, 16.0)
QUANTIZED = Subject("model-Q4_K_M.gguf", "Q4_K_M", "g", 300, 4.8)
CIRCUMSTANCES: dict[str, Any] = {
    "machine": {"logical_cores": 2},
    "versions": {"thriftbit": "0"},
    "command": "thriftbit",
}


@pytest.fixture(scope="module")
def tokenize() -> Callable[[list[str]], list[list[int]]]:
    """Return the demo model's byte-level BPE, each text behind a token for its beginning."""
    path = Path(thriftbit.__file__).with_name("demo_model") / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    return lambda texts: [[BOS, *encoded.ids] for encoded in tokenizer.encode_batch(texts, add_special_tokens=False)]


def write(path: Path, *rows: Any) -> Path:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def changed(**changes: Any) -> dict[str, Any]:
    return ROW | changes


# reading


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_a_sample_in_the_box(name: str) -> None:
    task = read_task(name)
    assert (task.name, len(task.questions)) == (name, 100)
    answers = [question.answer for question in task.questions]
    assert max(answers.count(answer) for answer in set(answers)) < 70  # no constant answer does well


def test_a_file_of_questions(tmp_path: Path) -> None:
    second = changed(id="q-2", answer=1, subject="ignored", choices=[" naïve", " 価格", " x"])
    task = read_task(str(write(tmp_path / "mine.v2.jsonl", ROW, b"", second)))
    assert task.name == "mine.v2"
    assert task.questions == (
        Question("q-1", "Question: What is wet?\nAnswer:", (" water", " sand"), 0),
        Question("q-2", "Question: What is wet?\nAnswer:", (" naïve", " 価格", " x"), 1),
    )


def test_a_file_with_a_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "windows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROW).encode() + b"\r\n\r\n")
    assert len(read_task(str(path)).questions) == 1


def test_a_task_wins_over_a_file_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("piqa"), ROW)
    assert len(read_task("piqa").questions) == 100
    assert len(read_task("./piqa").questions) == 1


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (b"not JSON", "is not JSON"),
        (b'{"id": "cut", "context": "', "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"id": ' + b"1" * 5000 + b"}", "is not JSON"),
        (b"\xff\xfe", "is not UTF-8 at its byte 0"),
        (b'{"id": "' + b"x" * LIMIT_LINE_BYTES + b'"}', "is longer than a megabyte"),
        ([1, 2], "is no JSON object"),
        (None, "is no JSON object"),
        ({}, "id is missing"),
        (changed(id=7), "id is 7; it has to be text"),
        (changed(id=""), "id is empty"),
        (changed(id="q-0"), "id 'q-0' is that of line 1 already"),
        (changed(context=None), "context is None; it has to be text"),
        (changed(context="\ud83d"), "it has to be text"),
        ({key: ROW[key] for key in ("id", "context", "answer")}, "choices is no list of two texts or more"),
        (changed(choices=" water"), "choices is no list"),
        (changed(choices={" water": 1, " sand": 2}), "choices is no list"),
        (changed(choices=[" water"]), "choices is no list of two texts or more"),
        (changed(choices=[" water", 3]), "choice 1 is 3"),
        (changed(choices=["", " sand"]), "choice 0 is ''"),
        (changed(choices=[" water", " \t"]), "choice 1 is ' \\t'"),
        (changed(choices=[" water", " \udc00"]), "choice 1 is"),
        (changed(choices=[" water", " water"]), "two choices are the same"),
        (changed(answer=2), "answer is 2, but the 2 choices count from 0"),
        (changed(answer=-1), "answer is -1, but"),
        (changed(answer=10**400), "answer is 1000"),
        (changed(answer="0"), "answer is '0'; it has to be the index"),
        (changed(answer=0.0), "answer is 0.0; it has to be the index"),
        (changed(answer=True), "answer is True; it has to be the index"),
    ],
)
def test_a_malformed_line_is_named_with_what_is_wrong(tmp_path: Path, row: Any, expected: str) -> None:
    path = write(tmp_path / "questions.jsonl", changed(id="q-0"), row)
    with pytest.raises(ThriftbitError) as caught:
        read_task(str(path))
    assert str(caught.value).startswith(f"{path}, line 2: ") and expected in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 300 and "\n" not in str(caught.value)


def test_files_without_questions(tmp_path: Path) -> None:
    with pytest.raises(ThriftbitError, match="no such file; the tasks in the box are arc_challenge"):
        read_task(str(tmp_path / "none.jsonl"))
    with pytest.raises(ThriftbitError, match="is a folder"):
        read_task(str(tmp_path))
    with pytest.raises(ThriftbitError, match="has no questions"):
        read_task(str(write(tmp_path / "empty.jsonl", b"", b"  ")))
    with pytest.raises(ThriftbitError, match="cannot be read"):
        read_task("a\0b")


# what is scored


def test_what_is_scored_is_the_choice() -> None:
    question = Question("1", "The sky is", (" blue.", " green."), 0)
    assert question.parts() == [("The sky is", " blue."), ("The sky is", " green.")]


def test_where_sentences_differ_in_the_middle_it_is_the_ending_they_share() -> None:
    question = Question(
        "1", "", ("The cup did not fit, as the cup was big.", "The cup did not fit, as the bag was big."), 0
    )
    assert question.parts() == [
        ("The cup did not fit, as the cup", " was big."),
        ("The cup did not fit, as the bag", " was big."),
    ]
    names = Question("2", "", ("Ian thanked Bo.", "Dylan thanked Bo."), 0)  # the shared ending begins inside a word
    assert names.parts() == [("Ian", " thanked Bo."), ("Dylan", " thanked Bo.")]


@pytest.mark.parametrize(
    ("choices", "beginning"),
    [
        (("Paris is in France.", "Paris is in Spain."), "Paris is in"),  # the full stop they share says nothing
        (("A man kept the towel .", "A man kept the torch ."), "A man kept the"),
        (("Rain is wet.", "Sand is dry."), ""),
        ((" so it is", "but so it is"), ""),  # one is the ending of the other
        (("猫は黒い。", "犬は黒い。"), ""),  # no space shows where a word begins
    ],
)
def test_without_such_an_ending_all_is_scored_but_the_beginning_they_share(
    choices: tuple[str, str], beginning: str
) -> None:
    assert Question("1", "", choices, 0).parts() == [(beginning, choice[len(beginning) :]) for choice in choices]


def test_of_winogrande_it_is_always_what_follows_the_name() -> None:
    endings = 0
    for question in read_task("winogrande").questions:
        parts = question.parts()
        assert tuple(given + scored for given, scored in parts) == question.choices
        assert all(given and scored.startswith(" ") for given, scored in parts)
        endings += parts[0][1] == parts[1][1]
    assert endings >= 95  # the others end with the name


def test_a_choices_tokens_are_those_behind_the_context(tokenize: Callable[[list[str]], list[list[int]]]) -> None:
    question = Question("1", "The capital of France is", (" Paris.", " the river"), 0)
    (context, paris, river) = tokenize(["The capital of France is", " Paris.", " the river"])
    assert choice_tokens(tokenize, question) == [
        (context + paris[1:], len(context)),
        (context + river[1:], len(context)),
    ]


def test_spaces_that_end_the_context_count_for_the_choice(tokenize: Callable[[list[str]], list[list[int]]]) -> None:
    inside = choice_tokens(tokenize, Question("1", "The capital of France is ", ("Paris", "the river"), 0))
    outside = choice_tokens(tokenize, Question("1", "The capital of France is", (" Paris", " the river"), 0))
    assert inside == outside


def test_a_token_over_the_border_is_the_choices(tokenize: Callable[[list[str]], list[list[int]]]) -> None:
    question = Question("1", "He went to the house of repre", ("sentatives", " xylophone"), 0)
    (context,) = tokenize([question.context])
    (whole, first_scored), (_, apart) = choice_tokens(tokenize, question)
    assert whole[: len(context)] != context  # or this text no longer shows what it is to show
    assert first_scored < len(context) and whole[:first_scored] == context[:first_scored]
    assert apart == len(context)


def test_without_a_context_the_first_token_needs_one_for_the_beginning(
    tokenize: Callable[[list[str]], list[list[int]]],
) -> None:
    question = Question("1", "", ("Rain is wet.", "Sand is dry."), 0)
    assert [first for _, first in choice_tokens(tokenize, question)] == [1, 1]

    def without_bos(texts: list[str]) -> list[list[int]]:
        return [tokens[1:] for tokens in tokenize(texts)]

    assert choice_tokens(without_bos, question) == [(t[1:], 1) for t, _ in choice_tokens(tokenize, question)]


def test_a_choice_without_a_token_is_refused() -> None:
    question = Question("lonely", "", ("a", "b"), 0)
    with pytest.raises(ThriftbitError, match="question 'lonely': one of its choices has no token to score"):
        choice_tokens(lambda texts: [[ord(letter) for letter in text] for text in texts], question)


def test_the_answer_is_the_likeliest_by_the_byte() -> None:
    question = Question("1", "x", (" four", " sixteen letters"), 0)
    assert choose([-4.0, -14.0], question) == 1  # -1 and -14/15 a byte: the space in front does not count
    assert choose([-4.0, -15.0], question) == 0  # of equals the first
    accented = Question("2", "x", (" ééé", " eeee"), 0)
    assert choose([-5.0, -4.0], accented) == 0  # six bytes, not three


def test_the_length_of_a_sentence_is_not_held_against_its_ending() -> None:
    question = Question("1", "", ("Bo was tired.", "The exceedingly long name was tired."), 0)
    assert choose([-5.0, -5.1], question) == 0  # divided by whole sentences, the second would win
    assert choose([-5.1, -5.0], question) == 1


@pytest.mark.parametrize("broken", [math.nan, math.inf, 0.5])
def test_what_is_no_log_likelihood_is_no_answer(broken: float) -> None:
    with pytest.raises(ThriftbitError, match="question 'q': the model computes no probability"):
        choose([-1.0, broken], Question("q", "x", (" a", " b"), 0))


# rows


def test_rows_of_both_models() -> None:
    questions = tuple(Question(str(number), "c", (" a", " b", " c"), number % 3) for number in range(10))
    right = [question.answer for question in questions]
    original, quantized = right.copy(), right.copy()
    original[0] = 1  # gained
    quantized[1] = quantized[2] = 0  # lost
    original[3], quantized[3] = 1, 2  # wrong both times, in another way
    rows = task_rows(
        Task("mine", questions), original, quantized, subject=QUANTIZED, original=ORIGINAL, **CIRCUMSTANCES
    )
    accuracy, difference, flipped = rows
    assert [row.what for row in rows] == ["task_accuracy", "task_accuracy_difference", "answers_flipped"]
    for row in rows:
        assert (row.subject, row.against, row.interval) == (QUANTIZED, ORIGINAL, CONFIDENCE_95)
        assert row.settings == {"task": "mine", "questions": 10}
        assert row.machine == CIRCUMSTANCES["machine"] and row.command == "thriftbit"
        assert row.low is not None and row.high is not None and row.value is not None
        assert row.low < row.value < row.high
        assert Measurement.from_json(row.to_json()) == row
    assert (accuracy.value, difference.value, flipped.value) == (0.7, -0.1, 0.4)
    assert [(q["id"], q["answer"], q["original"], q["quantized"]) for q in flipped.detail["questions"]] == [
        ("0", 0, 1, 0),
        ("1", 1, 1, 0),
        ("2", 2, 2, 0),
        ("3", 0, 1, 2),
    ]
    assert flipped.detail["questions"][0] | {"id": ""} == {
        "id": "",
        "context": "c",
        "choices": [" a", " b", " c"],
        "answer": 0,
        "original": 1,
        "quantized": 0,
    }


def test_rows_without_an_original() -> None:
    (row,) = task_rows(Task("mine", (Question("1", "c", (" a", " b"), 1),)), None, [1], subject=QUANTIZED)
    assert (row.what, row.value, row.against) == ("task_accuracy", 1.0, None)


def test_the_originals_own_row() -> None:
    row = accuracy_row(Task("mine", (Question("1", "c", (" a", " b"), 1),)), [0], ORIGINAL, **CIRCUMSTANCES)
    assert (row.subject, row.against, row.value, row.low) == (ORIGINAL, None, 0.0, 0.0)
    assert row.high == pytest.approx(0.975)


def test_every_question_has_an_answer() -> None:
    with pytest.raises(ValueError, match="zip"):
        task_rows(Task("mine", (Question("1", "c", (" a", " b"), 1),)), [1], [1, 0], subject=QUANTIZED)

"""Multiple-choice questions: their form on disk, which part of them is scored, and the rows that come of it.

A model answers by likelihood: its answer is the choice with the greatest probability per byte after the context. This
is `acc_norm` of EleutherAI's lm-evaluation-harness (lm_eval/api/task.py), which divides by characters. Bytes (its
`acc_bytes`) give the same in English, and compare across alphabets. Left out: examples before the question (few-shot)
and chat templates. They change the level of both models, and hardly the difference that quantization makes.

The samples in the package have 100 questions each. That is enough to show which answers change, and too few to tell
models apart by one percent. Any file in the same form is read as well:

    {"id": "arc-7", "context": "Question: What boils at 100 °C?\\nAnswer:", "choices": [" water", " iron"], "answer": 0}

A choice includes the space that separates it from the context.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thriftbit.errors import ThriftbitError, shown
from thriftbit.measurement.exact_intervals import binomial_interval, exact_difference_interval
from thriftbit.measurement.measurement import CONFIDENCE_95, Measurement, Subject
from thriftbit.measurement.texts import CORPORA, opened

TASKS = ("arc_challenge", "arc_easy", "hellaswag", "mmlu", "piqa", "winogrande")
LIMIT_LINE_BYTES = 1 << 20


@dataclass(frozen=True)
class Question:
    """answer: index of the right choice."""

    id: str
    context: str
    choices: tuple[str, ...]
    answer: int

    def parts(self) -> list[tuple[str, str]]:
        """Return, for each choice, what the model is given and what of it is scored.

        As a rule the context and the choice. Without a context, choices are whole texts. Where they differ inside
        (WinoGrande: a sentence with one of two names in it), what is scored is the ending that they share, each time
        after its own beginning. The sentence as a whole would be decided by which name is the likelier word; the ending
        says which name makes sense (Trinh & Le 2018, arXiv 1806.02847, "partial scoring"; the harness does the same).
        The ending has to begin at a space and hold a word. Otherwise a beginning that they share becomes the context:
        divided by different lengths it would count differently, although it is the same.
        """
        if self.context:
            return [(self.context, choice) for choice in self.choices]
        first = self.choices[0]
        shared = _shared_length([choice[::-1] for choice in self.choices])
        ending = re.search(r"\s.*\w.*", first[len(first) - shared :], re.DOTALL)
        if ending and all(len(choice) > len(ending[0]) for choice in self.choices):
            return [(choice[: -len(ending[0])], ending[0]) for choice in self.choices]
        beginning = re.match(r".*(?=\s)", first[: _shared_length(self.choices)], re.DOTALL)
        length = beginning.end() if beginning else 0
        return [(choice[:length], choice[length:]) for choice in self.choices]


@dataclass(frozen=True)
class Task:
    name: str
    questions: tuple[Question, ...]


def read_task(name_or_path: str) -> Task:
    """name_or_path: one of TASKS, or a file of JSON Lines as shown above, in UTF-8; other keys are passed over. A file
    that is called like a task is given as "./piqa". The task is called like the file, without its suffix.

    Raises ThriftbitError with file and line for whatever is no question.
    """
    if name_or_path in TASKS:
        shipped = CORPORA / "tasks" / f"{name_or_path}.jsonl.gz"
        with gzip.open(shipped) as lines:
            return Task(name_or_path, tuple(_questions(lines, shipped)))
    path = Path(name_or_path)
    with opened(path, "a file of questions", f"the tasks in the box are {', '.join(TASKS)}") as file:
        questions = tuple(_questions(iter(lambda: file.readline(LIMIT_LINE_BYTES + 1), b""), path))
    if not questions:
        raise ThriftbitError(f"{path}: has no questions")
    return Task(path.stem, questions)


def _questions(lines: Iterable[bytes], path: Path) -> Iterator[Question]:
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        try:
            if len(line) > LIMIT_LINE_BYTES:
                raise ThriftbitError("is longer than a megabyte; a question is one line")
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            if not text.strip():
                continue
            question = _question(json.loads(text))
            if question.id in seen:
                raise ThriftbitError(f"id {shown(question.id)} is that of line {seen[question.id]} already")
        except UnicodeDecodeError as error:
            raise ThriftbitError(f"{path}, line {number}: is not UTF-8 at its byte {error.start}") from None
        except (ValueError, RecursionError):
            raise ThriftbitError(f"{path}, line {number}: is not JSON; every line is one question") from None
        except ThriftbitError as error:
            raise ThriftbitError(f"{path}, line {number}: {error}") from None
        seen[question.id] = number
        yield question


def _question(document: Any) -> Question:
    if not isinstance(document, dict):
        raise ThriftbitError("is no JSON object with id, context, choices and answer")
    identity, context = _text(document, "id"), _text(document, "context")
    choices, answer = document.get("choices"), document.get("answer")
    if not identity:
        raise ThriftbitError("id is empty")
    if not isinstance(choices, list) or len(choices) < 2:
        raise ThriftbitError("choices is no list of two texts or more")
    for position, choice in enumerate(choices):
        if not _is_text(choice) or not choice.strip():
            raise ThriftbitError(f"choice {position} is {shown(choice)}; it has to be text that says something")
    if len(set(choices)) < len(choices):
        raise ThriftbitError("two choices are the same")
    if isinstance(answer, bool) or not isinstance(answer, int):
        raise ThriftbitError(f"answer is {shown(answer)}; it has to be the index of the right choice")
    if not 0 <= answer < len(choices):
        raise ThriftbitError(f"answer is {shown(answer)}, but the {len(choices)} choices count from 0")
    return Question(identity, context, tuple(choices), answer)


def _text(document: dict[str, Any], key: str) -> str:
    if not _is_text(value := document.get(key)):
        raise ThriftbitError(f"{key} is {shown(value)}; it has to be text" if key in document else f"{key} is missing")
    return str(value)


def _is_text(value: Any) -> bool:
    """JSON can write halves of UTF-16's pairs, which are no characters and which no tokenizer takes."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def choice_tokens(tokenize: Callable[[list[str]], list[list[int]]], question: Question) -> list[tuple[list[int], int]]:
    """tokenize: texts to token ids, with the beginning-of-sequence token where the vocabulary adds one and without a
    token for the end. Return for each choice, the tokens of context and choice, and the index of the first one that is
    scored (which the position before it predicts).

    As in the harness (`TemplateLM._encode_pair`), both are split as one text, so that the choice's tokens are those it
    has there, and spaces that end the context count for the choice. Its tokens begin where those of the context alone
    end, or sooner: a token that reaches over the border is the choice's. Where a text has no context and the vocabulary
    no token for the beginning, nothing predicts the first token, and it is not scored.

    Raises ThriftbitError if nothing of a choice would be scored.
    """
    contexts = [given.rstrip() for given, _ in question.parts()]
    texts = [given + scored for given, scored in question.parts()]
    tokens = tokenize(contexts + texts)
    result = []
    for before, whole in zip(tokens[: len(contexts)], tokens[len(contexts) :], strict=True):
        first_scored = max(_shared_length([before, whole]), 1)
        if first_scored >= len(whole):
            raise ThriftbitError(f"question {shown(question.id)}: one of its choices has no token to score")
        result.append((whole, first_scored))
    return result


def _shared_length(sequences: Sequence[Sequence[Any]]) -> int:
    """Return the number of items at the beginning that all sequences share."""
    columns = enumerate(zip(*sequences, strict=False))
    return next((number for number, items in columns if len(set(items)) > 1), min(map(len, sequences)))


def choose(log_likelihoods: Sequence[float], question: Question) -> int:
    """log_likelihoods: for each choice, Σ log p of its scored tokens. Return the index of the model's answer: the
    greatest log-likelihood by UTF-8 byte of what was scored, not counting the spaces around it; of equals the first."""
    if not all(value <= 0 for value in log_likelihoods):
        raise ThriftbitError(f"question {shown(question.id)}: the model computes no probability for it")
    scores = [
        value / len(scored.strip().encode())
        for value, (_, scored) in zip(log_likelihoods, question.parts(), strict=True)
    ]
    return max(range(len(scores)), key=scores.__getitem__)


def accuracy_row(task: Task, choices: Sequence[int], subject: Subject, **circumstances: Any) -> Measurement:
    """choices: the model's answer to each question. circumstances: machine, versions, time, command, against. Return
    the row `task_accuracy`, with the exact interval of Clopper and Pearson."""
    right = sum(choice == question.answer for choice, question in zip(choices, task.questions, strict=True))
    return _row("task_accuracy", task, right, binomial_interval(right, len(task.questions)), subject, circumstances)


def task_rows(
    task: Task,
    original_choices: Sequence[int] | None,
    quantized_choices: Sequence[int],
    *,
    subject: Subject,
    original: Subject | None = None,
    **circumstances: Any,
) -> list[Measurement]:
    """What a quantized model's answers say, and if the original's are known, what they say beside those.

    task: the questions that were asked. original_choices, quantized_choices: the answer to each. circumstances:
    machine, versions, time, command. Return the row `task_accuracy`; with the original also `task_accuracy_difference`
    and `answers_flipped`, the questions of which are in its detail. (The original's own accuracy is `accuracy_row`'s.).
    """
    rows = [accuracy_row(task, quantized_choices, subject, against=original, **circumstances)]
    if original_choices is None:
        return rows
    circumstances = {**circumstances, "against": original}
    answers = list(zip(task.questions, original_choices, quantized_choices, strict=True))
    lost = sum(before == question.answer != after for question, before, after in answers)
    gained = sum(before != question.answer == after for question, before, after in answers)
    flipped = [
        {
            "id": question.id,
            "context": question.context,
            "choices": list(question.choices),
            "answer": question.answer,
            "original": before,
            "quantized": after,
        }
        for question, before, after in answers
        if before != after
    ]
    difference = exact_difference_interval(lost, gained, len(answers))
    changed = binomial_interval(len(flipped), len(answers))
    circumstances_of_flipped = {**circumstances, "detail": {"questions": flipped}}
    return [
        *rows,
        _row("task_accuracy_difference", task, gained - lost, difference, subject, circumstances),
        _row("answers_flipped", task, len(flipped), changed, subject, circumstances_of_flipped),
    ]


def _row(
    what: str, task: Task, count: int, interval: tuple[float, float], subject: Subject, circumstances: dict[str, Any]
) -> Measurement:
    questions = len(task.questions)
    return Measurement(
        what=what,
        value=count / questions,
        low=interval[0],
        high=interval[1],
        interval=CONFIDENCE_95,
        subject=subject,
        settings={"task": task.name, "questions": questions},
        **circumstances,
    )

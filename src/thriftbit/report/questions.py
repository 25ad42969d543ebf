"""The questions that files answer differently from the original, each shown once with everybody's answer.

A row lists only the questions whose answer changed. So a file that does not list a question agrees with the original,
if it was asked. Files that were asked another number of questions are left out of the comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from thriftbit.report.summary import ORIGINAL, FileSummary, Summary

MOST_QUESTIONS = 120  # of a task on the page; beyond that nobody reads, and the page grows heavy


@dataclass(frozen=True)
class MarkedChoice:
    """chosen_by: labels"""

    text: str
    right: bool
    chosen_by: tuple[str, ...]


@dataclass(frozen=True)
class FlippedQuestion:
    name: str
    context: str
    choices: tuple[MarkedChoice, ...]


def flipped_questions(summary: Summary, task: str, first: FileSummary | None) -> list[FlippedQuestion]:
    """first: the file whose changed answers lead the list. Return every question about which a file disagrees."""
    asked = {
        file.label: (row.settings.get("questions"), _questions(row.detail))
        for file in summary.files
        if (row := file.task(task, "answers_flipped"))
    }
    if first and first.label in asked:
        asked = {first.label: asked[first.label], **asked}
    documents = {name: document for _, flipped in asked.values() for name, document in flipped.items()}
    return [
        _question(
            name, document, {label: flipped for label, (_, flipped) in asked.items()}, _peers(name, asked), summary
        )
        for name, document in documents.items()
    ]


def _peers(name: str, asked: Mapping[str, tuple[Any, Mapping[str, Any]]]) -> set[str]:
    """Return the labels of the files that were certainly asked the question."""
    sizes = {size for size, flipped in asked.values() if name in flipped}
    return {label for label, (size, _) in asked.items() if size in sizes}


def _question(
    name: str,
    document: Mapping[str, Any],
    flipped: Mapping[str, Mapping[str, Mapping[str, Any]]],
    peers: set[str],
    summary: Summary,
) -> FlippedQuestion:
    chosen: dict[int, list[str]] = {document["original"]: [ORIGINAL]}
    for file in summary.files:
        if file.label in peers:
            choice = flipped[file.label].get(name, {}).get("quantized", document["original"])
            chosen.setdefault(choice, []).append(file.label)
    return FlippedQuestion(
        name=name,
        context=document["context"].strip(),
        choices=tuple(
            MarkedChoice(text.strip(), place == document["answer"], tuple(chosen.get(place, ())))
            for place, text in enumerate(document["choices"])
        ),
    )


def _questions(detail: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the complete questions by id. Rows from elsewhere may hold anything."""
    documents = detail.get("questions")
    if not isinstance(documents, list):
        return {}
    return {str(document["id"]): document for document in documents if _is_question(document)}


def _is_question(document: Any) -> bool:
    if not isinstance(document, dict) or "id" not in document:
        return False
    choices = document.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        return False
    places = [document.get(name) for name in ("answer", "original", "quantized")]
    return isinstance(document.get("context"), str) and all(
        isinstance(place, int) and 0 <= place < len(choices) for place in places
    )

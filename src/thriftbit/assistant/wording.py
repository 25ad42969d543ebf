"""The short text beside each structured answer: what an assistant may tell a person as it is.

Everything is in the document that the command printed; these are the sentences that a person needs of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from thriftbit.sizes import describe_bytes

Document = Mapping[str, Any]
Describe = Callable[[Document], str]

_MOST_FINDINGS = 8


def describe_computer(document: Document) -> str:
    from thriftbit.machine.meaning import sentences
    from thriftbit.machine.profile import Profile

    profile = Profile.from_json(json.dumps(document))
    known = "" if profile.measured_at else "How fast models run here was not measured yet."
    return _lines([*sentences(profile), *profile.facts.notes, known])


def describe_advice(document: Document) -> str:
    return _lines(_advice(document))


def _advice(document: Document) -> Iterator[str]:
    chosen = document["recommended"]
    yield f"{chosen}: {document['reason']}" if chosen else document["reason"]
    yield from (f"But {miss}." for miss in document["misses"] if chosen)
    yield from (f"The next {kind}: {document[kind]}" for kind in ("better", "cheaper") if document[kind])
    yield from document["would_fit"]
    if not document["measured"]:
        yield "Speeds are not known: this computer was not measured yet (`thriftbit doctor --measure`, a minute)."
    if document["next"]:
        yield f"Next: {document['next']}"


def describe_findings(document: Document) -> str:
    return _lines(_findings(document))


def _findings(document: Document) -> Iterator[str]:
    found = [*document["local"], *document["hub"]]
    if not found:
        yield "Nothing was found."
    for each in found[:_MOST_FINDINGS]:
        size = describe_bytes(each["size_bytes"]) if each["size_bytes"] else "size unknown"
        what = each["what"] or "precision unknown"
        yield f"- {each['name']} ({each['where']}): {what}, {size}, fits here: {each['fits']}"
    if len(found) > _MOST_FINDINGS:
        yield f"and {len(found) - _MOST_FINDINGS} more, in the structured answer"
    yield from document["notes"]
    yield from (f"To {each['why']}: {each['command']}" for each in document["next"])


def describe_explanation(document: Document) -> str:
    return _lines([document["title"], *(f"{asked}: {answer}" for asked, answer in document["answers"].items())])


def describe_measurements(document: Document) -> str:
    from thriftbit.measurement.measurement import Measurement
    from thriftbit.report.summary import summarize
    from thriftbit.report.verdict import explanation, headline, recommended

    summary = summarize([Measurement.from_json(json.dumps(row)) for row in document["rows"]])
    best = recommended(summary)
    return _lines([*(headline(summary, file) for file in summary.files), best and explanation(summary, best)])


def describe_file(document: Document) -> str:
    size = describe_bytes(document["size_bytes"])
    return f"Wrote {document['output']}: {size}, {document['bits_per_weight']:.2f} bits per weight."


def _lines(sentences: Any) -> str:
    return "\n".join(sentence for sentence in sentences if sentence)

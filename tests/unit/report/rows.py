"""Rows as measuring would write them, made up: one original and five levels of it.

The values are invented after what such files are like, so that layouts meet realistic lengths and spreads. They are for
tests alone; nothing here was measured.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

from thriftbit.measurement.measurement import CONFIDENCE_95, EXACT, QUARTILES, Measurement, Scalar, Subject
from thriftbit.report.choosing import COSTS

MODEL = "Larkspur-1.5B-Instruct"
ORIGINAL = Subject(MODEL, "BF16", sha256(MODEL.encode()).hexdigest(), 3_087_467_520, 16.0)
# level, bytes, bits per weight, mean KL divergence, decode ratio
LEVELS = (
    ("Q8_0", 1_646_572_704, 8.50, 0.0011, 1.78),
    ("Q6_K", 1_272_739_488, 6.56, 0.0043, 2.04),
    ("Q4_K_M", 986_047_136, 5.08, 0.0312, 2.71),
    ("Q3_K_M", 824_177_312, 4.24, 0.0480, 2.83),
    ("Q2_K", 676_303_520, 3.48, 0.437, 3.31),
)
DOMAINS = {"prose": 1.0, "code": 0.62, "math": 0.87, "multilingual": 1.9}
TASKS = {"hellaswag": (100, 0.62), "arc_easy": (120, 0.71)}
MACHINE: dict[str, Scalar] = {
    "processor": "AMD Ryzen 7 7840U w/ Radeon 780M Graphics",
    "architecture": "x86_64",
    "physical_cores": 8,
    "logical_cores": 16,
    "memory_bytes": 33_285_996_544,
    "system": "Linux 6.12",
    "python": "3.13.1",
}
VERSIONS = {"thriftbit": "0.1.0", "torch": "2.13.0"}
ENGINE_VERSIONS = {"thriftbit": "0.1.0", "llama.cpp": "b11549"}
ACCURACY_COMMAND = f"thriftbit measure {MODEL}-*.gguf --against ./{MODEL} --time 10m"
SPEED_COMMAND = f"thriftbit measure {MODEL}-*.gguf --against ./{MODEL} --speed --repetitions 7"
PROMPTS = {
    "explain": "Explain to a ten-year-old why the sky is blue.",
    "email": "Write a two-line e-mail that moves Thursday's meeting to Friday at 10.",
}
ANSWERS = {
    "explain": "The sky is blue because sunlight is made of many colors. When it meets the air, the tiny bits of air "
    "push blue light around more than the other colors, so blue reaches your eyes from everywhere.",
    "email": "Hi team,\n\nCan we move Thursday's meeting to Friday at 10 am? Let me know if that does not work.\n\n"
    "Best,\nSam",
}
WORSE = {
    "Q4_K_M": {"many colors": "all the colors of the rainbow", "tiny bits of air": "tiny particles in it"},
    "Q3_K_M": {
        "many colors": "different colors",
        "push blue light around more": "scatter blue light more",
        "Hi": "Hello",
    },
    "Q2_K": {
        "The sky is blue because sunlight": "The sky is blue because the sun",
        "many colors": "the blue color",
        "blue light around more than the other colors": "the light and the light",
        "Friday at 10 am": "Friday",
        "Let me know if that does not work.": "Let me know if that works for you and the team.",
    },
}
QUESTIONS = (
    (
        "A woman kneels beside a flower bed with a watering can. She",
        (
            "pours water slowly around each plant.",
            "dives into the pool.",
            "folds the letter twice.",
            "sings to the crowd.",
        ),
        0,
    ),
    (
        "Question: Which of these is an example of an endothermic process?\nAnswer:",
        ("ice melting", "water freezing", "wood burning", "iron rusting"),
        0,
    ),
    ("Question: Which tool measures air pressure?\nAnswer:", ("barometer", "thermometer", "ruler", "scale"), 0),
    ("Two people are seen kneading dough on a floured table. They", ("bake it.", "paint it.", "weigh a boat."), 0),
)


def example_rows(levels: Sequence[tuple[str, int, float, float, float]] = LEVELS) -> list[Measurement]:
    """Return everything that can be measured, of the original and each level; energy could not be."""
    chance = random.Random(4)
    files = [
        (Subject(f"{MODEL}-{level}.gguf", level, sha256(level.encode()).hexdigest(), size, bits), loss, faster)
        for level, size, bits, loss, faster in levels
    ]
    rows = [_row("file_size", subject, subject.size_bytes, minute=0) for subject, _, _ in files]
    for subject, loss, faster in files:
        rows += accuracy_rows(subject, loss, chance)
        rows += task_rows(subject, loss, chance)
        rows += speed_rows(subject, faster)
        rows += answer_rows(subject)
    return rows


def accuracy_rows(subject: Subject, loss: float, chance: random.Random) -> list[Measurement]:
    rows = []
    for domain, factor in {"all": 1.0, **DOMAINS}.items():
        settings: dict[str, Scalar] = {"domain": domain, "context_tokens": 512, "windows": 24, "tokens": 6120}
        if domain == "all":
            settings |= {"windows": 96, "tokens": 24480}
        divergence = loss * factor * chance.uniform(0.95, 1.05)
        spread = 0.04 if domain == "all" else 0.09
        base = {"all": 11.84, "prose": 14.21, "code": 4.07, "math": 8.93, "multilingual": 17.6}[domain]
        values = {
            "kl_divergence_mean": (divergence, spread),
            "kl_divergence_median": (divergence * 0.31, spread),
            "kl_divergence_99": (divergence * 9.4, 2 * spread),
            "kl_divergence_99_9": (divergence * 31, 4 * spread),
            "same_top_token": (1 - min(0.26 * divergence**0.5, 0.6), 0.004),
            "token_probability_change_rms": (min(0.31 * divergence**0.5, 0.6), 0.03),
            "perplexity_ratio": (1 + 0.9 * divergence, 0.0006),
            "perplexity": (base * (1 + 0.9 * divergence), 0.03),
        }
        for what, (value, share) in values.items():
            rows.append(_sure(what, subject, value, share, settings, against=ORIGINAL))
        rows.append(_sure("perplexity", ORIGINAL, base, 0.03, settings))
    return rows


def task_rows(subject: Subject, loss: float, chance: random.Random) -> list[Measurement]:
    rows = []
    for task, (questions, accuracy) in TASKS.items():
        settings: dict[str, Scalar] = {"task": task, "questions": questions}
        flipped = round(questions * min(0.22 * loss**0.5, 0.5))
        difference = -round(flipped * 0.3) / questions
        margin = 1.9 * (flipped or 1) ** 0.5 / questions
        questions_flipped = [_flip(task, number, chance) for number in sorted(chance.sample(range(30), flipped))]
        rows += [
            _row("task_accuracy", ORIGINAL, accuracy, accuracy - 0.09, accuracy + 0.09, settings=settings),
            _row(
                "task_accuracy",
                subject,
                accuracy + difference,
                accuracy + difference - 0.09,
                accuracy + difference + 0.09,
                settings=settings,
                against=ORIGINAL,
            ),
            _row(
                "task_accuracy_difference",
                subject,
                difference,
                difference - margin,
                difference + margin,
                settings=settings,
                against=ORIGINAL,
            ),
            _row(
                "answers_flipped",
                subject,
                flipped / questions,
                max(flipped / questions - margin, 0.0),
                flipped / questions + margin,
                settings=settings,
                against=ORIGINAL,
                detail={"questions": questions_flipped},
            ),
        ]
    return rows


def speed_rows(subject: Subject, faster: float) -> list[Measurement]:
    settings: dict[str, Scalar] = {
        "prompt_tokens": 512,
        "generated_tokens": 128,
        "context_tokens": 2048,
        "threads": 8,
        "repetitions": 7,
        "device": "CPU",
    }
    share = subject.size_bytes / ORIGINAL.size_bytes
    prefill = {"Q8_0": 1.9, "Q6_K": 1.3, "Q4_K_M": 1.7, "Q3_K_M": 1.2, "Q2_K": 1.25}.get(subject.level, 1.4)
    originals = {
        "load_time": (2.31, share),
        "first_token_time": (3.42, 1 / prefill),
        "prefill_rate": (149.3, prefill),
        "decode_rate": (12.4, faster),
        "peak_memory": (3.46e9, 0.1 + 0.9 * share),
    }
    rows = []
    for what, (value, ratio) in originals.items():
        for owner, amount in ((subject, value * ratio), (ORIGINAL, value)):
            rows.append(_spread(what, owner, amount, settings, against=None if owner is ORIGINAL else ORIGINAL))
        rows.append(_spread(f"{what}_ratio", subject, ratio, settings, against=ORIGINAL))
    note = "not measurable here: /sys/class/powercap/intel-rapl:0/energy_uj can only be read by root"
    rows += [
        _row("energy_per_token", owner, None, settings=settings, note=note, command=SPEED_COMMAND)
        for owner in (subject, ORIGINAL)
    ]
    return rows


def answer_rows(subject: Subject) -> list[Measurement]:
    rows = []
    for prompt_id, prompt in PROMPTS.items():
        settings: dict[str, Scalar] = {"prompt_id": prompt_id}
        text = ANSWERS[prompt_id]
        worse = text
        for old, new in WORSE.get(subject.level, {}).items():
            worse = worse.replace(old, new)
        for owner, written in ((subject, worse), (ORIGINAL, text)):
            rows.append(
                _row(
                    "answer",
                    owner,
                    float(len(written.split())),
                    settings=settings,
                    against=None if owner is ORIGINAL else ORIGINAL,
                    detail={"prompt": prompt, "text": written},
                    command=SPEED_COMMAND,
                    versions=ENGINE_VERSIONS,
                )
            )
    return rows


def _flip(task: str, number: int, chance: random.Random) -> dict[str, object]:
    """The question and the original's answer depend on the number alone, as files are asked the same questions"""
    context, choices, answer = QUESTIONS[(number + len(task)) % len(QUESTIONS)]
    original = 1 if number % 3 == 2 else answer
    quantized = (original + 1 + chance.randrange(len(choices) - 1)) % len(choices)
    document = {"id": f"{task}-{number}", "context": context, "choices": [f" {choice}" for choice in choices]}
    return {**document, "answer": answer, "original": original, "quantized": quantized}


def _sure(
    what: str, subject: Subject, value: float, share: float, settings: dict[str, Scalar], against: Subject | None = None
) -> Measurement:
    low, high = value * (1 - share), value * (1 + share)
    return _row(what, subject, value, low, high, settings=settings, against=against)


def _spread(
    what: str, subject: Subject, value: float, settings: dict[str, Scalar], against: Subject | None
) -> Measurement:
    return _row(
        what,
        subject,
        value,
        value * 0.98,
        value * 1.015,
        interval=QUARTILES,
        settings=settings,
        against=against,
        command=SPEED_COMMAND,
        versions=ENGINE_VERSIONS,
        minute=20,
    )


def _row(
    what: str,
    subject: Subject,
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    *,
    interval: str = CONFIDENCE_95,
    settings: dict[str, Scalar] | None = None,
    against: Subject | None = None,
    note: str = "",
    command: str = ACCURACY_COMMAND,
    versions: dict[str, str] = VERSIONS,
    detail: dict[str, object] | None = None,
    minute: int = 10,
) -> Measurement:
    return Measurement(
        what=what,
        value=value,
        low=low,
        high=high,
        interval=interval if low is not None else EXACT,
        subject=subject,
        against=against,
        settings=settings or {},
        machine=MACHINE,
        versions=versions,
        time=f"2026-11-22T14:{minute:02d}:00+00:00",
        command=command,
        note=note,
        detail=detail or {},
    )


def crowded_rows() -> list[Measurement]:
    """Return twenty levels, some of them very close."""
    levels = [
        (f"Q{2 + n // 4}_{'KXLS'[n % 4]}", 676_000_000 + n**2 * 2_400_000, 3.4 + n / 4, 0.9 * 0.68**n, 2.0)
        for n in range(20)
    ]
    return [row for row in example_rows(levels) if row.what in (*COSTS, "decode_rate_ratio", "kl_divergence_mean")]


def same_level_rows() -> list[Measurement]:
    """Return two makers' files of one level, which only their names tell apart."""
    makers = {"Q8_0": "somebody-Q4_K_M-imatrix-v2", "Q4_K_M": f"{MODEL}-Q4_K_M"}

    def renamed(subject: Subject) -> Subject:
        name = makers.get(subject.level)
        return replace(subject, name=f"{name}.gguf", level="Q4_K_M") if name else subject

    return [
        replace(row, subject=renamed(row.subject)) for row in example_rows() if row.subject.level in (*makers, "BF16")
    ]


def lonely_rows() -> list[Measurement]:
    """Return speed of one file, compared with nothing."""
    rows = [row for row in example_rows() if row.subject.level == "Q4_K_M" and row.what in COSTS]
    return [replace(row, against=None) for row in rows]


def accuracy_only_rows() -> list[Measurement]:
    """Return what text says, in one domain that the user brought, of two
    files; there was too little of it to be sure."""
    rows = [row for row in example_rows() if row.settings.get("domain") == "prose" and row.subject.level != "Q8_0"]
    return [
        replace(
            row,
            settings={**row.settings, "domain": "contracts of 2025"},
            low=row.low and row.low / 3,
            high=row.high and row.high * 3,
        )
        for row in rows
    ]


HOSTILE = (
    "<script>window.pwned = 1</script>",
    "</style><script>window.pwned = 2</script>",
    "\"'><img src=x onerror='window.pwned = 3'><svg onload=window.pwned=4>",
    "{{ 7 * 7 }}{% raw %}",
    "\x1b[31mred\x1b]0;title\x07\x00\x9b",
    "photo\u202egpj.exe\u2066",
    "half \ud800 a pair",
    "W" * 300,
    "two\nlines\tand\r\nmore",
    "[bold red]markup[/bold red] :smile:",
    "",
)


def hostile_rows() -> list[Measurement]:
    """Return rows whose every string a stranger chose badly; what they mean stays the same."""
    strings = itertools.cycle(HOSTILE)
    return [_hostile(row, next(strings), next(strings)) for row in example_rows()]


def _hostile(row: Measurement, one: str, other: str) -> Measurement:
    def subject(subject: Subject) -> Subject:
        place = [MODEL, *(level for level, *_ in LEVELS)].index(subject.name if subject is ORIGINAL else subject.level)
        return replace(subject, name=HOSTILE[place], level=HOSTILE[place + 4])

    settings = {
        name: f"{value}{HOSTILE[len(value) % len(HOSTILE)]}" if isinstance(value, str) and value != "all" else value
        for name, value in row.settings.items()
    }
    return replace(
        row,
        subject=subject(row.subject),
        against=subject(row.against) if row.against else None,
        settings=settings,
        machine={**row.machine, "processor": HOSTILE[0] + HOSTILE[5], "system": HOSTILE[2]},
        versions={**row.versions, HOSTILE[1]: HOSTILE[4]},
        command=one,
        note=f"not measurable here: {HOSTILE[7]}" if row.note else "",
        detail=_hostile_detail(row.detail, one, other),
    )


def _hostile_detail(detail: Mapping[str, Any], one: str, other: str) -> dict[str, Any]:
    """The texts in it, and what is no question among the questions"""
    changed = {name: f"{one} {value} {other}" for name, value in detail.items() if isinstance(value, str)}
    if "questions" in detail:
        changed["questions"] = [
            *({**question, "context": one, "choices": [other, one, "", "x"]} for question in detail["questions"]),
            *({"id": 1}, None, {"id": "y", "context": "", "choices": [1], "answer": 0}, {"id": [], "context": {}}),
        ]
    return changed

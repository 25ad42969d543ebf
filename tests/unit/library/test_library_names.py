"""What names say: a table of real ones, decoys, and everything that can be spelled in more than one way."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import ROOT
from thriftbit.errors import UsageError
from thriftbit.library.explanations import explain, explanation_of, format_bits
from thriftbit.library.names import QuantizationName, parse_quantization
from thriftbit.library.schemes import SCHEMES
from thriftbit.library.terms import TERMS, Term
from thriftbit.quantization.preset_sizes import typical_bits_per_weight
from thriftbit.quantization.presets import PRESETS

TABLE = [
    (*line.split("\t"), "")[:3]
    for line in Path(__file__).with_name("names.tsv").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]


def signs(quantization: QuantizationName) -> str:
    marks = {"U": quantization.dynamic, "I": quantization.importance, "A": quantization.quantization_aware}
    return "".join(sign for sign, there in marks.items() if there)


def test_the_table_is_large_and_varied() -> None:
    assert len(TABLE) >= 300
    assert len({name for name, _, _ in TABLE}) == len(TABLE)
    assert len({expected for _, expected, _ in TABLE}) >= 90
    assert sum(expected == "-" for _, expected, _ in TABLE) >= 40


@pytest.mark.parametrize(("name", "expected", "marks"), TABLE)
def test_real_names(name: str, expected: str, marks: str) -> None:
    found = parse_quantization(name)
    assert (found.name if found else "-") == expected
    assert found is None or signs(found) == marks


@pytest.mark.parametrize(
    "decoy",
    [
        "earnings-report-Q3-2024-7B.gguf",  # a quarter of a year
        "financial-Q4-forecast",
        "Qwen3", "Phi-4", "Yi-1.5-9B", "gpt-4", "o4-mini", "K2", "A3B", "v0.3", "2507", "128K",
        "model-00004-of-00008.gguf",
        "Llama-3.1-405B-Instruct-16bit",
        "x64bit-tools",
        "FQ4_K_M",  # the end of a longer word
        "Q9_K_M", "Q4_7", "IQ7_XS",
        "3.14bits", "0bpw", "99bpw",
        "gemma-3-27b-it-qat-q4_0-unquantized",
        "", ".", "/", ".gguf", "-", "::", "\x00", "ＱＵＡＮＴ",
    ],
)  # fmt: skip
def test_decoys_say_nothing(decoy: str) -> None:
    assert parse_quantization(decoy) is None


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [
        *((spelling, "Q4_K_M") for spelling in ("Q4_K_M", "q4_k_m", "Q4KM", "Q4K_M", "q4-k-m", "Q4_K", "x.Q4_K_M")),
        *((spelling, "UD-Q4_K_XL") for spelling in ("UD-Q4_K_XL", "ud-q4_k_xl", "UD_Q4_K_XL")),
        *((spelling, "GPTQ-Int4") for spelling in ("GPTQ-Int4", "gptq-4bit", "4bit-GPTQ", "GPTQ_INT4", "4bit-128g")),
        *((spelling, "EXL2-4.25bpw") for spelling in ("exl2-4.25bpw", "4.25bpw-h6-exl2", "exl2/4_25", "exl2:4.25bpw")),
        *((spelling, "MLX-4bit-DWQ") for spelling in ("4bit-DWQ", "mlx-4bit-dwq")),
        *((spelling, "MLX-4bit") for spelling in ("mlx-4bit", "MLX-Q4", "4bit-mlx", "mlx-community/x-4bit")),
        *((spelling, "F16") for spelling in ("F16", "fp16", "float16")),
        *((spelling, "BF16") for spelling in ("bf16", "bfloat16")),
        ("IQ3XXS", "IQ3_XXS"),
        ("Q4_0_4_8", "Q4_0_4_8"),
        ("MXFP4-MOE", "MXFP4_MOE"),
        ("quanto-int4", "quanto-int4"),
        ("torchao-int4wo", "torchao"),
        ("HIGGS-2bit", "HIGGS-2bit"),
        ("spqr", "SpQR"),
        ("quip#", "QuIP#"),
        ("W4A8", "W4A8"),
        ("Q8_K_XL", "Q8_K_XL"),
        ("I2_S", "I2_S"),
        ("3bit", "INT3"),
        ("q8", "Q8"),
    ],
)
def test_spellings(spelling: str, expected: str) -> None:
    found = parse_quantization(spelling)
    assert found is not None and found.name == expected


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_is_found_by_its_name_and_explained(scheme: str) -> None:
    found = parse_quantization(scheme)
    assert found is not None and found.scheme.name in (scheme, "INT4", "INT8"), found
    assert found.name in explain(scheme)


def test_aliases_lead_to_their_scheme() -> None:
    for name, scheme in SCHEMES.items():
        for alias in scheme.aliases:
            found = parse_quantization(alias)
            assert found is not None and found.scheme.name == name, alias


def test_bits_are_those_of_the_presets() -> None:
    """What explain says of a level is what thriftbit makes under its name, for the shapes of Llama 3.1 8B."""
    for name, preset in PRESETS.items():
        told = SCHEMES[name].bits
        assert told is not None and told == pytest.approx(typical_bits_per_weight(preset), abs=0.006), name


def test_the_format_named_as_most_is_one_of_ggml() -> None:
    for scheme in SCHEMES.values():
        for format in scheme.formats:
            assert format_bits(format), f"{scheme.name}: {format}"


def test_levels_of_fewer_bits_are_told_to_have_fewer() -> None:
    falling = ["F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_K_S", "IQ4_XS", "Q3_K_M", "IQ3_XXS", "Q2_K_S", "IQ1_S"]
    bits = [SCHEMES[name].bits for name in falling]
    assert bits == sorted(bits, key=lambda bits: -(bits or 0))


def test_bits_in_a_name_count_more_than_the_usual_ones() -> None:
    found = parse_quantization("Llama-3.1-8B-Instruct-IQ4_XS-4.05bpw.gguf")
    assert found is not None and (found.name, found.bits_per_weight) == ("IQ4_XS", 4.05)


def test_an_explanation_answers_what_people_ask() -> None:
    explanation = explanation_of("UD-Q4_K_XL")
    questions = [question for question, _ in explanation.rows]
    assert questions[:2] == ["Bits per weight", "A 7B model"]
    assert questions[-1] == "In this name, UD"
    text = explain("Q4_K_M")
    assert "exactly 4.5 in most of its weights (Q4_K)" in text and "about 4.28 GB" in text and "Ollama" in text


def test_what_stays_in_16_bits_is_counted() -> None:
    assert "about 5.8 over all of an 8B model" in explain("GPTQ-Int4")


@pytest.mark.parametrize("term", TERMS.values(), ids=list(TERMS))
def test_every_term_is_explained_in_every_spelling(term: Term) -> None:
    for spelling in (term.name, *term.also, term.name.upper(), term.name.replace(" ", "-"), f"{term.name}s"):
        assert explain(spelling).startswith(f"{term.name}: "), spelling


def test_no_two_terms_share_a_spelling() -> None:
    spelled = [spelling.lower() for term in TERMS.values() for spelling in (term.name, *term.also)]
    assert sorted(spelled) == sorted(set(spelled))


def test_the_page_of_terms_is_the_table() -> None:
    page = (ROOT / "docs" / "terms.md").read_text(encoding="utf-8")
    entries = [" ".join(entry.split()) for entry in re.findall(r"^- ((?:.+\n)(?:  .+\n)*)", page, re.MULTILINE)]
    rows = [re.fullmatch(r"\*\*(.+?)\*\*(?: \((.+?)\))?: (.+)", entry) for entry in entries]
    told = [(row[1], tuple((row[2] or "").split(", ")) if row[2] else (), row[3]) for row in rows if row]
    assert told == [(term.name, term.also, term.meaning) for term in TERMS.values()]


def test_a_name_of_a_file_is_explained() -> None:
    assert explain("unsloth/Qwen3-8B-GGUF/Qwen3-8B-Q5_K_M.gguf").startswith("Q5_K_M: ")


@pytest.mark.parametrize(
    ("unknown", "hint"),
    [
        ("Q4_X_M", "Q4_K_M"),
        ("horse", "You can ask about a quantization"),
        ("perplexty", "perplexity"),
        ("", "You can ask"),
        ("llama3.1:8b", "usually Q4_K_M"),
    ],
)
def test_unknown_names_are_told_with_what_is_close(unknown: str, hint: str) -> None:
    with pytest.raises(UsageError, match=hint):
        explain(unknown)


@given(st.text(max_size=200))
def test_any_text_is_answered(text: str) -> None:
    found = parse_quantization(text)
    assert found is None or found.name


@given(st.text(alphabet="qQiIkKxXsSmMlL_-.0123456789bpwit/uUdD", max_size=60))
def test_what_looks_like_a_name_is_answered(text: str) -> None:
    found = parse_quantization(text)
    assert found is None or (found.bits_per_weight or 1) <= 32


def test_very_long_names_take_no_time() -> None:
    assert parse_quantization("q4_" * 100_000) is None
    parse_quantization("mlx-" * 100_000 + "q4")

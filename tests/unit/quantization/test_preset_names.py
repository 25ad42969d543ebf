"""What people type for a preset."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thriftbit.errors import UsageError
from thriftbit.quantization.preset_names import preset_named
from thriftbit.quantization.presets import PRESETS

TWO_BITS = "IQ2_M"


@pytest.mark.parametrize("preset", PRESETS)
def test_any_spelling_of_a_preset(preset: str) -> None:
    for spelling in (preset, preset.lower(), preset.replace("_", "-"), preset.replace("_", ""), f" {preset} "):
        assert preset_named(spelling).name == preset, spelling


@pytest.mark.parametrize(
    ("typed", "preset"),
    [
        *(("q4km", "Q4_K_M"), ("Q4KM", "Q4_K_M"), ("q4_k", "Q4_K_M"), ("Q4_KM", "Q4_K_M"), ("q5_k", "Q5_K_M")),
        *(
            ("iq2m", "IQ2_M"),
            ("IQ3-XXS", "IQ3_XXS"),
            ("iq4nl", "IQ4_NL"),
            ("fp16", "F16"),
            ("float16", "F16"),
            ("bfloat16", "BF16"),
            ("fp32", "F32"),
        ),
    ],
)
def test_usual_spellings(typed: str, preset: str, told: list[str]) -> None:
    assert preset_named(typed).name == preset and told == []


@pytest.mark.parametrize(
    ("typed", "preset"),
    [
        *(("4bit", "Q4_K_M"), ("4-bit", "Q4_K_M"), ("int4", "Q4_K_M"), ("INT8", "Q8_0"), ("q4", "Q4_K_M")),
        *(("8bit", "Q8_0"), ("5 bits", "Q5_K_M"), ("3", "Q3_K_M")),
        *(("2bit", TWO_BITS), ("2-bit", TWO_BITS), ("q2", TWO_BITS), ("1bit", "IQ1_M")),
    ],
)
def test_a_number_of_bits_takes_the_usual_preset_and_says_so(typed: str, preset: str, told: list[str]) -> None:
    assert preset_named(typed).name == preset
    assert len(told) == 1 and told[0].startswith(f"Note: {typed} ") and preset in told[0]


@pytest.mark.parametrize(
    ("typed", "suggestion"),
    [
        *(("IQ2_KS", f"does not make IQ2_KS; the nearest that it makes is {TWO_BITS}"), ("IQ5_K", "nearest .* Q5_K_M")),
        *(("AWQ", "does not make AWQ; .* Q4_K_M"), ("GPTQ", "Q4_K_M"), ("nf4", "Q4_K_M"), ("fp8", "Q8_0")),
        *(("Q4_K_N", "do you mean .*Q4_K_M"), ("Q7_K", "do you mean .*_K"), ("Q4_K_XL", "nearest .* Q4_K_M")),
        *(
            ("banana", "Q4_K_M suits most people"),
            ("", "Q4_K_M suits most people"),
            ("7bit", "does not make INT7; .* Q6_K"),
        ),
        *(("exl2", "does not make EXL2"), ("model-Q4_K_M.gguf", "no preset")),
    ],
)
def test_what_is_not_made_is_answered_with_one_suggestion(typed: str, suggestion: str) -> None:
    with pytest.raises(UsageError, match=suggestion) as raised:
        preset_named(typed)
    assert sum(preset in str(raised.value) for preset in PRESETS) <= 5  # no list of everything


@given(st.text(max_size=80))
def test_any_text_is_answered(text: str) -> None:
    try:
        assert preset_named(text).name in PRESETS
    except UsageError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 400

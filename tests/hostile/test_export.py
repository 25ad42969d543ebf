"""Files from strangers on their way into other programs: their templates do no harm, and no name leads elsewhere."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thriftbit import export
from thriftbit.errors import ThriftbitError
from thriftbit.runtime.export.chat_format import chat_format
from thriftbit.runtime.export.exported_file import as_name, read_exported_file
from thriftbit.runtime.export.rendering import render

from .test_gguf import F32, KEYS, Q8_0, STRING, gguf_bytes, key, tensor, text

TENSORS = [  # without these two, the file is no language model
    tensor("token_embd.weight", (32, 3), Q8_0, 0),
    tensor("blk.0.attn_norm.weight", (32,), F32, 128),
]
WHOLE = gguf_bytes(KEYS, TENSORS)
QUESTION = ((("user", "Hello"),),)
FEW = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' * 10 ** 12 }}",
        "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}",
        "{% for a in range(90000) %}{{ 'many words, again and again' }}{% endfor %}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append('x') }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{% include '/etc/passwd' %}",
        "{% set a = [] %}{{ a[0].b.c }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ raise_exception('no') }}",
        "{% if",
        "\x00{{ 1 / 0 }}",
        "{{ '{:>1000000000}'.format(1) }}",
    ],
)
def test_a_template_that_does_harm_renders_nothing(template: str) -> None:
    started = time.monotonic()
    assert render(template, QUESTION, "<s>", "</s>") == [None]
    assert time.monotonic() - started < 30


def test_a_template_longer_than_any_is_not_run() -> None:
    assert render("a" * (2 << 20), QUESTION, "", "") == [None]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("OLLAMA_MODELS", "LLAMA_CACHE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    (tmp_path / "home").mkdir()
    return tmp_path / "a.gguf"


@pytest.mark.parametrize(
    "template", ["\x1b]0;title\x07{{ bos_token }}", "{% for m in messages %}{{ m.content }}\x9b{% endfor %}"]
)
def test_control_characters_stay_inside_the_files(model: Path, template: str) -> None:
    model.write_bytes(gguf_bytes([*KEYS, key("tokenizer.chat_template", STRING, text(template))], TENSORS))
    for program in ("ollama", "lmstudio", "llama.cpp"):
        done = export(model, program)
        assert all(line.isprintable() for line in (done.name, done.command, *done.notes))


@FEW
@given(st.text(max_size=200))
def test_names_of_files_never_lead_out_of_a_programs_folder(name: str) -> None:
    made = as_name(name)
    assert len(made) <= 80
    assert made == "" or (made.isascii() and "/" not in made and "\\" not in made and made[0] not in ".-_")


def test_an_undamaged_file_is_exported(model: Path) -> None:
    model.write_bytes(WHOLE)
    assert export(model, "ollama").placed[0].path.read_bytes() == WHOLE


@FEW
@given(st.integers(0, len(WHOLE)), st.binary(max_size=8))
def test_a_damaged_file_is_an_error_or_exported_whole(model: Path, place: int, junk: bytes) -> None:
    model.write_bytes(WHOLE[:place] + junk + WHOLE[place + len(junk) :])
    home = model.parent / "home"
    try:
        done = export(model, "ollama", force=True)
    except ThriftbitError:
        return
    manifest = json.loads(done.marker.read_bytes())
    assert all(
        (home / ".ollama/models/blobs" / each["digest"].replace(":", "-")).exists() for each in manifest["layers"]
    )
    assert done.placed[0].path.read_bytes() == model.read_bytes()


def test_settings_that_are_not_numbers_are_left_out(model: Path) -> None:
    keys = [*KEYS, key("general.sampling.temp", STRING, text("hot"))]
    keys.append(key("tokenizer.ggml.eos_token_id", STRING, text("1")))
    model.write_bytes(gguf_bytes(keys, TENSORS))
    assert chat_format(read_exported_file(model)).parameters == {}

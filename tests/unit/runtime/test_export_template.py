"""A file's chat template in Ollama's language: the same prompt, to the character, for conversations of every shape."""

from __future__ import annotations

from pathlib import Path

import pytest
from exported_models import CHATML, CHATML_WITH_DEFAULT, GEMMA, LLAMA_2, LLAMA_3, MOVING_SYSTEM, write_model
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from thriftbit.runtime.export.chat_format import ChatFormat, Turns, chat_format, find_turns, go_template
from thriftbit.runtime.export.exported_file import read_exported_file
from thriftbit.runtime.export.rendering import Conversation

CONVERSATIONS: tuple[Conversation, ...] = (
    (("user", "Hello {{ there }}"),),
    (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e")),
    (("system", "Be brief."), ("user", "a")),
    (("system", "Be brief.\n\nBe kind."), ("user", "a"), ("assistant", "b"), ("user", "<|im_end|>")),
)


def jinja(template: str, conversation: Conversation) -> str:
    """Return the prompt, made here and not where export makes it."""

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    messages = [{"role": role, "content": text} for role, text in conversation]
    return environment.from_string(template).render(
        messages=messages, add_generation_prompt=True, bos_token="<s>", eos_token="</s>"
    )


@pytest.mark.parametrize("template", [CHATML, CHATML_WITH_DEFAULT, LLAMA_2, LLAMA_3])
def test_the_pieces_make_the_same_prompts(template: str) -> None:
    turns = find_turns(template, "<s>", "</s>")
    assert turns is not None
    for conversation in CONVERSATIONS:
        assert turns.render(conversation) == jinja(template, conversation)


def test_where_the_template_refuses_a_system_its_text_goes_before_the_question() -> None:
    turns = find_turns(GEMMA, "<s>", "</s>")
    assert turns is not None and not turns.takes_system
    for conversation in CONVERSATIONS[:2]:
        assert turns.render(conversation) == jinja(GEMMA, conversation)
    with_system = turns.render(CONVERSATIONS[2])
    assert with_system == jinja(GEMMA, (("user", "Be brief.\n\na"),))


@pytest.mark.parametrize(
    "template",
    [
        MOVING_SYSTEM,
        "{{ messages | length }}",
        "{{ messages[-1]['content'] }}",
        "{% for message in messages %}{{ message['content'] | upper }}{% endfor %}",
        "{% for message in messages %}{{ loop.index }}{{ message['content'] }}{% endfor %}",
    ],
)
def test_what_is_no_row_of_pieces_is_not_taken_for_one(template: str) -> None:
    assert find_turns(template, "<s>", "</s>") is None


def test_the_template_for_ollama() -> None:
    # As Go 1.26's text/template and Python were compared, on this and on the 35 templates of Ollama's own tests.
    turns = Turns("<u>", "<s>", "</s><u>", "</u><a>", "</a><u>", "</u><a>")
    assert go_template(turns) == (
        '{{ $last := "" }}{{ $system := "" }}{{ range .Messages }}'
        '{{ if eq .Role "system" }}{{ $system = .Content }}'
        '{{ else if eq .Role "assistant" }}</u><a>{{ .Content }}{{ $last = .Role }}'
        '{{ else }}{{ if eq $last "" }}{{ if $system }}<s>{{ $system }}</s><u>{{ else }}<u>{{ end }}'
        "{{ else }}</a><u>{{ if $system }}{{ $system }}\n\n{{ end }}{{ end }}"
        '{{ .Content }}{{ $system = "" }}{{ $last = .Role }}{{ end }}{{ end }}'
        '{{ if ne $last "assistant" }}</u><a>{{ end }}'
    )


def test_braces_of_the_model_are_no_actions_of_ollamas() -> None:
    turns = Turns("{{ .System }}{", "", "", "", "", "")
    assert '{{ "{" }}{{ "{" }} .System }}{{ "{" }}' in go_template(turns)
    assert "{{ .System" not in go_template(turns)


def chat_format_of(path: Path) -> ChatFormat:
    return chat_format(read_exported_file(path))


def test_the_token_of_the_beginning_is_left_to_llama_cpp_where_it_puts_one(tmp_path: Path) -> None:
    puts_one = chat_format_of(write_model(tmp_path / "a.gguf", LLAMA_3))
    puts_none = chat_format_of(write_model(tmp_path / "b.gguf", LLAMA_3, add_bos=False))
    assert puts_one.template is not None and "<s>" not in puts_one.template
    assert puts_none.template is not None and puts_none.template.count("<s>") == 2


def test_answers_stop_where_turns_end(tmp_path: Path) -> None:
    stops = {
        name: chat_format_of(write_model(tmp_path / f"{name}.gguf", template)).parameters["stop"]
        for name, template in {"chatml": CHATML, "gemma": GEMMA, "llama 3": LLAMA_3}.items()
    }
    assert stops == {
        "chatml": ["</s>", "<|im_end|>", "<|im_start|>"],
        "gemma": ["</s>", "<end_of_turn>", "<start_of_turn>"],
        "llama 3": ["</s>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"],
    }


def test_where_turns_are_marked_by_words_these_stop_it(tmp_path: Path) -> None:
    vicuna = (
        "{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] + '\\n' }}"
        "{% elif message['role'] == 'user' %}{{ 'USER: ' + message['content'] + '\\nASSISTANT:' }}"
        "{% else %}{{ message['content'] + '\\n' }}{% endif %}{% endfor %}"
    )
    assert chat_format_of(write_model(tmp_path / "a.gguf", vicuna)).parameters["stop"] == ["</s>", "USER:"]


def test_a_model_without_a_template_continues_text(tmp_path: Path) -> None:
    found = chat_format_of(write_model(tmp_path / "a.gguf", None))
    assert (found.template, found.parameters) == ("{{ .Prompt }}", {"stop": ["</s>"]})
    assert found.note is not None and "no chat template" in found.note


def test_a_template_that_ollamas_language_cannot_express_is_left_to_llama_cpp(tmp_path: Path) -> None:
    found = chat_format_of(write_model(tmp_path / "a.gguf", MOVING_SYSTEM))
    assert found.template is None
    assert found.note is not None and "0.30" in found.note

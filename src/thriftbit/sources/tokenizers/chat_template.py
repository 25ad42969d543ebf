"""The chat template, carried over as it is: one Jinja text, or several under names.

The template is in chat_template.jinja (others in additional_chat_templates/), or in tokenizer_config.json as text or as
a list of names and texts, or in chat_template.json of older multimodal models. Here it is only checked to be text, not
to be valid Jinja."""

from __future__ import annotations

import re
from typing import Any

import gguf

from thriftbit.containers.gguf_values import MetadataValue
from thriftbit.errors import ThriftbitError, shown
from thriftbit.sources.json_object import read_json_object
from thriftbit.sources.tokenizers.folder import TOKENIZER_CONFIG, TokenizerFolder, read_template

MAIN_TEMPLATE = "default"

LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # JSON can spell half a character, UTF-8 cannot


def chat_template_metadata(folder: TokenizerFolder) -> dict[str, MetadataValue]:
    """Return the keys of the templates; none if the model has no template."""
    keys = gguf.Keys.Tokenizer
    templates = {name: text for name, text in _templates(folder).items() if text.strip()}  # an empty one is none
    for name, text in templates.items():
        if LONE_SURROGATE.search(text):
            raise ThriftbitError(f"{folder.path}: the chat template {shown(name)} is not valid Unicode")
    metadata: dict[str, MetadataValue] = {}
    others = {re.sub(r"[^A-Za-z0-9]", "_", name): text for name, text in templates.items() if name != MAIN_TEMPLATE}
    if MAIN_TEMPLATE in templates:
        metadata[keys.CHAT_TEMPLATE] = templates[MAIN_TEMPLATE]
    if others:
        metadata[keys.CHAT_TEMPLATES] = sorted(others)
    for name, text in sorted(others.items()):
        metadata[keys.CHAT_TEMPLATE_N.format(name=name)] = text
    return metadata


def _templates(folder: TokenizerFolder) -> dict[str, str]:
    main = folder.path / "chat_template.jinja"
    if main.exists():
        more = sorted((folder.path / "additional_chat_templates").glob("*.jinja"))
        texts = {path.stem: read_template(path, folder.path) for path in more}
        return texts | {MAIN_TEMPLATE: read_template(main, folder.path)}
    origin, template = folder.path / TOKENIZER_CONFIG, folder.tokenizer_config.get("chat_template")
    older = folder.path / "chat_template.json"
    if template is None and older.exists():
        origin, template = older, read_json_object(older).get("chat_template")
    match template:
        case None:
            return {}
        case str():
            return {MAIN_TEMPLATE: template}
        case {**named} if all(isinstance(text, str) for text in named.values()):
            return {str(name): str(text) for name, text in named.items()}
        case [*entries]:
            return dict(_named(entry, str(origin)) for entry in entries)
    raise ThriftbitError(f"{origin}: chat_template should be text or a list of named texts, not {shown(template)}")


def _named(entry: Any, origin: str) -> tuple[str, str]:
    match entry:
        case {"name": str(name), "template": str(text)} if name:
            return name, text
    raise ThriftbitError(f"{origin}: {shown(entry)} is no named chat template")

"""Which tokens begin, end, separate and pad, and whether a text gets a beginning and an end token by default.

Where a key is missing, llama.cpp takes a fixed id (11 for a byte-level vocabulary) and decides by itself whether a
beginning token belongs before a prompt. So add_bos_token and add_eos_token are always written. A tokenizer without an
end token is refused, because generation would stop at an arbitrary word.

Whether they are added is decided as in transformers: by the post-processor of tokenizer.json if there is one (whatever
tokenizer_config.json says), else by tokenizer_config.json, else by the default of the tokenizer class. llama.cpp finds
the tokens that end an answer by their text. The configuration may stop at tokens that llama.cpp does not recognise. Two
of them are written as the end of a turn (eot) and the end of a message (eom); a GGUF has no place for more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gguf
import numpy as np

from thriftbit.containers.gguf_values import MetadataValue
from thriftbit.errors import ThriftbitError, enumeration, shown
from thriftbit.sources.tokenizers.folder import TokenizerFolder
from thriftbit.sources.tokenizers.pre_tokenizers import flat_steps

_KEYS = gguf.Keys.Tokenizer

TEXT = ""  # stands for the text itself in a template; no token has this name

ROLES = {
    "bos": _KEYS.BOS_ID,
    "eos": _KEYS.EOS_ID,
    "eot": _KEYS.EOT_ID,
    "eom": _KEYS.EOM_ID,
    "unk": _KEYS.UNK_ID,
    "sep": _KEYS.SEP_ID,
    "pad": _KEYS.PAD_ID,
    "mask": _KEYS.MASK_ID,
}

# Texts at which llama.cpp stops by itself (llama-vocab.cpp)
RECOGNISED_STOPS = frozenset(
    (
        *("</s>", "<eos>", "[EOS]", "<EOT>", "_<EOT>", "[EOT]", "[e~["),
        *("<|endoftext|>", "<|end_of_text|>", "<｜end▁of▁sentence｜>", "<end_of_utterance>"),
        *("<|im_end|>", "<|end|>", "<end_of_turn>", "<turn|>", "<|eot_id|>", "<|eom_id|>"),
        *("<|return|>", "<|call|>", "<|calls|>", "<|flush|>", "<|tool_response>"),
    )
)


def special_token_metadata(
    folder: TokenizerFolder, ids: Mapping[str, int], begins_by_custom: bool, note: Callable[[str], None]
) -> dict[str, MetadataValue]:
    """Return the keys of the special tokens. Raises ThriftbitError if no file names an end token.

    ids: token text to id. begins_by_custom: whether the tokenizer class adds a beginning token by default. note: is
    called with a sentence if llama.cpp will not stop at some token."""
    roles = {role: token_id for role in ROLES if (token_id := _role(folder, role, ids)) is not None}
    begin, end = _added_ends(folder, roles, ids, begins_by_custom)
    if "eos" not in roles:
        raise ThriftbitError(
            f"{folder.path} does not say which token ends a text: set eos_token in tokenizer_config.json, or "
            "eos_token_id in config.json or generation_config.json"
        )
    stops = _unrecognised_stops(folder, {roles[role] for role in ("eos", "eot", "eom") if role in roles}, ids)
    for role in ("eot", "eom"):
        if stops and role not in roles:
            roles[role] = stops.pop(0)
    if stops:
        texts = {token_id: text for text, token_id in ids.items()}
        note(
            f"Note: The original stops at {enumeration([shown(texts[token_id]) for token_id in stops])} too. "
            "A GGUF cannot hold more stop tokens, so llama.cpp goes on writing there."
        )
    metadata: dict[str, MetadataValue] = {ROLES[role]: np.uint32(token_id) for role, token_id in roles.items()}
    return metadata | {_KEYS.ADD_BOS: begin, _KEYS.ADD_EOS: end}


def _role(folder: TokenizerFolder, role: str, ids: Mapping[str, int]) -> int | None:
    """Return the id of the token with this role, None if there is none. The tokenizer's own files name it by text,
    config.json and generation_config.json by id. Ids that the vocabulary lacks are ignored: a padding token beyond the
    embedding is common, and means that there is none."""
    for section in (folder.tokenizer_config, folder.special_tokens_map):
        entry = section.get(f"{role}_token")
        text = entry.get("content") if isinstance(entry, dict) else entry
        if isinstance(text, str) and text in ids:
            return ids[text]
    known = set(ids.values())
    for section in (folder.model_config, folder.generation_config):
        for token_id in _listed(section.get(f"{role}_token_id")):
            if token_id in known:
                return token_id
    return None


def _added_ends(
    folder: TokenizerFolder, roles: dict[str, int], ids: Mapping[str, int], begins_by_custom: bool
) -> tuple[bool, bool]:
    """Return whether a beginning and an end token are added. Tokens that only the template names are added to
    `roles`."""
    post_processor = (folder.tokenizer_json or {}).get("post_processor")
    if post_processor is None:
        begin = folder.tokenizer_config.get("add_bos_token", begins_by_custom)
        end = folder.tokenizer_config.get("add_eos_token", False)
        return bool(begin) and "bos" in roles, bool(end) and "eos" in roles
    before, after = _template(post_processor, f"{folder.origin}: post_processor")
    added = []
    for role, names in (("bos", before), ("eos", after)):
        if len(names) > 1 or any(name not in ids for name in names):
            raise ThriftbitError(
                f"{folder.origin} puts {' '.join(map(shown, names))} around every text; llama.cpp can add one known "
                "token on each side"
            )
        for name in names:
            if roles.setdefault(role, ids[name]) != ids[name]:
                raise ThriftbitError(
                    f"{folder.origin} adds {shown(name)} to every text, but the {role} token has the id {roles[role]}; "
                    "llama.cpp can add only that one. Make tokenizer_config.json and tokenizer.json agree"
                )
        added.append(bool(names))
    return added[0], added[1]


def _template(post_processor: Any, origin: str) -> tuple[list[str], list[str]]:
    """Return the special tokens that a post-processor puts before and after a text."""
    before: list[str] = []
    after: list[str] = []
    for step in flat_steps(post_processor, "processors"):
        match step:
            case {"type": "ByteLevel"}:
                pass
            case {"type": "TemplateProcessing", "single": [*items]}:
                names = [_template_item(item, origin) for item in items]
                if names.count(TEXT) != 1:
                    raise ThriftbitError(f"{origin} has a template with {names.count(TEXT)} texts: {shown(items)}")
                text = names.index(TEXT)
                before, after = names[:text] + before, after + names[text + 1 :]
            case _:
                raise ThriftbitError(f"{origin} is not one that llama.cpp can follow: {shown(step)}")
    return before, after


def _template_item(item: Any, origin: str) -> str:
    """Return the text of the special token that the item stands for; TEXT for the text itself."""
    match item:
        case {"SpecialToken": {"id": str(name)}} if name:
            return name
        case {"Sequence": {"id": "A"}}:
            return TEXT
    raise ThriftbitError(f"{origin} has a template item that is not known: {shown(item)}")


def _unrecognised_stops(folder: TokenizerFolder, named: set[int], ids: Mapping[str, int]) -> list[int]:
    """Return the ids that the original stops at, without those with a role and those that llama.cpp recognises."""
    texts = {token_id: text for text, token_id in ids.items()}
    stops = _listed(folder.generation_config.get("eos_token_id")) + _listed(folder.model_config.get("eos_token_id"))
    return [
        token_id
        for token_id in dict.fromkeys(stops)
        if token_id not in named and token_id in texts and texts[token_id] not in RECOGNISED_STOPS
    ]


def _listed(value: Any) -> list[int]:
    return [entry for entry in (value if isinstance(value, list) else [value]) if type(entry) is int]

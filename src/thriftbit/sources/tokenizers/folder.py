"""The files of a model folder that say something about its tokenizer, read once and checked for their outer shape.

If several files say something, the first of these decides: tokenizer.json, then tokenizer_config.json, then the older
special_tokens_map.json and added_tokens.json, then the ids in config.json and generation_config.json. A chat template
in a file of its own goes before one in tokenizer_config.json, as in transformers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thriftbit.containers.regular_files import read_regular_text, refuse_link_out
from thriftbit.errors import ThriftbitError, shown
from thriftbit.sources.json_object import read_json_object
from thriftbit.sources.tokenizers.vocabulary import AddedToken

if TYPE_CHECKING:
    from thriftbit.sources.checkpoint import Checkpoint

TOKENIZER_JSON = "tokenizer.json"
SENTENCEPIECE_MODEL = "tokenizer.model"
TOKENIZER_CONFIG = "tokenizer_config.json"

TEMPLATE_LIMIT_BYTES = 4 << 20


@dataclass(frozen=True)
class TokenizerFolder:
    """The files of a folder, each as a JSON object, {} for a missing file.

    tokenizer_json: None if it is missing. sentencepiece_model: the path of tokenizer.model, None if it is missing.
    model_config: config.json, with the settings of `text_config` in place of its own."""

    path: Path
    tokenizer_json: dict[str, Any] | None
    sentencepiece_model: Path | None
    tokenizer_config: dict[str, Any]
    special_tokens_map: dict[str, Any]
    generation_config: dict[str, Any]
    added_tokens_json: dict[str, Any]
    model_config: dict[str, Any]

    @property
    def origin(self) -> str:
        """The name that errors give to the file with the vocabulary."""
        return str(self.path / (SENTENCEPIECE_MODEL if self.tokenizer_json is None else TOKENIZER_JSON))

    @property
    def tokenizer_class(self) -> str:
        """The class that tokenizer_config.json names, without "Fast"; "" where it names none."""
        return str(self.tokenizer_config.get("tokenizer_class") or "").removesuffix("Fast")

    def added_tokens(self) -> list[AddedToken]:
        """Return the added tokens of all files, each once. Where two describe the same token, tokenizer_config.json
        decides, as in transformers. An added_tokens.json that contradicts tokenizer.json was left behind by an older
        release, and is ignored."""
        tokens: dict[int, AddedToken] = {}
        for origin, token in self._declared_tokens():
            known = tokens.get(token.id, token)
            if known.text != token.text:
                raise ThriftbitError(
                    f"{origin}: the id {token.id} is {shown(known.text)} and {shown(token.text)} at once"
                )
            tokens[token.id] = token
        return [tokens[token_id] for token_id in sorted(tokens)]

    def _declared_tokens(self) -> Iterator[tuple[Path, AddedToken]]:
        """Yield (file, token) for each declaration of an added token. Later declarations override earlier ones."""
        origin = self.path / TOKENIZER_JSON
        tokens = [
            _added_token(origin, entry, _id(entry)) for entry in _list(self.tokenizer_json, "added_tokens", origin)
        ]
        ids, texts = {token.id for token in tokens}, {token.text for token in tokens}
        older = self.path / "added_tokens.json"
        for text, token_id in self.added_tokens_json.items():
            token = _added_token(older, {"content": text}, token_id)
            if token.id not in ids and token.text not in texts:
                yield older, token
        yield from ((origin, token) for token in tokens)
        origin = self.path / TOKENIZER_CONFIG
        decoder = self.tokenizer_config.get("added_tokens_decoder") or {}
        if not isinstance(decoder, dict):
            raise ThriftbitError(f"{origin}: added_tokens_decoder should map ids to tokens, not be {shown(decoder)}")
        for key, entry in decoder.items():
            yield origin, _added_token(origin, entry, int(key) if key.isdecimal() and len(key) < 20 else key)


def open_tokenizer_folder(checkpoint: Checkpoint) -> TokenizerFolder:
    def read(name: str) -> dict[str, Any] | None:
        path = checkpoint.file(name)
        return None if path is None else read_json_object(path)

    text_config = checkpoint.config.get("text_config")
    return TokenizerFolder(
        path=checkpoint.path,
        tokenizer_json=read(TOKENIZER_JSON),
        sentencepiece_model=checkpoint.file(SENTENCEPIECE_MODEL),
        tokenizer_config=read(TOKENIZER_CONFIG) or {},
        special_tokens_map=read("special_tokens_map.json") or {},
        generation_config=read("generation_config.json") or {},
        added_tokens_json=read("added_tokens.json") or {},
        model_config=checkpoint.config | (text_config if isinstance(text_config, dict) else {}),
    )


def read_template(path: Path, folder: Path) -> str:
    """Return the text of a chat template of the model in `folder`; ThriftbitError if it is not the model's own."""
    refuse_link_out(path, folder)
    return read_regular_text(path, TEMPLATE_LIMIT_BYTES)


def _list(section: dict[str, Any] | None, key: str, origin: Path) -> list[Any]:
    value = (section or {}).get(key) or []
    if not isinstance(value, list):
        raise ThriftbitError(f"{origin}: {key} should be a list, not {shown(value)}")
    return value


def _id(entry: Any) -> Any:
    return entry.get("id") if isinstance(entry, dict) else None


def _added_token(origin: Path, entry: Any, token_id: Any) -> AddedToken:
    content = entry if isinstance(entry, dict) else {}
    text = content.get("content")
    if not isinstance(text, str) or not text or type(token_id) is not int:
        raise ThriftbitError(
            f"{origin}: {shown(entry)} with id {shown(token_id)} is no added token: it needs an id and a text"
        )
    special, *places = (bool(content.get(key)) for key in ("special", "lstrip", "rstrip", "single_word"))
    return AddedToken(token_id, text, special, *places)

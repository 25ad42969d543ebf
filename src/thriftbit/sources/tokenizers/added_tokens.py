"""White space around added tokens, and the model's name, by which llama.cpp decides about it.

A tokenizer may say that an added token swallows the white space before or after it (`lstrip`, `rstrip`), or that it
counts only between other words (`single_word`). A GGUF has no place for that. llama.cpp knows one case: where
`general.name` contains "phi-3" or "phi3", every added token swallows the white space after it, but for three
(llama-vocab.cpp, "Handle per token attributes"). It then looks up four tokens, and does not load a vocabulary without
one of them. "modern-bert" in a name has the same effect on [MASK].

So the name is written in the spelling with which llama.cpp reads most tokens as the original does. The user is told
which tokens it still reads otherwise."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from thriftbit.errors import enumeration, shown
from thriftbit.sources.tokenizers.vocabulary import AddedToken

PHI3_NEEDS = frozenset(("<unk>", "<s>", "</s>", "<|endoftext|>"))
PHI3_PLAIN = PHI3_NEEDS - {"</s>"}  # the three tokens that do not swallow the space after them

_PHI3 = re.compile(r"phi-?3", re.IGNORECASE)
_PHI3_IN_WORDS = re.compile(r"phi[ -]?3", re.IGNORECASE)
_MODERN_BERT = re.compile(r"modern-bert", re.IGNORECASE)


def name_for_llama_cpp(
    name: str, added: Collection[AddedToken], ids: Mapping[str, int], special: Collection[int]
) -> tuple[str, list[AddedToken]]:
    """Return the spelling of the model's name, and the added tokens that llama.cpp reads otherwise even with it.

    ids: every token's text to its id. special: the ids that llama.cpp cuts out of a text."""
    by_id = {token.id: token for token in added}
    texts = {token_id: text for text, token_id in ids.items() if token_id in special}
    cut_out = [by_id.get(token_id, AddedToken(token_id, text, True)) for token_id, text in texts.items()]
    without_switch = [token for token in cut_out if token.takes_left or token.takes_right or token.whole_words]
    with_switch = [token for token in cut_out if not _as_in_phi3(token)]
    name = _MODERN_BERT.sub("modern bert", name)
    if ids.keys() >= PHI3_NEEDS and len(with_switch) < len(without_switch):
        switched = _PHI3_IN_WORDS.sub("Phi-3", name, count=1)
        return switched if _PHI3.search(switched) else f"{name} (Phi-3)", with_switch
    return _PHI3.sub("Phi 3", name), without_switch


def refuses_name(name: str, tokens: Collection[str]) -> bool:
    """Return whether llama.cpp fails to load a vocabulary of these tokens because of the model's name."""
    return _PHI3.search(name) is not None and not set(tokens) >= PHI3_NEEDS


def space_note(tokens: Collection[AddedToken]) -> str:
    """Return a sentence on the tokens that llama.cpp reads otherwise."""
    places = {
        "drops the white space next to": [t for t in tokens if t.takes_left or t.takes_right],
        "finds only between other words": [t for t in tokens if t.whole_words],
        "keeps the white space after": [t for t in tokens if not (t.takes_left or t.takes_right or t.whole_words)],
    }
    said = [f"{what} {enumeration([shown(token.text) for token in those])}" for what, those in places.items() if those]
    return f"Note: The original {', and '.join(said)}. llama.cpp does not, so it reads texts with these differently."


def _as_in_phi3(token: AddedToken) -> bool:
    takes_right = token.text not in PHI3_PLAIN
    return token.takes_right == takes_right and not token.takes_left and not token.whole_words

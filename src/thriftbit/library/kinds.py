"""The kind of a file: what it is for. Only some files called models can chat. Others embed, rerank, draw, speak, or
belong to a model.

The content decides, never the file's name: the architecture, the keys that llama.cpp's converter writes for embedding
models and rerankers (`pooling_type`, `attention.causal`, classifier tensors), and which tensors are there. A language
model has a token embedding and a first layer. Whatever lacks them cannot write text, even if its architecture can.

Sources: llama.cpp b11434, src/models (graphs that give embeddings and no logits), conversion/ (the keys), and
ComfyUI-GGUF, loader.py (architectures of image and video generators).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from thriftbit.containers.gguf_values import Metadata
from thriftbit.errors import ThriftbitError
from thriftbit.strangers import quoted

TEXT, EMBEDDING, RERANKER, ENCODER = "chat", "embedding", "reranker", "text encoder"
TRANSLATOR, TEXT_DIFFUSION, DRAFT = "encoder-decoder", "text diffusion", "draft"
VISION, ADAPTER, CONTROL = "picture or sound part", "LoRA adapter", "control vector"
IMAGE, SPEECH, OTHER = "image or video", "speech", "unknown"
IMPORTANCE, VOCABULARY = "importance data", "vocabulary only"


@dataclass(frozen=True)
class Kind:
    """what: completes "FILE is …". instead: a sentence on what works with such a file; FILE and FOLDER stand for its
    path. is_whole: whether it is a model by itself; a part belongs to some other model."""

    what: str
    instead: str
    is_whole: bool = True


KINDS: Mapping[str, Kind] = {
    TEXT: Kind("a language model", "`thriftbit chat FILE` runs it."),
    EMBEDDING: Kind(
        "an embedding model: it turns text into vectors for search, and writes no text",
        "llama.cpp serves it: llama-server -m FILE --embeddings",
    ),
    RERANKER: Kind(
        "a reranker or classifier: it scores text, and writes none",
        "llama.cpp serves it: llama-server -m FILE --reranking",
    ),
    ENCODER: Kind(
        "a text encoder: it reads prompts for another model, such as an image generator, and writes no text",
        "stable-diffusion.cpp and ComfyUI-GGUF load it beside the model that it belongs to.",
    ),
    TRANSLATOR: Kind(
        "an encoder-decoder model, such as T5: it transforms text and holds no conversation",
        "llama.cpp runs it: llama-completion -m FILE -p TEXT",
    ),
    TEXT_DIFFUSION: Kind(
        "a text diffusion model: it refines a whole text at once instead of writing word after word",
        "llama.cpp runs it: llama-diffusion-cli -m FILE -p TEXT",
    ),
    DRAFT: Kind(
        "a draft part: it guesses the next tokens for the model that it was made for, and cannot write alone",
        "llama.cpp takes both: llama-server -m MODEL -md FILE",
        is_whole=False,
    ),
    VISION: Kind(
        "the picture or sound part (mmproj) of another model",
        "llama.cpp takes both: llama-server -m MODEL --mmproj FILE",
        is_whole=False,
    ),
    ADAPTER: Kind(
        "a LoRA adapter: changes to another model, not a model of its own",
        "llama.cpp takes both: llama-server -m MODEL --lora FILE. Or merge it into its model and quantize the result.",
        is_whole=False,
    ),
    CONTROL: Kind(
        "a control vector: it steers another model, and is not a model of its own",
        "llama.cpp takes both: llama-server -m MODEL --control-vector FILE",
        is_whole=False,
    ),
    IMAGE: Kind(
        "an image or video generator: it writes no text",
        "stable-diffusion.cpp and ComfyUI-GGUF run it.",
    ),
    SPEECH: Kind(
        "a speech model or a part of one: it works with sound and holds no conversation",
        "llama.cpp runs some of them: llama-tts -m MODEL -mv FILE; whisper.cpp runs speech recognition.",
    ),
    OTHER: Kind(
        "not a language model: it has no token embedding",
        "`thriftbit inspect FILE` shows what is in it.",
    ),
    IMPORTANCE: Kind(
        "importance data: it steers quantization, and is not a model",
        "Use it with: thriftbit quantize MODEL --imatrix FILE",
        is_whole=False,
    ),
    VOCABULARY: Kind(
        "a vocabulary without weights",
        "llama.cpp's llama-tokenize reads it; to chat, get the whole model.",
        is_whole=False,
    ),
}

_BY_TYPE = {"mmproj": VISION, "adapter": ADAPTER, "imatrix": IMPORTANCE, "vocab": VOCABULARY}
_BY_ARCHITECTURE = {
    **dict.fromkeys(("clip", "mmproj"), VISION),
    **dict.fromkeys(("gemma-embedding", "llama-embed", "clef"), EMBEDDING),
    "t5encoder": ENCODER,
    "t5": TRANSLATOR,
    "controlvector": CONTROL,
    "imatrix": IMPORTANCE,
    **dict.fromkeys(("eagle3", "dflash", "gemma4-assistant"), DRAFT),
    **dict.fromkeys(("dream", "llada", "llada-moe", "rnd1"), TEXT_DIFFUSION),
    **dict.fromkeys(
        ("wavtokenizer-dec", "qwen3tts", "pockettts", "whisper", "kokoro", "parler-tts", "dia", "snac", "dac"),
        SPEECH,
    ),
    **dict.fromkeys(
        (
            *("flux", "flux2", "sd1", "sd2", "sdxl", "sd3", "aura", "auraflow", "hidream", "cosmos", "ltxv", "ltxav"),
            *("hyvid", "wan", "lumina2", "qwen_image", "z_image", "chroma", "pixart", "hunyuan_image", "omnigen2"),
        ),
        IMAGE,
    ),
}  # fmt: skip
_BERT = re.compile(r"bert(?:$|[-_\d])", re.IGNORECASE)
_POOLING_NONE, _POOLING_RANK = 0, 4
_TOKEN_EMBEDDING, _FIRST_LAYER, _ANY_LAYER = "token_embd.weight", "blk.0.", "blk."
_IMAGE_TENSORS = (
    *("double_blocks.", "single_blocks.", "joint_blocks.", "input_blocks.", "transformer_blocks.", "double_layers."),
    *("model.diffusion_model.", "down_blocks.", "patch_embedding.", "caption_projection.", "x_embedder."),
)
_RUNS_A_FILE = re.compile(r"llama-[\w-]+ .*FILE")
_LORA = re.compile(r"\.lora_[aAbB]$")


def gguf_kind(metadata: Metadata, tensors: Collection[str]) -> str:
    """Return which of KINDS a GGUF file is. tensors: the names of all its tensors."""
    architecture = metadata.get("general.architecture")
    architecture = architecture if isinstance(architecture, str) else ""
    declared = metadata.get("general.type")
    if isinstance(declared, str) and declared in _BY_TYPE:
        return _BY_TYPE[declared]
    if not tensors:
        return VOCABULARY
    if any(_LORA.search(name) for name in tensors):
        return ADAPTER
    if architecture in _BY_ARCHITECTURE:
        return _BY_ARCHITECTURE[architecture]
    pooling = metadata.get(f"{architecture}.pooling_type")
    if _is(pooling, _POOLING_RANK) or any(name.startswith("cls.output.") for name in tensors):
        return RERANKER
    bidirectional = metadata.get(f"{architecture}.attention.causal")
    if _BERT.search(architecture) or (pooling is not None and not _is(pooling, _POOLING_NONE)):
        return EMBEDDING
    if bidirectional is not None and not bool(bidirectional):
        return EMBEDDING
    if _TOKEN_EMBEDDING not in tensors:
        return _without_embedding(tensors)
    if any(name.startswith(_ANY_LAYER) for name in tensors):
        return TEXT if any(name.startswith(_FIRST_LAYER) for name in tensors) else DRAFT
    return VOCABULARY


def _without_embedding(tensors: Collection[str]) -> str:
    if any(name.startswith(_IMAGE_TENSORS) for name in tensors):
        return IMAGE
    return DRAFT if any(".nextn." in name for name in tensors) else OTHER


def _is(value: Any, number: int) -> bool:
    return isinstance(value, int | np.integer) and int(value) == number


_CLASSES = (
    (re.compile(r"For(SequenceClassification|TokenClassification)$"), RERANKER),
    (re.compile(r"^(Flux|SD3|UNet|Autoencoder|PixArt|Wan|HunyuanVideo|QwenImage|.*Transformer[23]D)"), IMAGE),
    (re.compile(r"^(Whisper|SpeechT5|Wav2Vec2|Bark|Vits|Kokoro|Parler|Moonshine|Hubert|.*ForCTC$)"), SPEECH),
    (re.compile(r"EncoderModel$"), ENCODER),
    (re.compile(r"^(CLIP|Siglip|SigLIP|.*VisionModel$|ViT)"), VISION),
    (re.compile(r"^(U?MT5|T5|Bart|MBart|M2M100|Marian|Pegasus)For(ConditionalGeneration|CausalLM)$"), TRANSLATOR),
    (re.compile(r"^(Dream|LLaDA)"), TEXT_DIFFUSION),
    (re.compile(r"(Bert|BERT|Roberta|MPNet|Electra|Deberta\w*)(MoE)?(Model|ForMaskedLM)$|^(New|GTE)Model$"), EMBEDDING),
)  # fmt: skip
_SENTENCE_TRANSFORMERS = ("modules.json", "config_sentence_transformers.json", "1_Pooling")


def folder_kind(config: Mapping[str, Any], names: Collection[str]) -> str:
    """Return which of KINDS a folder in Hugging Face's layout is. config: of its config.json. names: of its files."""
    if "adapter_config.json" in names:
        return ADAPTER
    if "model_index.json" in names:
        return IMAGE
    classes = config.get("architectures")
    name = classes[0] if isinstance(classes, list) and classes else config.get("_class_name")
    if isinstance(name, str):
        for pattern, kind in _CLASSES:
            if pattern.search(name):
                return kind
    return EMBEDDING if any(name in names for name in _SENTENCE_TRANSFORMERS) else TEXT


# What the Hub calls the task of a repository: https://huggingface.co/tasks
_BY_TASK = {
    **dict.fromkeys(("feature-extraction", "sentence-similarity", "fill-mask"), EMBEDDING),
    **dict.fromkeys(("text-ranking", "text-classification", "token-classification"), RERANKER),
    **dict.fromkeys(("text-to-image", "image-to-image", "text-to-video", "image-to-video", "text-to-3d"), IMAGE),
    **dict.fromkeys(("text-to-speech", "text-to-audio", "automatic-speech-recognition", "audio-to-audio"), SPEECH),
    **dict.fromkeys(("translation", "summarization"), TRANSLATOR),
}  # fmt: skip


def hub_kind(task: str | None, architecture: str | None, file: str) -> str:
    """Return which of KINDS a repository's file is by what the Hub says. This is a claim until its header is read.

    task: the Hub's "pipeline_tag". architecture: of the repository's GGUF files. file: a name, "" for a checkpoint."""
    words = re.split(r"[-_./]", file.lower())
    for word, kind in (("mmproj", VISION), ("imatrix", IMPORTANCE), ("lora", ADAPTER), ("vae", IMAGE)):
        if word in words:
            return kind
    if words[0] == "mtp":
        return DRAFT
    known = gguf_kind({"general.architecture": architecture or ""}, (_TOKEN_EMBEDDING, _FIRST_LAYER))
    if known != TEXT:
        return known
    return _BY_TASK.get(task or "", TEXT)


def cannot(kind: str, path: Path | str, why: str) -> ThriftbitError:
    """Return the error of a command that needs a language model and was given something else.

    why: the reason, "it cannot chat"."""
    known = KINDS[kind]
    if Path(path).is_file() or str(path).endswith(".gguf"):
        instead = known.instead.replace("FILE", quoted(str(path)))
    elif _RUNS_A_FILE.search(known.instead):  # a program that takes a GGUF does not take a folder
        name = quoted(Path(path).resolve().name.partition("@")[0])
        instead = f"{known.instead.rstrip('.')}, where FILE is a GGUF of it. `thriftbit find {name}` looks for one."
    else:
        instead = known.instead.replace("FILE", quoted(str(path)))
    return ThriftbitError(f"{path} is {known.what}; {why}. {instead}")

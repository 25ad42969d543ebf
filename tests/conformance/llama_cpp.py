"""llama.cpp for the tests: the very library that Thriftbit runs models with, asked for the logits of every token.

xllamacpp has llama.cpp within, and its extension module exports llama.cpp's own interface (include/llama.h), which is
called here. A structure that is passed by value may be larger than llama.cpp's own, and never smaller: so each has room
at its end for fields that a newer release adds there. Fields that moved would show in the default values, which are
compared before anything else.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_bool, c_char_p, c_float, c_int8, c_int32, c_uint8, c_uint32, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xllamacpp.xllamacpp

from thriftbit.sources.tensor import FloatArray

F32, F16 = 0, 1  # numbers of GGML's types
_NEWER = ("newer_fields", c_uint8 * 256)


class _ModelSettings(Structure):
    _fields_ = [
        ("devices", c_void_p),
        ("buffer_types", c_void_p),
        ("gpu_layers", c_int32),
        ("split_mode", c_int32),
        ("load_mode", c_int32),
        ("lazy_mode", c_int32),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress", c_void_p),
        ("progress_data", c_void_p),
        ("overrides", c_void_p),
        ("vocabulary_only", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_buffer_types", c_bool),
        _NEWER,
    ]


class _ContextSettings(Structure):
    _fields_ = [
        ("context_tokens", c_uint32),
        ("batch_tokens", c_uint32),
        ("physical_batch_tokens", c_uint32),
        ("sequences", c_uint32),
        ("snapshots", c_uint32),
        ("most_outputs", c_uint32),
        ("most_outputs_each", c_uint32),
        ("threads", c_int32),
        ("threads_batch", c_int32),
        ("context_type", c_int32),
        ("rope_scaling_type", c_int32),
        ("pooling_type", c_int32),
        ("attention_type", c_int32),
        ("flash_attention_type", c_int32),
        ("rope", c_float * 6),
        ("original_context_tokens", c_uint32),
        ("defragment_at", c_float),
        ("on_value", c_void_p),
        ("on_value_data", c_void_p),
        ("type_k", c_int32),
        ("type_v", c_int32),
        _NEWER,
    ]


class _Batch(Structure):
    _fields_ = [
        ("tokens_count", c_int32),
        ("tokens", POINTER(c_int32)),
        ("embeddings", POINTER(c_float)),
        ("positions", POINTER(c_int32)),
        ("sequences_count", POINTER(c_int32)),
        ("sequences", POINTER(POINTER(c_int32))),
        ("wanted", POINTER(c_int8)),
    ]


_Log = ctypes.CFUNCTYPE(None, ctypes.c_int, c_char_p, c_void_p)
_said: list[str] = []


@_Log
def _listen(level: int, text: bytes, data: Any) -> None:
    _said.append(text.decode(errors="replace"))


@cache
def library() -> Any:
    """Return llama.cpp, with the types of its functions declared. Its log is kept back."""
    found: Any = ctypes.CDLL(str(Path(xllamacpp.xllamacpp.__file__)))
    for name, result, arguments in (
        ("llama_model_default_params", _ModelSettings, []),
        ("llama_context_default_params", _ContextSettings, []),
        ("llama_model_load_from_file", c_void_p, [c_char_p, _ModelSettings]),
        ("llama_init_from_model", c_void_p, [c_void_p, _ContextSettings]),
        ("llama_model_get_vocab", c_void_p, [c_void_p]),
        ("llama_vocab_n_tokens", c_int32, [c_void_p]),
        ("llama_batch_init", _Batch, [c_int32, c_int32, c_int32]),
        ("llama_batch_free", None, [_Batch]),
        ("llama_decode", c_int32, [c_void_p, _Batch]),
        ("llama_get_logits_ith", POINTER(c_float), [c_void_p, c_int32]),
        ("llama_free", None, [c_void_p]),
        ("llama_model_free", None, [c_void_p]),
        ("llama_log_set", None, [_Log, c_void_p]),
    ):
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    model, context = found.llama_model_default_params(), found.llama_context_default_params()
    assert (model.gpu_layers, model.use_extra_buffer_types, model.check_tensors) == (-1, True, False)
    assert (context.context_tokens, context.batch_tokens, context.sequences) == (512, 2048, 1)
    assert (context.rope_scaling_type, context.flash_attention_type, context.defragment_at) == (-1, -1, -1)
    assert (context.type_k, context.type_v) == (F16, F16)
    found.llama_log_set(_listen, None)
    found.llama_backend_init()
    return found


def logits(path: Path, tokens: list[int], context_tokens: int = 256, cache_type: int = F32) -> FloatArray:
    """Return (tokens, vocabulary), computed in float32 throughout: without flash attention, and without weights in an
    order of their own, which are computed with in fewer bits. Raises RuntimeError with llama.cpp's words if llama.cpp
    does not run the file.
    """
    llama = library()
    _said.clear()
    settings = llama.llama_model_default_params()
    settings.gpu_layers, settings.use_extra_buffer_types = 0, False
    model = llama.llama_model_load_from_file(str(path).encode(), settings)
    if not model:
        raise RuntimeError("".join(_said[-4:]).strip())
    try:
        return _decoded(llama, model, tokens, context_tokens, cache_type)
    finally:
        llama.llama_model_free(model)


def _decoded(llama: Any, model: Any, tokens: list[int], context_tokens: int, cache_type: int) -> FloatArray:
    settings = llama.llama_context_default_params()
    settings.context_tokens = context_tokens
    settings.batch_tokens = settings.physical_batch_tokens = context_tokens
    settings.most_outputs = settings.most_outputs_each = context_tokens
    settings.threads = settings.threads_batch = 1
    settings.type_k = settings.type_v = cache_type
    settings.flash_attention_type = 0
    context = llama.llama_init_from_model(model, settings)
    if not context:
        raise RuntimeError("".join(_said[-4:]).strip())
    batch = llama.llama_batch_init(len(tokens), 0, 1)
    try:
        for place, token in enumerate(tokens):
            batch.tokens[place], batch.positions[place], batch.wanted[place] = token, place, 1
            batch.sequences_count[place] = 1
            batch.sequences[place][0] = 0
        batch.tokens_count = len(tokens)
        if llama.llama_decode(context, batch) != 0:
            raise RuntimeError("".join(_said[-4:]).strip())
        width = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
        rows = [llama.llama_get_logits_ith(context, place) for place in range(len(tokens))]
        return np.stack([np.ctypeslib.as_array(row, (width,)).copy() for row in rows])
    finally:
        llama.llama_batch_free(batch)
        llama.llama_free(context)

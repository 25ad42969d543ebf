"""Gemma 3: normalised queries and keys, five layers in six through a sliding window with a rotary base of their own.

Of the multimodal models the text part is taken; the image tower is another file's business in llama.cpp's world.
"""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.checks import full_attention_every, query_scale
from thriftbit.sources.architectures.gemma_like import AFTER_ATTENTION, FINAL_NORM, FIRST_NORM, GELU_TANH, gemma_norm
from thriftbit.sources.architectures.llama_like import ATTENTION, HEAD, METADATA, RMS_NORM, TOKEN_EMBEDDING

ARCHITECTURE = Architecture(
    classes=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
    model_types=("gemma3_text", "gemma3"),
    gguf_name="gemma3",
    rows=(
        TOKEN_EMBEDDING,
        FIRST_NORM,
        *ATTENTION,
        gemma_norm("self_attn.q_norm", "attn_q_norm", "head"),
        gemma_norm("self_attn.k_norm", "attn_k_norm", "head"),
        *AFTER_ATTENTION,
        FINAL_NORM,
        HEAD,
    ),
    metadata_keys=METADATA | RMS_NORM | {"attention.sliding_window": "sliding_window"},
    optional_metadata_keys={"final_logit_softcapping": "final_logit_softcapping"},
    # What the published configurations of the multimodal models leave out.
    defaults={
        "tie_word_embeddings": True,
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "rms_norm_eps": 1e-6,
        "query_pre_attn_scalar": 256,
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
        "sliding_window": 4096,
    },
    fixed={
        "hidden_activation": GELU_TANH,
        "use_bidirectional_attention": (False,),
    },
    checks=(query_scale(exception_layers=62), full_attention_every(6)),
    windowed=True,
    prefixes={
        "language_model.": "",
        "model.language_model.": "model.",
    },
    ignorable=(r"^(model\.)?(vision_tower|multi_modal_projector)\.",),
)

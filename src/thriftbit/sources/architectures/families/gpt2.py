"""GPT-2: learned positions, fused query, key and value, and transposed matrices.

The matrices of transformers' GPT-2 are (inputs, outputs); every other checkpoint has (outputs, inputs)."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.checks import heads_fill_width
from thriftbit.sources.architectures.kinds import Kind, every_layer
from thriftbit.sources.architectures.layer_cache import attention_cache
from thriftbit.sources.architectures.llama_like import GELU_TANH, LAYER_NORM, METADATA
from thriftbit.sources.architectures.rows import BLOCK, EMBEDDING, OUTPUT, Row, weight_and_bias
from thriftbit.sources.architectures.transforms import TRANSPOSE

LAYER = "transformer.h.{layer}."
ATTENTION = Kind(
    (
        *weight_and_bias(LAYER + "ln_1", BLOCK + "attn_norm", "width"),
        *weight_and_bias(LAYER + "attn.c_attn", BLOCK + "attn_qkv", "width qkv", TRANSPOSE),
        *weight_and_bias(LAYER + "attn.c_proj", BLOCK + "attn_output", "query width", TRANSPOSE),
    ),
    attention_cache,
)
FFN = Kind(
    (
        *weight_and_bias(LAYER + "ln_2", BLOCK + "ffn_norm", "width"),
        *weight_and_bias(LAYER + "mlp.c_fc", BLOCK + "ffn_up", "width ffn", TRANSPOSE),
        *weight_and_bias(LAYER + "mlp.c_proj", BLOCK + "ffn_down", "ffn width", TRANSPOSE),
    )
)

ARCHITECTURE = Architecture(
    classes=("GPT2LMHeadModel",),
    model_types=("gpt2",),
    gguf_name="gpt2",
    before=(
        Row("transformer.wte.weight", EMBEDDING, "vocabulary width"),
        Row("transformer.wpe.weight", "position_embd.weight", "context width"),
    ),
    layers=every_layer(ATTENTION, FFN),
    after=(
        *weight_and_bias("transformer.ln_f", "output_norm", "width"),
        Row("lm_head.weight", OUTPUT, "vocabulary width"),
    ),
    metadata_keys=METADATA | LAYER_NORM,
    aliases={
        "n_embd": "hidden_size",
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "n_positions": "max_position_embeddings",
        "n_inner": "intermediate_size",
        "layer_norm_epsilon": "layer_norm_eps",
    },
    defaults={
        "tie_word_embeddings": True,
        "layer_norm_eps": 1e-5,
        "intermediate_size": lambda configuration: 4 * configuration.integer("hidden_size"),
    },
    fixed={
        "activation_function": GELU_TANH,
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    },
    checks=(heads_fill_width,),
    rope_types=None,
    # The first published checkpoints are of the bare model, and hold the causal mask of every layer.
    prefixes={
        "h.": "transformer.h.",
        "wte.": "transformer.wte.",
        "wpe.": "transformer.wpe.",
        "ln_f.": "transformer.ln_f.",
    },
    ignorable=(r"^(transformer\.)?h\.\d+\.attn\.bias$",),
)

"""Gemma 4: full and sliding layers with different sizes of heads, per-layer embeddings or experts in some models, and
layers that use the keys and values of earlier ones. Only the text part of multimodal models is taken."""

from collections.abc import Mapping
from typing import Any

from thriftbit.sources.architectures import per_layer
from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.configuration import Configuration
from thriftbit.sources.architectures.dimensions import MOST_LAYERS, Dimensions
from thriftbit.sources.architectures.gemma_like import GELU_TANH
from thriftbit.sources.architectures.keys import Value, kinds_of_layers
from thriftbit.sources.architectures.kinds import Kind, layer_of
from thriftbit.sources.architectures.layer_cache import LayerCache
from thriftbit.sources.architectures.llama_like import ATTENTION_OUTPUT, GATED_FFN, METADATA, RMS_NORM
from thriftbit.sources.architectures.rope import PROPORTIONAL
from thriftbit.sources.architectures.rows import TOKEN_EMBEDDING, layer, norm

PATTERN = "attention.sliding_window_pattern"
IS_SLIDING = kinds_of_layers("layer_types", is_kind="sliding_attention")


def head(model: Dimensions) -> int:
    return model.number("attention.key_length_swa" if model.flag(PATTERN) else "attention.key_length")


def cache(model: Dimensions) -> LayerCache:
    width = model.number("attention.head_count_kv") * head(model)
    return LayerCache(width, width, model.number("attention.sliding_window") if model.flag(PATTERN) else 0)


QUERY = Kind(
    (
        layer("self_attn.q_proj.weight", "attn_q.weight", "query width"),
        norm("self_attn.q_norm", "attn_q_norm", "head"),
        ATTENTION_OUTPUT,
    )
)


def keys_and_values(*, optional: bool, values_when: str) -> Kind:
    """Return the rows of keys and values. optional: for a layer that uses those of an earlier layer; some published
    files have its own nonetheless."""
    keys = layer("self_attn.k_proj.weight", "attn_k.weight", "key_value width", optional=optional)
    key_norm = layer("self_attn.k_norm.weight", "attn_k_norm.weight", "head", optional=optional)
    values = layer("self_attn.v_proj.weight", "attn_v.weight", "key_value width", when=values_when, optional=optional)
    return Kind((keys, key_norm, values)) if optional else Kind((keys, key_norm, values), cache)


FEED_FORWARD = layer_of(
    norm("post_attention_layernorm", "post_attention_norm"),
    norm("pre_feedforward_layernorm", "ffn_norm"),
    GATED_FFN,
    norm("post_feedforward_layernorm", "post_ffw_norm"),
    layer("layer_scalar", "layer_output_scale.weight", "1"),
)
EXPERTS = layer_of(
    layer("router.proj.weight", "ffn_gate_inp.weight", "experts width"),
    layer("router.scale", "ffn_gate_inp.scale", "width"),
    layer("router.per_expert_scale", "ffn_down_exps.scale", "experts"),
    layer("experts.gate_up_proj", "ffn_gate_up_exps.weight", "experts expert_gate_up width"),
    layer("experts.down_proj", "ffn_down_exps.weight", "experts width expert_ffn"),
    norm("post_feedforward_layernorm_1", "post_ffw_norm_1"),
    norm("post_feedforward_layernorm_2", "post_ffw_norm_2"),
    norm("pre_feedforward_layernorm_2", "pre_ffw_norm_2"),
)


def layers(model: Dimensions) -> list[Kind]:
    shared = model.layers - model.number("attention.shared_kv_layers", 0, least=0)
    more = [per_layer.MIXED_IN] if per_layer.has_per_layer_inputs(model) else []
    more += [EXPERTS] if model.experts else []
    kinds = {
        (full, used): layer_of(
            norm("input_layernorm", "attn_norm"),
            QUERY,
            keys_and_values(optional=used, values_when="values_of_full_layers" if full else ""),
            FEED_FORWARD,
            *more,
        )
        for full in (False, True)
        for used in (False, True)
    }
    return [kinds[not model.at(number).flag(PATTERN), number >= shared] for number in range(model.layers)]


def of_full_layers(key: str, default: str | int) -> Any:
    """Return a default that is read from "per_layer_config", where some releases of transformers store settings."""

    def found(configuration: Configuration) -> Any:
        stored = configuration.get("per_layer_config")
        each = stored.values() if isinstance(stored, Mapping) else ()
        listed = [entry[key] for entry in each if isinstance(entry, Mapping) and isinstance(entry.get(key), int)]
        return max(listed) if listed else configuration.get(default) if isinstance(default, str) else default

    return found


def shared_heads(configuration: Configuration) -> Value:
    """Return the number of heads of keys and values: one number, or one for each layer where full attention differs."""
    sliding = configuration.integer("num_key_value_heads")
    full = configuration.get("num_global_key_value_heads") and configuration.integer("num_global_key_value_heads")
    if not full or not configuration.flag("attention_k_eq_v"):
        return sliding
    return [sliding if slides else full for slides in IS_SLIDING(configuration)]


def widths_of_ffn(configuration: Configuration) -> Value:
    """Return the width of feed-forward networks: one number, or a list with twice the width in layers that use the keys
    and values of earlier ones."""
    width, layers = configuration.integer("intermediate_size"), configuration.integer("num_hidden_layers")
    if not configuration.flag("use_double_wide_mlp"):
        return width
    first = layers - configuration.integer("num_kv_shared_layers")
    return [width if number < first else 2 * width for number in range(min(layers, MOST_LAYERS))]


def layer_types(configuration: Configuration) -> list[str]:
    layers = min(configuration.integer("num_hidden_layers"), MOST_LAYERS)
    full = [number for number in range(layers) if number % 6 == 5 or number == layers - 1]
    return ["full_attention" if number in full else "sliding_attention" for number in range(layers)]


def restored(stated: Mapping[str, Any]) -> dict[str, Any]:
    slides = stated[PATTERN]
    shared = stated["attention.head_count_kv"]
    ffn = stated["feed_forward_length"]
    heads = shared if isinstance(shared, list) else [shared] * len(slides)
    values = any(f"blk.{n}.attn_v.weight" in stated["tensors"] for n, each in enumerate(slides) if not each)
    return {
        "final_logit_softcapping": stated.get("final_logit_softcapping", 30.0) or None,
        "head_dim": stated["attention.key_length_swa"],
        "global_head_dim": stated["attention.key_length"],
        "num_key_value_heads": next((n for n, each in zip(heads, slides, strict=True) if each), heads[0]),
        "num_global_key_value_heads": next((n for n, each in zip(heads, slides, strict=True) if not each), None),
        "attention_k_eq_v": not values,
        "layer_types": ["sliding_attention" if each else "full_attention" for each in slides],
        "intermediate_size": ffn[0] if isinstance(ffn, list) else ffn,
        "use_double_wide_mlp": isinstance(ffn, list) and ffn[0] != ffn[-1],
        "enable_moe_block": "expert_count" in stated,
        "num_experts": stated.get("expert_count"),
        "top_k_experts": stated.get("expert_used_count"),
        "moe_intermediate_size": stated.get("expert_feed_forward_length"),
    }


def with_experts(setting: str) -> Any:
    return lambda configuration: configuration.integer(setting) if configuration.flag("enable_moe_block") else None


def computes_the_same(configuration: Configuration, model: Dimensions) -> str | None:
    types = configuration.get("layer_types")
    if not isinstance(types, list) or not types or types[-1] != "full_attention":
        return "layer_types does not end in full attention, which transformers changes and llama.cpp does not."
    vocabulary = configuration.get("vocab_size_per_layer_input", model.vocabulary)
    if per_layer.has_per_layer_inputs(model) and vocabulary != model.vocabulary:
        return f"vocab_size_per_layer_input is {vocabulary}, and llama.cpp wants all {model.vocabulary} tokens."
    if configuration.integer("head_dim") % 2:
        return f"head_dim is {configuration.integer('head_dim')}; the entries of a head turn in pairs."
    slides = IS_SLIDING(configuration)
    if not any(slides):
        return "layer_types has no sliding attention, without which llama.cpp's gemma4 does not run."
    shared = model.number("attention.shared_kv_layers", 0, least=0)
    if shared and slides[-shared - 2 : -shared] != [True, False]:
        return (
            "of the layers that keep keys and values, the last two are not sliding and full, as llama.cpp takes them."
        )
    return None


ARCHITECTURE = Architecture(
    classes=("Gemma4ForConditionalGeneration", "Gemma4ForCausalLM"),
    model_types=("gemma4_text", "gemma4"),
    gguf_name="gemma4",
    before=(TOKEN_EMBEDDING, *per_layer.BEFORE),
    layers=layers,
    lengths={
        **per_layer.LENGTHS,
        "head": head,
        "query": lambda model: model.heads * head(model),
        "key_value": lambda model: model.key_value_heads * head(model),
    },
    metadata_keys=METADATA
    | RMS_NORM
    | {
        "feed_forward_length": widths_of_ffn,
        "attention.head_count_kv": shared_heads,
        "attention.key_length": "global_head_dim",
        "attention.value_length": "global_head_dim",
        "attention.key_length_swa": "head_dim",
        "attention.value_length_swa": "head_dim",
        "attention.sliding_window": "sliding_window",
        "attention.shared_kv_layers": "num_kv_shared_layers",
        PATTERN: IS_SLIDING,
        per_layer.KEY: "hidden_size_per_layer_input",
        "rope.dimension_count_swa": "head_dim",
        # Without the key llama.cpp caps logits at 30, with 0 it does not.
        "final_logit_softcapping": lambda configuration: (
            configuration.number("final_logit_softcapping") if configuration.get("final_logit_softcapping") else 0.0
        ),
        "expert_count": with_experts("num_experts"),
        "expert_used_count": with_experts("top_k_experts"),
        "expert_feed_forward_length": with_experts("moe_intermediate_size"),
    },
    restored=restored,
    defaults={
        "tie_word_embeddings": True,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 131072,
        "head_dim": 256,
        "global_head_dim": of_full_layers("head_dim", 512),
        "num_global_key_value_heads": of_full_layers("num_key_value_heads", "num_global_key_value_heads"),
        "num_kv_shared_layers": 0,
        "hidden_size_per_layer_input": 256,
        per_layer.SETTING: lambda configuration: configuration.integer("hidden_size_per_layer_input") > 0,
        "sliding_window": 512,
        "layer_types": layer_types,
        "values_of_full_layers": lambda configuration: not configuration.flag("attention_k_eq_v"),
        "rope_parameters": {
            "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    },
    fixed={"hidden_activation": GELU_TANH, "use_bidirectional_attention": ("vision",), "attention_bias": (False,)},
    checks=(computes_the_same,),
    rope_types=frozenset({PROPORTIONAL}),
)

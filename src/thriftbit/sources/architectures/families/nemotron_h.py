"""Nemotron-H and Nemotron Nano 2: every layer is either a state space, or attention, or a feed-forward network."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from thriftbit.sources.architectures import mamba
from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.checks import some_layer_is_recurrent
from thriftbit.sources.architectures.configuration import Configuration
from thriftbit.sources.architectures.dimensions import Dimensions
from thriftbit.sources.architectures.keys import Setting
from thriftbit.sources.architectures.kinds import Kind, layer_of
from thriftbit.sources.architectures.layer_cache import attention_cache
from thriftbit.sources.architectures.llama_like import METADATA, SILU
from thriftbit.sources.architectures.rows import HEAD, Row, layer, norm
from thriftbit.sources.architectures.transforms import INTERLEAVE_KEY, INTERLEAVE_QUERY

NORM = norm("norm", "attn_norm")
STATE_SPACE = layer_of(NORM, mamba.state_space("mixer", "use_conv_bias"))
# There are no rotary embeddings, but llama.cpp's converter reorders queries and keys nonetheless, both alike.
ATTENTION = Kind(
    (
        layer("mixer.q_proj.weight", "attn_q.weight", "query width", INTERLEAVE_QUERY),
        layer("mixer.k_proj.weight", "attn_k.weight", "key_value width", INTERLEAVE_KEY),
        layer("mixer.v_proj.weight", "attn_v.weight", "key_value width"),
        layer("mixer.o_proj.weight", "attn_output.weight", "width query"),
    ),
    attention_cache,
)
DENSE = Kind(
    (
        layer("mixer.up_proj.weight", "ffn_up.weight", "ffn width"),
        layer("mixer.down_proj.weight", "ffn_down.weight", "width ffn"),
    )
)
LETTERS = {"M": "linear_attention", "*": "full_attention", "-": "mlp", "E": "moe"}
FEEDING_FORWARD = ("mlp", "moe")


def layers_with(feed_forward: Kind) -> Any:
    """Return the rule for the order of layers. A layer without key heads and without a feed-forward network is
    recurrent."""

    def layers(model: Dimensions) -> list[Kind]:
        def kind(number: int) -> Kind:
            if model.at(number).number("feed_forward_length", least=0):
                return layer_of(NORM, feed_forward)
            return layer_of(NORM, ATTENTION) if mamba.attends(model, number) else STATE_SPACE

        return [kind(number) for number in range(model.layers)]

    return layers


def layer_types(configuration: Configuration) -> list[str] | None:
    """Return the kind of every layer. Older configurations have a letter for each."""
    pattern = configuration.get("hybrid_override_pattern")
    return [LETTERS.get(letter, letter) for letter in pattern] if isinstance(pattern, str) else None


def has_experts(config: Mapping[str, Any]) -> bool:
    pattern = config.get("hybrid_override_pattern")
    return "moe" in mamba.kinds_of_layers(config, "layers_block_type") or (isinstance(pattern, str) and "E" in pattern)


def widths(setting: str) -> Callable[[Configuration], list[int]]:
    """Return the GGUF list with the width of each layer's feed-forward network, 0 for other layers."""

    def listed(configuration: Configuration) -> list[int]:
        kinds = configuration.listed("layer_types", configuration.integer("num_hidden_layers"))
        return [configuration.integer(setting) if kind in FEEDING_FORWARD else 0 for kind in kinds]

    return listed


def restored(stated: Mapping[str, Any]) -> dict[str, Any]:
    layers = stated["block_count"] - stated.get("nextn_predict_layers", 0)
    pairs = list(zip(stated["attention.head_count_kv"], stated["feed_forward_length"], strict=True))[:layers]
    wide = "moe" if "expert_count" in stated else "mlp"
    kinds = [wide if ffn else "full_attention" if heads else "linear_attention" for heads, ffn in pairs]
    return {
        "max_position_embeddings": stated["context_length"],
        "layers_block_type": kinds,
        "layer_types": kinds,
        "num_key_value_heads": max(heads for heads, _ in pairs),
        "intermediate_size": max(ffn for _, ffn in pairs),
        "time_step_min": 1e-9,  # llama.cpp has no smallest time step
        "mamba_head_dim": stated["ssm.inner_size"] // stated["ssm.time_step_rank"],
    }


def smallest_step(configuration: Configuration) -> Collection[str]:
    if not configuration.get("time_step_min"):
        return ()
    return (
        f"transformers takes no time step below {configuration.number('time_step_min'):g} (time_step_min); "
        "llama.cpp and NVIDIA's own code do.",
    )


def one_kind_of_ffn(configuration: Configuration, model: Dimensions) -> str | None:
    kinds = configuration.get("layer_types") or []
    if "moe" in kinds and "mlp" in kinds:
        return "layers_block_type has both 'mlp' and 'moe', and llama.cpp takes all feed-forward networks alike."
    unknown = sorted({str(kind) for kind in kinds} - {*mamba.RECURRENT, *mamba.ATTENDING, *FEEDING_FORWARD})
    return f"layers_block_type has {', '.join(unknown)}, which is no kind of layer." if unknown else None


BEFORE = (Row("model.embeddings.weight", "token_embd.weight", "vocabulary width"),)
AFTER = (Row("model.norm_f.weight", "output_norm.weight", "width"), HEAD)
METADATA_KEYS: dict[str, Setting] = METADATA | {
    "context_length": lambda configuration: mamba.LONGEST_TEXT,
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon": "layer_norm_epsilon",  # releases of llama.cpp before 2026 ask for it
    "attention.head_count_kv": mamba.key_value_heads("layer_types"),
    "ssm.conv_kernel": "conv_kernel",
    "ssm.state_size": "ssm_state_size",
    "ssm.group_count": "n_groups",
    "ssm.inner_size": lambda configuration: (
        configuration.integer("mamba_num_heads") * configuration.integer("mamba_head_dim")
    ),
    "ssm.time_step_rank": "mamba_num_heads",
    "rope.dimension_count": lambda configuration: (  # written by llama.cpp's converter as well; nothing is rotated
        configuration.integer("hidden_size") // max(1, configuration.integer("num_attention_heads"))
    ),
    "rope.scaling.finetuned": lambda configuration: False,
}
DEFAULTS: dict[str, Any] = {
    "tie_word_embeddings": False,
    "layer_norm_epsilon": 1e-5,
    "head_dim": 128,
    "num_key_value_heads": 8,
    "conv_kernel": 4,
    "n_groups": 8,
    "ssm_state_size": 128,
    "mamba_num_heads": 128,
    "mamba_head_dim": 64,
    "use_conv_bias": True,
    "time_step_min": 0.001,
    "layer_types": layer_types,
    "num_hidden_layers": lambda configuration: len(configuration.get("layer_types") or []),
}
ALIASES = {
    "layers_block_type": "layer_types",
    "attention_head_dim": "head_dim",
    "mamba_d_conv": "conv_kernel",
    "mamba_n_groups": "n_groups",
    "norm_eps": "layer_norm_epsilon",
}
FIXED: dict[str, tuple[Any, ...]] = {
    "mlp_hidden_act": ("relu2",),
    "mamba_hidden_act": SILU,
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "use_bias": (False,),
    "mamba_proj_bias": (False,),
    "use_conv_bias": (True,),
}

ARCHITECTURE = Architecture(
    classes=("NemotronHForCausalLM",),
    model_types=("nemotron_h",),
    gguf_name="nemotron_h",
    applies=lambda config: not has_experts(config),
    before=BEFORE,
    layers=layers_with(DENSE),
    after=AFTER,
    lengths=mamba.LENGTHS,
    metadata_keys=METADATA_KEYS | {"feed_forward_length": widths("intermediate_size")},
    restored=restored,
    aliases=ALIASES,
    defaults=DEFAULTS,
    fixed=FIXED,
    checks=(one_kind_of_ffn, some_layer_is_recurrent(*mamba.RECURRENT)),
    notes=smallest_step,
    rope_types=None,
    prefixes={"backbone.": "model."},
)

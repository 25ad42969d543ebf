"""What a tensor does in the network, told from its GGUF name.

All architectures are translated into GGUF names, so one table serves checkpoints and GGUF files. Names that end in a
bias or a norm have that role everywhere. The role of any other tensor follows from the part of its name between
`blk.<layer>.` and `.weight`."""

from __future__ import annotations

import re

ROLES = {
    "token_embd": "token-embedding",
    "position_embd": "position-embedding",
    "output": "output",
    "attn_q": "attention-query",
    "attn_k": "attention-key",
    "attn_v": "attention-value",
    "attn_qkv": "attention-qkv",
    "attn_output": "attention-output",
    "ffn_gate": "ffn-gate",
    "ffn_up": "ffn-up",
    "ffn_down": "ffn-down",
    "ffn_gate_inp": "router",
    "ffn_gate_exps": "ffn-gate-experts",
    "ffn_up_exps": "ffn-up-experts",
    "ffn_down_exps": "ffn-down-experts",
    "ffn_gate_shexp": "ffn-gate-shared",
    "ffn_up_shexp": "ffn-up-shared",
    "ffn_down_shexp": "ffn-down-shared",
    "attn_sinks": "attention-sinks",
    "attn_gate": "attention-gate",
    "attn_q_a": "attention-query-first",
    "attn_q_b": "attention-query",
    "attn_kv_a_mqa": "attention-key-value-first",
    "attn_k_b": "attention-key",
    "attn_v_b": "attention-value",
    "exp_probs_b": "router",
    "ffn_gate_inp_shexp": "router",
    "ssm_in": "recurrent-in",
    "ssm_alpha": "recurrent-decay",
    "ssm_beta": "recurrent-gate",
    "ssm_ba": "recurrent-gate",
    "ssm_conv1d": "convolution",
    "ssm_dt": "recurrent-decay",
    "ssm_a": "recurrent-decay",
    "ssm_d": "recurrent-decay",
    "ssm_out": "recurrent-out",
    "ffn_latent_down": "expert-in",
    "ffn_latent_up": "expert-out",
    "shortconv.conv": "convolution",
    "shortconv.in_proj": "recurrent-in",
    "shortconv.out_proj": "recurrent-out",
    "nextn.eh_proj": "next-token-in",
    "nextn.embed_tokens": "token-embedding",
    "nextn.shared_head_head": "output",
    "per_layer_token_embd": "token-embedding",
    "per_layer_model_proj": "per-layer-in",
    "inp_gate": "per-layer-gate",
    "proj": "per-layer-out",
    "layer_output_scale": "scale",
    "ffn_gate_up_exps": "ffn-up-experts",
    "rope_freqs": "rope-factors",
    "rope_factors_long": "rope-factors",
    "rope_factors_short": "rope-factors",
}


def role_of(gguf_name: str) -> str:
    """Return the role of a tensor: "attention-query" for "blk.3.attn_q.weight". Names that the table lacks have the
    role ""."""
    stem, _, kind = gguf_name.rpartition(".")
    if kind not in ("weight", "bias", "scale"):  # a few have no such ending
        stem, kind = gguf_name, ""
    leaf = re.sub(r"^blk\.\d+\.", "", stem)
    if kind == "scale":
        return "scale"
    if kind == "bias" and leaf not in ("exp_probs_b", "ssm_dt"):
        return "bias"
    if re.search(r"norm(_\d)?$", leaf):
        return "norm"
    return ROLES.get(leaf, "")

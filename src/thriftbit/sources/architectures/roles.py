"""What a tensor does in the network, told from its GGUF name.

GGUF names are the one vocabulary every architecture is translated into, so one table serves them all, and models that
arrive as GGUF files too. A bias is a bias and a norm is a norm wherever it stands; every other tensor is named by the
leaf between `blk.<layer>.` and `.weight`.
"""

from __future__ import annotations

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
    "rope_freqs": "rope-factors",
    "rope_factors_long": "rope-factors",
    "rope_factors_short": "rope-factors",
}


def role_of(gguf_name: str) -> str:
    """ "blk.3.attn_q.weight" -> "attention-query". A name no table row knows has the role ""."""
    stem, _, kind = gguf_name.rpartition(".")
    leaf = stem.rpartition(".")[2]
    if kind == "bias":
        return "bias"
    if leaf.endswith("norm"):
        return "norm"
    return ROLES.get(leaf, "")

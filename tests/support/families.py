"""Configurations of tiny models, one for each architecture."""

from typing import Any

Json = dict[str, Any]

LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
LAYERS = ["sliding_attention", "full_attention"]
WINDOW: Json = {"layer_types": LAYERS, "sliding_window": 64}
EXPERTS: Json = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
YARN: Json = {
    "num_experts_per_tok": 2,
    "rope_parameters": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64, "rope_theta": 1e4},
    "max_position_embeddings": 128,
}
FAMILIES: dict[str, Json] = {
    "llama": LLAMA,
    "mistral": {**LLAMA, "model_type": "mistral", "sliding_window": None},
    "qwen2": {**LLAMA, "model_type": "qwen2"},
    "qwen3": {**LLAMA, "model_type": "qwen3", "head_dim": 8},
    "gemma": {**LLAMA, "model_type": "gemma", "head_dim": 8},
    "gemma3_text": {**LLAMA, "model_type": "gemma3_text", "head_dim": 8, "sliding_window": 64},
    "smollm3": {**LLAMA, "model_type": "smollm3", "no_rope_layers": [1, 0]},
    "phi3": {**LLAMA, "model_type": "phi3"},
    "olmo2": {**LLAMA, "model_type": "olmo2"},
    "olmo3": {**LLAMA, "model_type": "olmo3", **WINDOW},
    "mixtral": {**LLAMA, "model_type": "mixtral", "num_local_experts": 4, "sliding_window": None},
    "qwen2_moe": {**LLAMA, **EXPERTS, "model_type": "qwen2_moe", "shared_expert_intermediate_size": 16},
    "qwen3_moe": {**LLAMA, **EXPERTS, "model_type": "qwen3_moe", "head_dim": 8},
    "gpt_oss": {**LLAMA, "model_type": "gpt_oss", "head_dim": 8, "num_local_experts": 4, **WINDOW, **YARN},
    "gpt2": {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4},
    "gpt_neox": {
        "model_type": "gpt_neox",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    # All that is unusual in OPT-350m: a projection around the decoder, normalization after each block, positions
    # with an offset.
    "opt": {
        "model_type": "opt",
        "hidden_size": 32,
        "word_embed_proj_dim": 16,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "do_layer_norm_before": False,
        "max_position_embeddings": 128,
    },
}
MIXTURES = {"gpt_oss", "mixtral", "qwen2_moe", "qwen3_moe"}
"""Those with experts."""
WINDOWED: dict[str, Json] = {
    **{name: {"sliding_window": 7} for name in ("mistral", "mixtral", "phi3", "gemma3_text", "olmo3", "gpt_oss")},
    **{name: {"sliding_window": 7, "use_sliding_window": True, "layer_types": LAYERS} for name in ("qwen2", "qwen3")},
    "smollm3": {"sliding_window": 7, "use_sliding_window": True, "layer_types": LAYERS},
    "qwen3_moe": {"sliding_window": 7, "use_sliding_window": True},
}
"""What gives them a sliding window that is shorter than most sequences."""
PADDED: dict[str, Json] = {
    "bloom": {"model_type": "bloom", "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "bert": {
        "model_type": "bert",
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    },
}
"""Models that cannot share prefixes."""

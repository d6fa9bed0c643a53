"""Small reward models with a tokenizer, in folders as anyone may have them."""

import json
from pathlib import Path

import torch
from transformers import AutoModel, PreTrainedModel

from rewardline.model.loading import load_base, save_reward_model
from rewardline.tokens.tokenizer import load_tokenizer


def reward_model(base: Path, folder: Path, seed: int = 0) -> PreTrainedModel:
    """A base model with a score head whose scores spread, saved as a plain sequence classifier."""
    tokenizer = load_tokenizer(base)
    model = load_base(base, tokenizer, seed=seed).eval()
    with torch.no_grad():
        model.get_submodule("score").weight.normal_(generator=torch.Generator().manual_seed(seed))
    save_reward_model(model, tokenizer, folder)
    return model


def deepspeed_chat(
    base: Path, folder: Path, name: str = "rwtransformer", dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, torch.Tensor]:
    """A folder as the second step of DeepSpeed-Chat leaves it; returns its transformer and its value head [1, size]."""
    folder.mkdir()
    model = AutoModel.from_pretrained(base).to(dtype).eval()
    size = getattr(model.config, "word_embed_proj_dim", model.config.hidden_size)
    head = torch.randn(1, size, generator=torch.Generator().manual_seed(1)).to(dtype)
    weights = {f"{name}.{key}": value.clone() for key, value in model.state_dict().items()}
    torch.save({**weights, "v_head.weight": head}, folder / "pytorch_model.bin")
    config = {**model.config.to_dict(), "_name_or_path": str(base)}
    (folder / "config.json").write_text(json.dumps(config))
    return model, head

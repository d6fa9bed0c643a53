"""What all programs know of a model's folder."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from rewardline.core.errors import UserError
from rewardline.model.base import prepare
from rewardline.model.external import load_any
from rewardline.model.folder import usable_positions
from rewardline.model.loading import load_base
from rewardline.model.reward_model import RewardModel
from rewardline.model.settings import BaseModelSettings
from rewardline.tokens.tokenizer import load_tokenizer

from support.families import FAMILIES

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
ENCODERS = ("bert", "roberta", "xlm-roberta", "camembert", "mpnet", "roberta-prelayernorm", "data2vec-text", "electra")


def made(kind: str) -> Any:
    names = {**SIZES, "max_position_embeddings": 66}
    if kind in ("opt", "gpt2"):
        names = {**FAMILIES[kind], ("n_positions" if kind == "gpt2" else "max_position_embeddings"): 66}
    config = AutoConfig.for_model(**{"model_type": kind, **names}, vocab_size=90, num_labels=1, pad_token_id=1)
    return AutoModelForSequenceClassification.from_config(config).eval()


@pytest.mark.parametrize("kind", [*ENCODERS, "opt", "gpt2"])
def test_all_usable_positions_can_be_used_and_no_more(kind: str) -> None:
    model = made(kind)
    positions = usable_positions(model)
    assert positions == (64 if "roberta" in kind or kind in ("camembert", "mpnet", "data2vec-text") else 66)
    assert torch.isfinite(model(input_ids=torch.full((1, positions), 7)).logits).all()
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, positions + 1), 7))
    with pytest.raises(UserError, match=f"has {positions} usable positions; set max_length to {positions} or less"):
        RewardModel(model, max_length=positions + 1)


def test_what_is_no_model_is_refused_at_every_door(tmp_path: Path, base_models: Callable[..., Path]) -> None:
    base = base_models("llama")
    adapter, several, foreign = (tmp_path / name for name in ("adapter", "several", "foreign"))
    for folder in (adapter, several, foreign):
        shutil.copytree(base, folder)
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "some/other"}')
    AutoModelForSequenceClassification.from_pretrained(base, num_labels=3).save_pretrained(several)
    config = AutoConfig.from_pretrained(base)
    config.vocab_size, config.num_labels = 50, 1
    AutoModelForSequenceClassification.from_config(config).save_pretrained(foreign)
    for folder, message in (
        (adapter, "holds a LoRA adapter"),
        (several, "is a classifier with 3 labels"),
        (foreign, "the model embeddings for 50: they do not belong together"),
    ):
        out = tmp_path / f"{folder.name}-out"
        out.mkdir()
        with pytest.raises(UserError, match=message):
            prepare(BaseModelSettings.model_validate({"path": str(folder)}), None, out)
        with pytest.raises(UserError, match=message):
            load_base(folder, load_tokenizer(base), seed=0)
    for folder in (adapter, several):
        with pytest.raises(UserError, match=r"adapter|3 labels"):
            load_any(folder)

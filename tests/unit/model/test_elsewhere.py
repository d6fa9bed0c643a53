"""What other programs read in an exported folder; docs/publishing.md says which were run and which were read."""

import json
from collections.abc import Callable
from pathlib import Path
from pydoc import locate
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
)

from rewardline.model.loading import load_base, older_layers, save_reward_model
from rewardline.tokens.tokenizer import load_tokenizer

Json = dict[str, Any]
SIZES: Json = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64}
ENCODER = "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size max_position_embeddings"
LABELS = "architectures model_type id2label label2id initializer_range pad_token_id"
BERT = f"{ENCODER} {LABELS} hidden_act hidden_dropout_prob type_vocab_size layer_norm_eps"
NEEDED = {
    "bert": (BERT, "bert.pooler.dense.weight classifier.weight classifier.bias"),
    "roberta": (BERT, "classifier.dense.weight classifier.dense.bias classifier.out_proj.weight"),
    "xlm-roberta": (BERT, "classifier.dense.weight classifier.dense.bias classifier.out_proj.weight"),
    "modernbert": (
        f"{ENCODER} {LABELS} hidden_activation initializer_cutoff_factor norm_eps norm_bias eos_token_id bos_token_id"
        " cls_token_id sep_token_id global_rope_theta local_rope_theta global_attn_every_n_layers local_attention"
        " attention_bias attention_dropout classifier_activation",
        "head.dense.weight head.norm.weight classifier.weight classifier.bias model.final_norm.weight",
    ),
}
"""Keys that must have a value for text-embeddings-inference, and weights that it reads beside the transformer's."""


def exported(base: Path, folder: Path) -> tuple[Json, set[str]]:
    """The configuration and the names of the weights of a reward model from `base`, saved in `folder`."""
    tokenizer = load_tokenizer(base)
    save_reward_model(load_base(base, tokenizer, seed=0), tokenizer, folder)
    with safe_open(folder / "model.safetensors", "pt") as weights:
        return json.loads((folder / "config.json").read_text()), set(weights.keys())


def masked_language_model(kind: str, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """A base model as encoders are published."""
    ids = {f"{name}_token_id": 0 for name in ("bos", "eos", "cls", "sep")}
    config = AutoConfig.for_model(kind, **SIZES, **ids, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", NEEDED)
def test_text_embeddings_inference_finds_what_it_needs(
    kind: str, tmp_path: Path, base_models: Callable[..., Path]
) -> None:
    base = masked_language_model(kind, load_tokenizer(base_models("llama")), tmp_path / "base")
    config, weights = exported(base, tmp_path / "m")
    keys, names = NEEDED[kind]
    assert [key for key in keys.split() if config.get(key) is None] == []
    assert set(names.split()) <= weights
    assert config["architectures"][0].endswith("ForSequenceClassification")


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "bert"])
def test_other_programs_return_the_score_without_a_sigmoid(
    family: str, tmp_path: Path, base_models: Callable[..., Path]
) -> None:
    config, weights = exported(base_models(family), tmp_path / "m")
    assert config["problem_type"] == "regression"  # where vLLM looks
    name: str = config["sentence_transformers"]["activation_fn"]  # and CrossEncoder, and vLLM before
    assert name.startswith("torch.nn.modules.")  # it takes no other
    assert locate(name) is torch.nn.Identity
    assert (config["id2label"], config["label2id"]) == ({"0": "LABEL_0"}, {"LABEL_0": 0})
    assert {"score.weight", "classifier.weight"} & weights
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m")
    again.save_pretrained(tmp_path / "again")  # as after more training with TRL
    kept = json.loads((tmp_path / "again" / "config.json").read_text())
    for key in ("problem_type", "sentence_transformers", "rewardline"):
        assert kept[key] == config[key]


@pytest.mark.parametrize(("every", "layers"), [(3, 22), (2, 4), (1, 3), (5, 4)])
def test_modernbert_has_the_same_layers_in_older_transformers(every: int, layers: int) -> None:
    config = AutoConfig.for_model("modernbert", num_hidden_layers=layers, global_attn_every_n_layers=every)
    older = older_layers(config.to_dict())["global_attn_every_n_layers"]
    assert isinstance(older, int)
    full = [k % older == 0 for k in range(layers)]
    assert full == [kind == "full_attention" for kind in config.layer_types]

"""An exported folder gives the same tokens and scores in transformers 4.57 as in the version of this environment."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
import trl
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from rewardline.model.loading import CHECKED_IN_4, ROPE_IN_4, runs_in_transformers_4, save_reward_model
from rewardline.tokens.encoder import ConversationEncoder
from rewardline.tokens.tokenizer import load_tokenizer

from support.families import FAMILIES, LLAMA, PADDED

Json = dict[str, Any]
PACKAGES = "transformers==4.57.6", "tokenizers==0.22.2", "huggingface-hub==0.36.2"
PROGRAM = """
import json, sys, torch, transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer

assert transformers.__version__.startswith("4.57."), transformers.__version__
conversations = json.loads(sys.argv[1])
for folder in sys.argv[2:]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model, info = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    batch = tokenizer.apply_chat_template(conversations, padding=True, return_dict=True, return_tensors="pt")
    with torch.no_grad():
        scores = model.eval()(**batch).logits[:, 0]
    lost = [str(key) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in info[kind]]
    ids = [row[mask.bool()].tolist() for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    print(json.dumps({"lost": lost, "ids": ids, "scores": scores.tolist()}))
"""
ENCODER: Json = {**PADDED["bert"], "num_hidden_layers": 2}
CONFIGS = {
    **FAMILIES,
    **PADDED,
    "opt": {**FAMILIES["opt"], "max_position_embeddings": 512},
    "roberta": {**ENCODER, "model_type": "roberta", "max_position_embeddings": 514},
    "modernbert": {
        **ENCODER,
        "model_type": "modernbert",
        "num_hidden_layers": 4,
        "local_attention": 16,
        "global_attn_every_n_layers": 2,
    },
}
ROPES: dict[str, Json] = {
    "default": {},
    "linear": {"factor": 8.0},
    "dynamic": {"factor": 2.0, "original_max_position_embeddings": 512},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 512},
}
TWO_ROPES: Json = {
    "full_attention": {"rope_type": "linear", "rope_theta": 50.0, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 3.0},
}
MODELS: dict[str, Json] = {
    **{name: CONFIGS[name] for name in CHECKED_IN_4},
    **{
        f"llama-{kind}": {**LLAMA, "rope_parameters": {"rope_type": kind, "rope_theta": 50.0, **ROPES[kind]}}
        for kind in ROPE_IN_4
    },
    "gemma3_text-two_ropes": {**FAMILIES["gemma3_text"], "sliding_window": 8, "rope_parameters": TWO_ROPES},
}
CONVERSATIONS: list[list[Json]] = [
    [{"role": "user", "content": "How many are 2 and 2?\n"}, {"role": "assistant", "content": " 4. "}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "How do you do?"},
        {"role": "user", "content": "Where is the café?"},
        {"role": "assistant", "content": "Behind the station, as it has always been: look for the red door. " * 3},
    ],
]


@pytest.fixture(scope="module")
def transformers_4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with transformers 4.57 and the packages that it needs in other versions than are installed."""
    folder = tmp_path_factory.mktemp("transformers-4")
    options = ["--no-deps", "--no-compile", "--disable-pip-version-check", "--quiet", "--target", str(folder)]
    installed = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, *PACKAGES], capture_output=True, text=True, check=False
    )
    if installed.returncode:
        pytest.skip(f"the package registry has no {PACKAGES[0]}: {installed.stderr[-200:]}")
    return folder


def exported(config: Json, source: Path, template: Json, folder: Path) -> None:
    """Save a random model as a training exports it, with weights large enough that every part shows in its scores.

    `source`: a folder with a tokenizer; as transformers choose some tokenizers by the model, it is loaded beside this.
    """
    torch.manual_seed(0)
    tokenizer = load_tokenizer(source)
    values = {**config, "vocab_size": len(tokenizer), "num_labels": 1, "pad_token_id": tokenizer.pad_token_id}
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(values.pop("model_type"), **values))
    assert runs_in_transformers_4(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    base = folder / "base"
    model.config.save_pretrained(base)
    tokenizer.save_pretrained(base)
    tokenizer = load_tokenizer(base)
    tokenizer.chat_template = ConversationEncoder(load_tokenizer(base), max_length=500, **template).export_template()
    save_reward_model(model, tokenizer, folder)


def test_folders_give_equal_tokens_and_scores(
    transformers_4: Path, tmp_path: Path, base_models: Callable[..., Path]
) -> None:
    chatml = (Path(trl.__file__).parent / "chat_templates" / "qwen2_5.jinja").read_text()
    plain = base_models("llama"), {"template": "plain"}
    chat = base_models("llama", eos_token="<|im_end|>"), {"template": "chat", "chat_template": chatml}
    folders = [tmp_path / name for name in MODELS]
    for folder, (base, template) in zip(folders, cycle([plain, chat]), strict=False):
        exported(MODELS[folder.name], base, template, folder)
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(CONVERSATIONS), *map(str, folders)],
        env={**os.environ, "PYTHONPATH": str(transformers_4), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    for folder, line in zip(folders, result.stdout.splitlines(), strict=True):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        ids = [tokenizer.apply_chat_template(one, return_dict=False) for one in CONVERSATIONS]
        with torch.no_grad():
            scores = [float(model(input_ids=torch.tensor([one])).logits[0, 0]) for one in ids]
        found = json.loads(line)
        assert (found["lost"], found["ids"]) == ([], ids), folder.name
        assert found["scores"] == pytest.approx(scores, abs=1e-5, rel=1e-4), folder.name
        assert abs(scores[0] - scores[1]) > 1e-3, folder.name

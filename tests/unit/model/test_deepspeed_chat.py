"""Folders that the second step of DeepSpeed-Chat saved score as its own code reads them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedModel

from rewardline.core.errors import UserError
from rewardline.scoring.text_scorer import Scorer

from support.reward_models import deepspeed_chat

PROMPT = "How many are 1 and 2?"
ANSWERS = ["They are 3.", "No", "They are 5, I would say."]
TEXT = "Human: {} Assistant: {}<|endoftext|>"
OPT = {"bos_token": "</s>", "eos_token": "</s>"}
GPT2 = {"eos_token": "<|endoftext|>"}
LLAMA = {"bos_token": "<s>", "eos_token": "</s>"}


def values(model: PreTrainedModel, head: torch.Tensor, ids: list[int], mask: list[int] | None = None) -> torch.Tensor:
    """The value head at every token of one sequence: [len(ids)]."""
    rows: Any = {"input_ids": torch.tensor([ids])}
    if mask:
        rows["attention_mask"] = torch.tensor([mask])
    with torch.inference_mode():
        states: torch.Tensor = model(**rows).last_hidden_state
    return (states @ head.T)[0, :, 0].float()


def forward_value(model: PreTrainedModel, head: torch.Tensor, ids: list[int], pad: int) -> float:
    """The value before the first padding token after the first two tokens, else at the last token."""
    end = next((k for k in range(2, len(ids)) if ids[k] == pad), len(ids))
    return values(model, head, ids)[end - 1].item()


def forward(model: PreTrainedModel, head: torch.Tensor, ids: list[int], pad: int, beginning: int) -> float:
    """The value before the padding token number `beginning` (from 0) of a padded sequence."""
    padded = [*ids, *[pad] * 5]
    mask = [1] * len(ids) + [0] * 5
    end = [k for k, token in enumerate(padded) if token == pad][beginning]
    return values(model, head, padded, mask)[end - 1].item()


def scores(folder: Path, **options: Any) -> list[float]:
    scorer = Scorer(str(folder), convert_bin=True, **options)
    (found,) = scorer.score([[{"role": "user", "content": PROMPT}]], [ANSWERS])
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize(
    ("family", "tokens", "name", "leading"),
    [
        ("opt", OPT, "rwtransformer", 1),
        ("opt", OPT, "rwtranrsformer", 1),
        ("gpt2", GPT2, "rwtransformer", 0),
        ("gpt_neox", GPT2, "rwtransformer", 0),
        ("llama", LLAMA, "rwtransformer", 0),
    ],
)
def test_scores_are_those_of_its_own_reading(
    tmp_path: Path, base_models: Callable[..., Path], family: str, tokens: dict[str, str], name: str, leading: int
) -> None:
    base = base_models(family, **tokens)
    model, head = deepspeed_chat(base, tmp_path / "model", name)
    tokenizer = AutoTokenizer.from_pretrained(base)
    pad = tokenizer.pad_token_id if family == "llama" else tokenizer.eos_token_id
    ids = [tokenizer(TEXT.format(PROMPT, answer))["input_ids"] for answer in ANSWERS]
    single = [forward_value(model, head, row, pad) for row in ids]
    assert single == pytest.approx([forward(model, head, row, pad, leading) for row in ids], abs=1e-5)
    assert scores(tmp_path / "model") == pytest.approx(single, abs=1e-5)
    assert scores(tmp_path / "model", num_padding_at_beginning=leading) == pytest.approx(single, abs=1e-5)
    further = [forward(model, head, row, pad, leading + 1) for row in ids]
    assert scores(tmp_path / "model", num_padding_at_beginning=leading + 1) == pytest.approx(further, abs=1e-5)
    with pytest.raises(UserError, match=f"puts {leading} padding tokens first"):
        scores(tmp_path / "model", num_padding_at_beginning=leading + 2)


def test_half_precision_is_computed_in_full_without_a_gpu(tmp_path: Path, base_models: Callable[..., Path]) -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU computes in half precision")
    base = base_models("opt", **OPT)
    model, head = deepspeed_chat(base, tmp_path / "model", dtype=torch.float16)
    tokenizer = AutoTokenizer.from_pretrained(base)
    ids = [tokenizer(TEXT.format(PROMPT, answer))["input_ids"] for answer in ANSWERS]
    expected = [forward_value(model.float(), head.float(), row, tokenizer.eos_token_id) for row in ids]
    assert scores(tmp_path / "model") == pytest.approx(expected, abs=1e-5)


def test_loading_is_strict_and_pickles_need_a_flag(tmp_path: Path, base_models: Callable[..., Path]) -> None:
    folder = tmp_path / "model"
    deepspeed_chat(base_models("opt", **OPT), folder)
    with pytest.raises(UserError, match="Give --convert-bin"):
        Scorer(str(folder))
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    first = next(key for key in weights if "layers.0" in key)
    for changed, message in (
        ({key: value for key, value in weights.items() if key != first}, "1 weights are missing"),
        ({**weights, "rwtransformer.more": torch.ones(1)}, "1 weights are left over"),
        ({**weights, "v_head.bias": torch.ones(1)}, "1 weights are left over"),
        ({**weights, "v_head.weight": torch.ones(1, 3)}, "have another shape|cannot be loaded"),
        ({key: value for key, value in weights.items() if key != "v_head.weight"}, "score head"),
    ):
        torch.save(changed, folder / "pytorch_model.bin")
        with pytest.raises(UserError, match=message):
            Scorer(str(folder), convert_bin=True)
    torch.save({"v_head.weight": AutoModel}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="without executing code"):
        Scorer(str(folder), convert_bin=True)


def test_a_folder_without_a_tokenizer_takes_that_of_its_base_model(
    tmp_path: Path, base_models: Callable[..., Path]
) -> None:
    base = base_models("opt", **OPT)
    deepspeed_chat(base, tmp_path / "model")
    expected = scores(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "_name_or_path": ""}))
    with pytest.raises(UserError, match="give --tokenizer"):
        scores(tmp_path / "model")
    assert scores(tmp_path / "model", tokenizer=str(base)) == expected
    larger = AutoTokenizer.from_pretrained(base)
    larger.add_tokens([f"word{k}" for k in range(20)])
    larger.save_pretrained(tmp_path / "larger")
    with pytest.raises(UserError, match="do not belong together"):
        scores(tmp_path / "model", tokenizer=str(tmp_path / "larger"))

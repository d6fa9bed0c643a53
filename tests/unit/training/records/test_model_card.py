"""The model card says how a score is read, from what run.json holds."""

from typing import Any

import pytest

from rewardline.tokens.templates import export_chat
from rewardline.training.records.model_card import model_card
from rewardline.training.records.run_facts import NormalizationFacts

from support.training_runs import run_facts, training_settings

STORED = NormalizationFacts(mean=1.5, std=0.25, folded=False, mean_left=0.0)
CHAT = {"template": "chat", "end_token": "</s>", "max_length": 4096, "chat_template": export_chat("", "</s>")}
FOLDED = NormalizationFacts(mean=1.5, std=0.25, folded=True, mean_left=6.0)


@pytest.mark.parametrize(
    ("changes", "expected", "unwanted"),
    [
        (
            {},
            [
                "sigmoid(a - b)",
                "`<|end|>`, where the score is read.",
                "`System: ...`",
                "use 5",
                "not normalized",
                "none was measured",
            ],
            ["raw"],
        ),
        ({"normalization": STORED}, ["sigmoid(0.25 * (a - b))", "(raw - 1.5) / 0.25", "gives the raw score"], []),
        ({"normalization": FOLDED}, ["folded into the weights but for a mean of 6"], ["gives the raw score"]),
        (
            {"training": training_settings(score="mean", loss="kwise")},
            ["gives **another score**", "the mean over the answer's tokens", "each prompt weighing the same"],
            ["where the score is read"],
        ),
        ({"final": {"eval_accuracy": 0.75}}, ["| held-out accuracy while training | 0.750 |"], ["none was measured"]),
        ({"git": {"commit": "0123456789abcdef", "dirty": True}}, ["; rewardline 0123456789ab, changed since |"], []),
        (
            {"tokenization": {**CHAT, "changed": {"answer": 1200}}, "transformers_4": True},
            [
                "apply_chat_template",
                "at most 4,096 tokens",
                "26 July 2024",
                "answer in 1,200 training",
                "4.57 gives equal",
            ],
            ["Human:"],
        ),
        ({"tokenization": {**CHAT, "chat_template": None}}, ["No chat template gives", "`</s>`"], ["messages = ["]),
    ],
)
def test_the_card_follows_from_the_facts(changes: dict[str, Any], expected: list[str], unwanted: list[str]) -> None:
    card = model_card(run_facts(**changes))
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "# r\n" in card
    for part in expected:
        assert part in card
    for part in unwanted:
        assert part not in card

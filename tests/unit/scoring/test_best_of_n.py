"""The example of best-of-n: what it calls right is right, and a policy is trained on the best of its answers."""

import re
import runpy
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from transformers import AutoTokenizer

from rewardline.data.demo.answers import FLAWS, compose, wrong_value
from rewardline.tokens.templates import export_plain

from support.paths import ROOT
from support.reward_models import reward_model


@pytest.fixture(scope="module")
def best_of_n() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "examples" / "best_of_n.py"))


def test_the_generator_knows_which_answers_are_right(best_of_n: dict[str, Any]) -> None:
    rng = Random(0)
    for _ in range(500):
        question = best_of_n["draw"](rng).question
        good = compose(rng, question, question.right, 0.5)
        wrong = wrong_value(rng, question, question, 0.5)
        assert best_of_n["is_right"](question, good), (question, good)
        assert not best_of_n["is_right"](question, wrong), (question, wrong)
        assert not best_of_n["is_right"](question, f"{good} {wrong}"), "one of each"
        other = best_of_n["draw"](rng).question
        for flaw in ("off_question", "refusal", "empty_praise"):
            text = FLAWS[flaw](rng, question, other, 0.5)
            assert question.right in text or not best_of_n["is_right"](question, text), (question, text)


def test_a_policy_is_trained_on_the_best_of_its_answers(
    best_of_n: dict[str, Any], base_models: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reward_model(base_models("llama"), tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    tokenizer.chat_template = export_plain("", tokenizer.eos_token)
    tokenizer.save_pretrained(tmp_path / "model")
    options = ["--imitate", "64", "--problems", "8", "--answers", "4", "--rounds", "1"]
    tables = []
    for _ in range(2):
        assert best_of_n["main"](["--model", str(tmp_path / "model"), *options]) == 0
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1], "a seed gives the same table"
    by_n, rounds = ([line.split("|")[1:-1] for line in part.splitlines()[2:]] for part in tables[0].split("\n\n"))
    assert [line[0].strip() for line in by_n] == ["1", "2", "4"]
    rewards = [float(line[2]) for line in by_n]
    assert rewards == sorted(set(rewards)), "more answers, better ones"
    assert (rewards[0], rewards[-1]) == (float(rounds[0][1]), float(rounds[0][4]))
    assert [int(line[0]) for line in rounds] == [0, 1]
    for _, reward, words, right, best, *_ in rounds:
        assert float(best) > float(reward)
        assert float(words) > 0 and re.fullmatch(r" \d+% ", right)

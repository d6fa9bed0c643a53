"""When a training run is warned: once, where nothing is learned or scores leave zero."""

from dataclasses import replace

import pytest

from rewardline.training.health import Chance, Drift, divergence_message
from rewardline.training.records.log_file import StepLine

from support.training_runs import STEP_LINE


def warnings(accuracy: float, loss: float, steps: int = 450) -> list[str]:
    chance, line = Chance(), replace(STEP_LINE, pairs=32, accuracy=accuracy, loss=loss)
    return [message for message in (chance.check(line, 200) for _ in range(steps)) if message]


@pytest.mark.parametrize(
    ("accuracy", "loss", "warned"),
    [(0.5, 0.75, True), (0.505, 0.69, True), (0.9, 0.6931, True), (0.53, 0.69, False), (0.8, 0.5, False)],
)
def test_no_better_than_guessing_for_long_is_said_once(accuracy: float, loss: float, warned: bool) -> None:
    found = warnings(accuracy, loss)
    assert len(found) == warned
    if warned:
        assert f"{accuracy:.1%}" in found[0]
        assert "learning_rate" in found[0]
    assert warnings(accuracy, loss, steps=150) == []


def test_few_pairs_say_nothing() -> None:
    chance, line = Chance(), replace(STEP_LINE, pairs=2, accuracy=0.5, loss=0.7)
    assert [chance.check(line, 10) for _ in range(200)] == [None] * 200


def drifting(step: int, mean: float, spread: float) -> StepLine:
    return replace(STEP_LINE, step=step, chosen_mean=mean + 0.1, rejected_mean=mean - 0.1, score_std=spread)


@pytest.mark.parametrize(
    ("means", "spread", "expected"),
    [
        ([0, 1, 3, 5, 7], 0.5, [3]),
        ([0, -1, -3, -5], 0.5, [3]),
        ([0, 1, 3, 5], 4.0, []),  # a spread as large
        ([2.5, 2.5, 2.4, 2.6], 0.1, []),  # where a new head happened to start
        ([0.2, 0.3, 0.1], 0.01, []),
    ],
)
def test_drift_is_said_once_where_the_mean_leaves_zero(means: list[float], spread: float, expected: list[int]) -> None:
    drift, found = Drift(), []
    for step, mean in enumerate(means, 1):
        drift = Drift(**vars(drift))  # as after a resume
        if message := drift.check(drifting(step, mean, spread)):
            found.append(step)
            assert f"drifted to {mean:.2f} at step {step}" in message
    assert found == expected


def test_a_step_that_diverges_is_named_with_its_pairs_and_what_to_do() -> None:
    message = divergence_message("the loss is not finite", 3, [f"p{k}" for k in range(20)], "fp32")
    assert message.startswith("the loss is not finite at step 3. Its pairs: p0, p1, ")
    assert "p15 .... Try a lower learning_rate" in message
    assert "those of the base model" in divergence_message("the loss is not finite", 1, ["p"], "bf16")

"""Warnings and errors of a training run: nothing is learned, scores drift, or values are not finite."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rewardline.training.records.log_file import StepLine

CHANCE_STEPS = 200
"""Over how many steps after the warm-up accuracy and loss are compared with guessing; a shorter run: all of it."""
CHANCE_PAIRS = 500
FAR = 2.0
"""How much farther from 0 than at the start a drifting mean score is."""
SPREADS = 3.0
"""How many standard deviations of the scores it is from 0."""


@dataclass
class Chance:
    """Compares the steps' results with guessing, and warns once; saved with each checkpoint.

    `pairs`, `correct` and `loss` are sums over the last `steps` steps.
    """

    steps: int = 0
    pairs: int = 0
    correct: float = 0.0
    loss: float = 0.0
    warned: bool = False

    def check(self, line: StepLine, window: int) -> str | None:
        """Count a step; a warning when `window` steps (or those of `CHANCE_PAIRS` pairs, if more) were no better.

        No better means an accuracy within two standard errors of one half, or a loss within 0.001 of ln 2.
        """
        self.steps, self.pairs = self.steps + 1, self.pairs + line.pairs
        self.correct += (line.accuracy or 0.0) * line.pairs
        self.loss += line.loss * line.pairs
        if self.steps < window or self.pairs < CHANCE_PAIRS:
            return None
        accuracy, loss, steps = self.correct / self.pairs, self.loss / self.pairs, self.steps
        stuck = accuracy < 0.5 + 2 * math.sqrt(0.25 / self.pairs) or abs(loss - math.log(2)) < 0.001
        self.steps, self.pairs, self.correct, self.loss = 0, 0, 0.0, 0.0
        if self.warned or not stuck:
            return None
        self.warned = True
        return (
            f"nothing is learned yet: over the last {steps} steps the accuracy is {accuracy:.1%} and the loss "
            f"{loss:.3f}, and guessing gives 50% and 0.693. Likely causes: a learning_rate that is too low (scores "
            "hardly move) or too high (scores jump); labels that do not follow from the text, such as ties, or fields "
            "that name the wrong answer; answers that are cut off or equal where they should differ (the report shows "
            "pairs); too few trained parameters (lora.rank)"
        )


@dataclass
class Drift:
    """Warns once when the mean score leaves zero; saved with each checkpoint.

    Only differences of scores are trained, so nothing holds their mean. `first`: its distance from 0 at the first step.
    """

    first: float | None = None
    warned: bool = False

    def check(self, line: StepLine) -> str | None:
        """Compare a step; a warning at the first whose mean score has drifted."""
        mean, spread = ((line.chosen_mean or 0.0) + (line.rejected_mean or 0.0)) / 2, line.score_std or 0.0
        if self.first is None:
            self.first = abs(mean)
        if self.warned or abs(mean) < max(self.first + FAR, SPREADS * spread):
            return None
        self.warned = True
        return (
            f"the mean score has drifted to {mean:.2f} at step {line.step}, with a spread of {spread:.2f} between "
            "answers. Differences between answers to a prompt still mean something, but numbers far from 0 lose digits "
            "(in bf16 above all) and cannot be compared between runs. training.centering, 0.01 for example, keeps the "
            "mean near 0; training.normalize takes it out afterwards"
        )


def divergence_message(reason: str, step: int, pair_ids: Sequence[str], precision: str) -> str:
    """The error message for a step (1-based) that has diverged for `reason`."""
    advice = "Try a lower learning_rate, a longer warmup, clip 1.0, or bf16 for fp16"
    if step == 1 and precision != "fp16":
        advice = "No weight has been changed yet: look for such values in those of the base model"
    more = " ..." if len(pair_ids) > 16 else ""
    return f"{reason} at step {step}. Its pairs: {', '.join(pair_ids[:16])}{more}. {advice}"

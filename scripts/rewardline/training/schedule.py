"""The learning rate of each step.

A function of the step alone, so that a resumed run has nothing to restore; the schedulers of torch and transformers
count their own calls, and have no warm-up as a share of the steps.
"""

import math

from rewardline.training.settings import TrainingSettings


def warmup_steps(training: TrainingSettings, total: int) -> int:
    """How many of `total` steps the warm-up takes."""
    warmup = training.warmup
    return round(warmup * total) if warmup < 1 else int(warmup)


def learning_rate(training: TrainingSettings, step: int, total: int) -> float:
    """The rate of step `step` (0-based) of `total`: a linear warm-up, then cosine or linear to 0, or constant."""
    warm_steps = warmup_steps(training, total)
    peak = float(training.learning_rate)
    if step < warm_steps:
        return peak * (step + 1) / warm_steps
    share = (step - warm_steps) / max(1, total - warm_steps)
    if training.schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * share))
    if training.schedule == "linear":
        return peak * (1 - share)
    return peak

"""A warning when scores leave zero: only their differences are trained, so nothing holds their mean where it was."""

import logging
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)


FAR = 2.0
"""How much farther from 0 than at the start a mean score must be."""
SPREADS = 3.0
"""How many standard deviations of the scores it must be from 0."""


@dataclass
class DriftWatch:
    """Says once that the mean score of the steps has drifted; saved with each checkpoint.

    `first`: how far from 0 the mean score was at the first step.
    """

    first: float | None = None
    told: bool = False

    def see(self, line: dict[str, Any]) -> bool:
        """Look at a step's line of the log; whether it was the one that a warning was given for."""
        mean, spread = (line["chosen_mean"] + line["rejected_mean"]) / 2, line["score_std"]
        if self.first is None:
            self.first = abs(mean)
        if self.told or abs(mean) < max(self.first + FAR, SPREADS * spread):
            return False
        self.told = True
        log.warning(
            "the mean score has drifted to %.2f at step %d, with a spread of %.2f between answers. Differences between "
            "answers to a prompt still mean something, but numbers far from 0 lose digits (in bf16 above all) and "
            "cannot be compared between runs. training.centering, 0.01 for example, keeps the mean near 0; "
            "training.normalize takes it out afterwards",
            mean, line["step"], spread,
        )  # fmt: skip
        return True

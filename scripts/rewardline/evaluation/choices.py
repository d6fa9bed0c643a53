"""`selection.json`: which run was chosen, and why. Imports nothing slow."""

from pydantic import Field

from rewardline.evaluation.comparisons import Difference
from rewardline.evaluation.results import Accuracy, Count, Name, Result, ResultFile
from rewardline.evaluation.settings import HELD_OUT


class PartAccuracy(Accuracy):
    """The accuracy on a part of the held-out prompts."""

    n: Count

    def words(self) -> str:
        """The accuracy and its interval in percent."""
        return f"{100 * self.accuracy:.1f}% ({100 * self.accuracy_low:.1f}\N{EN DASH}{100 * self.accuracy_high:.1f}%)"


class Standing(Result):
    """A run with all its seeds, and their mean accuracy on the part that chose."""

    name: Name
    runs: list[str]
    chosen_on: PartAccuracy


class ChosenRun(ResultFile):
    """The content of `selection.json`.

    `best` is the chosen run and `run` its best seed, whose weights are taken; `chosen_on` and `reported_on` are the
    accuracy of these weights on the part that chose them and on the other. `standings`: best first; `differences`: of
    `best` and each other run on all pairs, whose intervals hold together with 95%. `eliminated`: runs that successive
    halving has ended before, and `diverged`: how the training of others has ended, by run id; these are not among them.
    """

    content = "the choice of a run"
    stage = "select_model"

    name: Name
    benchmark: Name
    mixture: Name
    best: Name
    run: Name
    chosen_on: PartAccuracy
    reported_on: PartAccuracy
    standings: list[Standing]
    differences: list[Difference] = Field([])
    eliminated: list[str] = Field([])
    diverged: dict[str, str] = Field({})

    @property
    def within_noise(self) -> list[str]:
        """The runs that the data does not tell apart from the best one."""
        return [one.second for one in self.differences if one.within_noise]

    @property
    def described(self) -> list[str]:
        """Which runs have diverged and how, in words."""
        return [f"{run} ({reason})" for run, reason in self.diverged.items()]

    @property
    def judged_on(self) -> str:
        """What the runs were judged on, in words."""
        return f"the held-out split of {self.mixture}" if self.benchmark == HELD_OUT else self.benchmark

    def sentences(self) -> list[str]:
        """The choice in words: who was chosen, how good it is, and who is within its noise."""
        seed = f", of which {self.run} is the best seed" if self.run != self.best else ""
        others, noise = len(self.standings) - 1, self.within_noise
        among = f"the best of {others + 1} runs" if others else "the only run left"
        first = f"{self.best} is {among} on {self.judged_on}{seed}."
        if not (others or self.eliminated or self.diverged):
            first = f"{self.run} is the best seed of {self.best} on {self.judged_on}."
        if self.eliminated:
            whose = "its" if len(self.eliminated) == 1 else "their"
            first += f" Successive halving had eliminated {len(self.eliminated):,} before the end of {whose} training."
        if self.diverged:
            shown, more = self.described[:5], len(self.diverged) - 5
            listed = ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")
            first += f" Not among them, as training has diverged: {listed}."
        figures = (
            f"It is right about {self.reported_on.words()} of {self.reported_on.n:,} pairs that did not choose it, and"
            f" {self.chosen_on.words()} of {self.chosen_on.n:,} that did, which is an optimistic figure."
        )
        if not others:
            return [first, figures]
        listed = ", ".join(noise[:5]) + (f" and {len(noise) - 5:,} more" if len(noise) > 5 else "")
        last = (
            f"Within its noise: {listed}; the data does not tell them apart."
            if noise
            else "No other run is within its noise."
        )
        if any(not one.seeds for one in self.differences):
            last += " With one seed each, these weights are compared: another seed may change the order."
        return [first, figures, last]

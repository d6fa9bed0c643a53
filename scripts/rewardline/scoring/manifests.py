"""What was scored, and what became of it; Snakemake's own process shows it, so that this imports nothing slow."""

from pathlib import Path

from pydantic import Field

from rewardline.core.artifacts import Manifest
from rewardline.data.pairs.left_out import Loss, listed


class _RowsAccount(Manifest):
    """What became of rows that models score.

    `rows`, of which those without a score are in `rejects`, by reason; `cut`: prompts that lost their beginning, to fit
    into the model (the most of several); `changed`: rows that lost a part, by what it is; `without_pair`: prompts that
    give no pair, by reason.
    """

    name: str
    rows: int
    rejects: dict[str, int]
    answers: int
    prompts: int
    cut: int
    changed: dict[str, int] = Field({})
    without_pair: dict[str, int]

    def _losses(self) -> list[str]:
        lines = []
        if any(self.rejects.values()):
            lines.append(f"{self.name}: lost {Loss(self.rejects, self.rows, 'rows')}")
        if self.cut:
            lines.append(f"{self.name}: {self.cut:,} prompts are cut to the length of the model")
        return lines + [f"{self.name}: {what} in {count:,} rows" for what, count in self.changed.items()]

    def _no_pairs(self, left_out: dict[str, int]) -> str:
        named = {"prompts without one": self.without_pair, "left out": left_out}
        return "".join(f"; {what}: {listed(counts)}" for what, counts in named.items() if any(counts.values()))


class ScoredAnswers(_RowsAccount):
    """The manifest of a scored file or dataset.

    `score_mean` over all answers, `best_mean` over the best ones of each prompt, both None without any. `pairs` for the
    next round are None where none were asked for; `pairs_left_out`: further pairs of the other prompts, by reason.
    """

    run: str
    score_mean: float | None
    best_mean: float | None
    pairs: int | None
    pairs_left_out: dict[str, int]

    def lines(self) -> list[str]:
        """What was scored, lost and left out, in a few lines."""
        gain = ""
        if self.score_mean is not None and self.best_mean is not None:
            gain = f"; the mean score is {self.score_mean:.3f}, that of the best answers {self.best_mean:.3f}"
        what = f"{self.answers:,} answers to {self.prompts:,} prompts"
        lines = [f"{self.name}: {self.rows:,} rows with {what}, scored by {self.run}{gain}", *self._losses()]
        if self.pairs is not None:
            lines.append(f"{self.name}: {self.pairs:,} pairs for the next round{self._no_pairs(self.pairs_left_out)}")
        return lines


class PairsToLabel(_RowsAccount):
    """The manifest of pairs that are to be labeled; `left_out`: pairs that were not chosen, by reason."""

    runs: list[str]
    by: str
    pairs: int
    left_out: dict[str, int]

    def lines(self) -> list[str]:
        """What was chosen, lost and left out, in a few lines."""
        models = self.runs[0] if len(self.runs) == 1 else f"{len(self.runs)} models"
        of = f"{self.pairs + sum(self.left_out.values()):,} pairs of answers to {self.prompts:,} prompts"
        chosen = f"{self.name}: {self.pairs:,} of {of} are to be labeled, by {self.by} of {models}"
        return [chosen + self._no_pairs(self.left_out), *self._losses()]


def read_account(path: Path) -> ScoredAnswers | PairsToLabel:
    """The manifest in `results/scores/<name>/` or `results/to_label/<name>/`."""
    return (PairsToLabel if path.parent.parent.name == "to_label" else ScoredAnswers).read(path)

"""Successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943): rungs, after which the best cells continue."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from pydantic import BaseModel

from rewardline.core.artifacts import Manifest
from rewardline.core.errors import UserError
from rewardline.core.settings import Integer, Settings


class HalvingSettings(Settings):
    """What the choice after a rung depends on.

    `keep`: how many cells continue; `cells`: the run ids of each, whose accuracies count by their mean.
    """

    sweep: str
    step: Integer
    keep: Integer
    cells: dict[str, list[str]]


class RungResult(Manifest):
    """A run after a rung: its accuracy over `pairs` held-out pairs; None if an earlier rung has eliminated it.

    `key`: that of the training run with the step and the share of the prompts.
    """

    run: str
    key: str
    step: int
    pairs: int = 0
    accuracy: float | None = None


class CellAccuracy(BaseModel):
    """A cell of a sweep: its run ids, their mean accuracy, and whether it continues."""

    name: str
    runs: list[str]
    accuracy: float
    goes_on: bool


class Rung(Manifest):
    """The cells of a sweep after `step` steps, best first, without those that earlier rungs eliminated."""

    sweep: str
    step: int
    cells: list[CellAccuracy]

    def goes_on(self, run: str) -> bool:
        """Whether a run is trained beyond this rung."""
        return any(cell.goes_on and run in cell.runs for cell in self.cells)

    def sentence(self) -> str:
        """The rung in words."""
        last = [cell for cell in self.cells if cell.goes_on][-1]
        return (
            f"{self.sweep}: {sum(cell.goes_on for cell in self.cells)} of {len(self.cells)} cells went on after step"
            f" {self.step:,}, those with an accuracy of {100 * last.accuracy:.1f}% or more on the pairs that choose"
        )


def choose_cells(settings: HalvingSettings, folder: Path) -> Rung:
    """The cells that continue, by the results in `folder`, a file for each run. The name decides between equal ones.

    Raises:
        UserError: a file is missing or damaged.
    """
    found: list[CellAccuracy] = []
    for name, runs in settings.cells.items():
        rates = [RungResult.read(folder / f"{run}.json").accuracy for run in runs]
        known = [rate for rate in rates if rate is not None]
        if known:
            found.append(CellAccuracy(name=name, runs=runs, accuracy=fmean(known), goes_on=False))
    found.sort(key=lambda cell: (-cell.accuracy, cell.name))
    for cell in found[: settings.keep]:
        cell.goes_on = True
    return Rung(sweep=settings.sweep, step=settings.step, cells=found)


def eliminated_at(run: str, rungs: Sequence[Path]) -> int | None:
    """The step of the rung after which a run is stopped; None if it continues. `rungs`: `Rung` files.

    Raises:
        UserError: a file is missing or damaged.
    """
    return next((rung.step for rung in map(Rung.read, rungs) if not rung.goes_on(run)), None)


def check_first(step: int, total: int) -> None:
    """Raise `UserError` if the first rung does not end before the training run of `total` steps does."""
    if step >= total:
        raise UserError(
            f"grid.halving.min_steps: {step:,} is not below the {total:,} steps of the training run; lower it, or train"
            " for longer"
        )

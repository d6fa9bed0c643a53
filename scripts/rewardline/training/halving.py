"""Successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943): rungs, after which the best cells continue."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from pydantic import BaseModel, ValidationError

from rewardline.core.artifacts import Manifest, read_manifest
from rewardline.core.errors import UserError
from rewardline.core.settings import Integer, Settings

NAMED = 3
"""Runs that a sentence names."""


class HalvingSettings(Settings):
    """What the choice after a rung depends on.

    `keep`: how many cells continue; `cells`: the run ids of each, whose accuracies count by their mean.
    """

    sweep: str
    step: Integer
    keep: Integer
    cells: dict[str, list[str]]


class RungResult(Manifest):
    """A run after a rung: its accuracy over `pairs` held-out pairs; None if it has ended before.

    `diverged`: how its training has ended, if it has diverged; else an earlier rung has eliminated it.
    `key`: that of the training run with the step and the share of the prompts.
    """

    run: str
    key: str
    step: int
    pairs: int = 0
    accuracy: float | None = None
    diverged: str | None = None


class CellAccuracy(BaseModel):
    """A cell of a sweep: its run ids, their mean accuracy, and whether it continues.

    If the training of one of them has diverged, there is no accuracy, but what happened, by run id.
    """

    name: str
    runs: list[str]
    accuracy: float | None
    goes_on: bool = False
    diverged: dict[str, str] = {}


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
        least = min(cell.accuracy for cell in self.cells if cell.goes_on and cell.accuracy is not None)
        diverged = [one for cell in self.cells for one in described(cell.diverged)]
        diverged[NAMED:] = [f"{len(diverged) - NAMED:,} more"] if len(diverged) > NAMED else []
        return (
            f"{self.sweep}: {sum(cell.goes_on for cell in self.cells)} of {len(self.cells)} cells went on after step"
            f" {self.step:,}, those with an accuracy of {100 * least:.1f}% or more on the pairs that choose"
            + (f"; eliminated, as it has diverged: {', '.join(diverged)}" if diverged else "")
        )


def described(diverged: Mapping[str, str]) -> list[str]:
    """What happened to runs whose training has diverged, by run id, each in words."""
    return [f"{run} ({reason})" for run, reason in diverged.items()]


def choose_cells(settings: HalvingSettings, folder: Path) -> Rung:
    """The cells that continue, by the results in `folder`, a file for each run. The name decides between equal ones.

    A cell with a run that has diverged does not, even if fewer are left than should.

    Raises:
        UserError: a file is missing or damaged, or all cells have diverged.
    """
    found: list[CellAccuracy] = []
    for name, runs in settings.cells.items():
        results = [RungResult.read(folder / f"{run}.json") for run in runs]
        diverged = {one.run: one.diverged for one in results if one.diverged is not None}
        known = [one.accuracy for one in results if one.accuracy is not None]
        if known or diverged:
            accuracy = None if diverged else fmean(known)
            found.append(CellAccuracy(name=name, runs=runs, accuracy=accuracy, diverged=diverged))
    found.sort(key=lambda cell: (cell.accuracy is None, -(cell.accuracy or 0.0), cell.name))
    for cell in found[: settings.keep]:
        cell.goes_on = cell.accuracy is not None
    if not any(cell.goes_on for cell in found):
        reasons = ", ".join(one for cell in found for one in described(cell.diverged))
        raise UserError(f"{settings.sweep}: all cells have diverged: {reasons}. Lower the learning rates of its grid")
    return Rung(sweep=settings.sweep, step=settings.step, cells=found)


def eliminated_at(run: str, rungs: Sequence[Path]) -> int | None:
    """The step of the rung after which a run is stopped; None if it continues. `rungs`: `Rung` files.

    Raises:
        UserError: a file is missing or damaged.
    """
    return next((rung.step for rung in map(Rung.read, rungs) if not rung.goes_on(run)), None)


def last_step(run: str, rungs: Sequence[Path]) -> str:
    """The step of the rung after which a run is stopped, as far as the files exist; empty if it continues."""
    for path in rungs:
        try:
            rung = Rung.model_validate(read_manifest(path, repair=False))
        except (UserError, ValidationError):
            break
        if not rung.goes_on(run):
            return str(rung.step)
    return ""


def check_first(step: int, total: int) -> None:
    """Raise `UserError` if the first rung does not end before the training run of `total` steps does."""
    if step >= total:
        raise UserError(
            f"grid.halving.min_steps: {step:,} is not below the {total:,} steps of the training run; lower it, or train"
            " for longer"
        )

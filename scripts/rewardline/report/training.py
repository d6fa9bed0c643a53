"""The report's part about training: curves of loss, accuracy and scores, and findings about each run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from markupsafe import Markup

from rewardline.report import figures
from rewardline.report.figures import QUIET
from rewardline.report.formatting import decimal
from rewardline.report.inputs import TrainingRun

DRIFT = 2.0
"""A mean score beyond this, for chosen and rejected alike, is called a drift."""


@dataclass(frozen=True)
class ScoreDrift:
    """The mean scores of a run over training: a figure of all seeds, and the mean of their final values."""

    run: str
    seeds: int
    svg: Markup
    chosen: str
    rejected: str


@dataclass(frozen=True)
class TrainingSection:
    """Curves of all runs, None where no run has logged any, with a legend of (colour, run); and drifts."""

    legend: list[tuple[str, str]]
    loss: Markup | None
    accuracy: Markup | None
    drifts: list[ScoreDrift]


def training_section(
    runs: Sequence[TrainingRun], colours: Mapping[str, str], families: Mapping[str, Sequence[str]]
) -> TrainingSection:
    """Draw the curves. `colours` are by run id; `families` are the run ids of the seeds of each run."""
    known = {
        field: [
            (colours.get(one.run, QUIET), one.curve(field), one.curve(f"eval_{field}"))
            for one in runs
            if one.curve(field).known or one.curve(f"eval_{field}").known
        ]
        for field in ("loss", "accuracy")
    }
    loss, accuracy = known["loss"], known["accuracy"]
    drifts = [
        _drift(f"drift-{k}", name, [one for one in runs if one.run in seeds])
        for k, (name, seeds) in enumerate(families.items())
    ]
    return TrainingSection(
        legend=[(colours[one.run], one.run) for one in runs if one.run in colours],
        loss=figures.curves("loss", "Loss", loss, "loss", math.log(2)) if loss else None,
        accuracy=figures.curves("accuracy", "Accuracy", accuracy, "accuracy (%)", 0.5, 100) if accuracy else None,
        drifts=[one for one in drifts if one is not None],
    )


def _drift(name: str, run: str, seeds: Sequence[TrainingRun]) -> ScoreDrift | None:
    means = [(one.curve("chosen_mean"), one.curve("rejected_mean")) for one in seeds]
    shown = [(chosen, rejected) for chosen, rejected in means if chosen.known and rejected.known]
    if not shown:
        return None
    chosen, rejected = (decimal(fmean(curve.final for curve in curves)) for curves in zip(*shown, strict=True))
    return ScoreDrift(run, len(shown), figures.drift(name, run, shown), chosen, rejected)


def training_findings(run: TrainingRun) -> list[Markup]:
    """What deserves attention in a run's training, one sentence each."""
    found: list[str | Markup] = []
    chosen, rejected = run.curve("chosen_mean").final, run.curve("rejected_mean").final
    for sign, word in ((-1, "negative"), (1, "positive")):
        if sign * chosen > DRIFT and sign * rejected > DRIFT:
            found.append(
                Markup(
                    "scores drift {}; see <code>centering</code>. The mean score ends at {} for chosen and {} for "
                    "rejected answers: accuracy does not suffer, but uses of the score itself do."
                ).format(word, decimal(chosen), decimal(rejected))
            )
    loss, held_out = run.curve("loss"), run.curve("eval_loss")
    if broken := int(np.isnan(loss.values).sum()):
        found.append(f"the loss was not a finite number at {broken:,} of {len(loss.values):,} steps.")
    if loss.final > 0.98 * math.log(2):
        found.append(
            f"the training loss ends at {loss.final:.3f}; random guessing has 0.693: the run has learned next to "
            "nothing."
        )
    known = held_out.values[np.isfinite(held_out.values)]
    if known.size > 2 and known[-1] > 1.05 * known.min():
        step = held_out.steps[np.nanargmin(held_out.values)]
        found.append(
            f"the held-out loss was lowest at step {step:,.0f} ({known.min():.3f}) and ends at {known[-1]:.3f}: "
            "the run overfits; fewer epochs or a lower learning rate may do better."
        )
    if run.record.git.dirty:
        found.append("trained from code with changes that were not committed.")
    return [Markup("<b>{}</b>: {}").format(run.run, text) for text in found]

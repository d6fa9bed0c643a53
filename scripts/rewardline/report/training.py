"""The report's part about training: curves of loss, accuracy and scores, and findings about each run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from markupsafe import Markup

from rewardline.report import figures
from rewardline.report.figures import QUIET, Figure
from rewardline.report.formatting import decimal
from rewardline.report.inputs import Curve, TrainingRun

DRIFT = 2.0
"""A mean score beyond this, for chosen and rejected alike, is called a drift."""


@dataclass(frozen=True)
class TrainingSection:
    """Curves of all runs, with a legend of (colour, run); and the mean scores of each run."""

    legend: list[tuple[str, str]]
    curves: list[Figure]
    drifts: list[Figure]


def training_section(
    runs: Sequence[TrainingRun], colours: Mapping[str, str], families: Mapping[str, Sequence[str]]
) -> TrainingSection:
    """Draw the curves. `colours` are by run id; `families` are the run ids of the seeds of each run."""
    return TrainingSection(
        legend=[(colours[one.run], one.run) for one in runs if one.run in colours],
        curves=_curves(runs, colours),
        drifts=_drifts({one.run: one for one in runs}, families),
    )


def _curves(runs: Sequence[TrainingRun], colours: Mapping[str, str]) -> list[Figure]:
    """Loss and accuracy of all runs; what no run has logged is left out."""
    result = []
    for field, label, chance, unit, caption in (
        (
            "loss",
            "loss",
            math.log(2),
            1,
            "The dashed line is ln 2 = 0.693, the loss of random guessing. "
            "Dots that rise while the line falls mean overfitting.",
        ),
        (
            "accuracy",
            "accuracy (%)",
            0.5,
            100,
            "The dashed line is 50%, random guessing. A gap between line and dots is what the run has memorized.",
        ),
    ):
        series = [
            (colours.get(one.run, QUIET), one.curve(field), one.curve(f"eval_{field}"))
            for one in runs
            if one.curve(field).known or one.curve(f"eval_{field}").known
        ]
        if series:
            title = field.capitalize()
            svg = figures.curves(f"curve-{field}", f"{title} over training steps.", series, label, chance, unit)
            caption = f"Lines: training batches, smoothed; dots: held-out split. {caption}"
            result.append(Figure(f"{title}.", svg, caption))
    return result


def _drifts(runs: Mapping[str, TrainingRun], families: Mapping[str, Sequence[str]]) -> list[Figure]:
    """The mean chosen and rejected scores over training, a figure per run with all its seeds."""
    result = []
    for k, (name, seeds) in enumerate(families.items()):
        means = [(runs[run].curve("chosen_mean"), runs[run].curve("rejected_mean")) for run in seeds if run in runs]
        shown = [(chosen, rejected) for chosen, rejected in means if chosen.known and rejected.known]
        if shown:
            svg = figures.drift(f"drift-{k}", f"Mean chosen and rejected score of {name} over training steps.", shown)
            result.append(Figure(f"{name}: mean scores.", svg, _drift_caption(shown)))
    return result


def _drift_caption(seeds: Sequence[tuple[Curve, Curve]]) -> str:
    chosen, rejected = (fmean(curve.final for curve in curves) for curves in zip(*seeds, strict=True))
    ends = f"Ends at {decimal(chosen)} for chosen and {decimal(rejected)} for rejected answers"
    return f"{ends}. Lighter lines are further seeds." if len(seeds) > 1 else f"{ends}."


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

"""The report's part about training: curves of loss, accuracy and scores, and findings about each run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import pandas as pd
from markupsafe import Markup

from rewardline.report import figures
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
    """Curves of all runs, None where no run has logged any, with a legend of (color, run); and drifts.

    `sets`: name, loss and accuracy of each other evaluation set.
    """

    legend: list[tuple[str, str]]
    loss: Markup | None
    accuracy: Markup | None
    sets: list[tuple[str, Markup, Markup]]
    drifts: list[ScoreDrift]


def training_section(
    runs: Sequence[TrainingRun], colors: Mapping[str, str], families: Mapping[str, Sequence[str]]
) -> TrainingSection:
    """Draw the curves. `colors` are by run id; `families` are the run ids of the seeds of each run."""
    series = {
        field: [
            (colors.get(one.facts.run, figures.QUIET), one.steps[field], one.evals[f"eval_{field}"])
            for one in runs
            if one.steps[field].count() or one.evals[f"eval_{field}"].count()
        ]
        for field in ("loss", "accuracy")
    }
    loss, accuracy = series["loss"], series["accuracy"]
    names = dict.fromkeys(name for one in runs for name in one.sets)
    drifts = [
        _drift(f"drift-{k}", name, [one for one in runs if one.facts.run in seeds])
        for k, (name, seeds) in enumerate(families.items())
    ]
    return TrainingSection(
        legend=[(colors[one.facts.run], one.facts.run) for one in runs if one.facts.run in colors],
        loss=figures.curves("loss", "Loss", loss, "loss", math.log(2)) if loss else None,
        accuracy=figures.curves("accuracy", "Accuracy", accuracy, "accuracy (%)", 0.5, 100) if accuracy else None,
        sets=[_set_curves(k, name, runs, colors) for k, name in enumerate(names)],
        drifts=[one for one in drifts if one is not None],
    )


def _set_curves(
    number: int, name: str, runs: Sequence[TrainingRun], colors: Mapping[str, str]
) -> tuple[str, Markup, Markup]:
    none = pd.Series(dtype=float)
    loss, accuracy = (
        [(colors.get(one.facts.run, figures.QUIET), none, one.sets[name][field]) for one in runs if name in one.sets]
        for field in ("loss", "accuracy")
    )
    return (
        name,
        figures.curves(f"loss-{number}", f"Loss of {name}", loss, "loss", math.log(2)),
        figures.curves(f"accuracy-{number}", f"Accuracy of {name}", accuracy, "accuracy (%)", 0.5, 100),
    )


def _drift(name: str, run: str, seeds: Sequence[TrainingRun]) -> ScoreDrift | None:
    means = [(one.steps["chosen_mean"], one.steps["rejected_mean"]) for one in seeds]
    known = [(chosen, rejected) for chosen, rejected in means if chosen.count() and rejected.count()]
    if not known:
        return None
    chosen, rejected = (decimal(fmean(map(_final, curves))) for curves in zip(*known, strict=True))
    return ScoreDrift(run, len(known), figures.drift(name, run, known), chosen, rejected)


def _final(values: pd.Series) -> float:
    """The mean over the last twentieth of the steps, NaN without a value there."""
    return float(values.tail(max(1, len(values) // 20)).mean())


def training_findings(run: TrainingRun) -> list[Markup]:
    """What deserves attention in a run's training, one sentence each."""
    findings: list[str | Markup] = []
    chosen, rejected = _final(run.steps["chosen_mean"]), _final(run.steps["rejected_mean"])
    if min(abs(chosen), abs(rejected)) > DRIFT and chosen * rejected > 0:
        findings.append(
            Markup(
                "scores drift {}; see <code>centering</code>. The mean score ends at {} for chosen and {} for "
                "rejected answers: accuracy does not suffer, but uses of the score itself do."
            ).format("positive" if chosen > 0 else "negative", decimal(chosen), decimal(rejected))
        )
    loss, held_out = run.steps["loss"], run.evals["eval_loss"].dropna()
    if broken := int(loss.isna().sum()):
        findings.append(f"the loss was not a finite number at {broken:,} of {len(loss):,} steps.")
    if run.facts.training.objective is None and _final(loss) > 0.98 * math.log(2):
        findings.append(
            f"the training loss ends at {_final(loss):.3f}; random guessing has 0.693: the run has learned next to "
            "nothing."
        )
    if len(held_out) > 2 and held_out.iloc[-1] > 1.05 * held_out.min():
        findings.append(
            f"the held-out loss was lowest at step {held_out.idxmin():,.0f} ({held_out.min():.3f}) and ends at "
            f"{held_out.iloc[-1]:.3f}: the run overfits; fewer epochs or a lower learning rate may do better."
        )
    if run.facts.git.dirty:
        findings.append("trained from code with changes that were not committed.")
    return [Markup("<b>{}</b>: {}").format(run.facts.run, text) for text in findings]

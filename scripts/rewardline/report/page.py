"""The report for people: one HTML page that needs no network, no script and no other file, the same bytes each time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import jinja2
from markupsafe import Markup

from rewardline.core.files import atomic_file
from rewardline.data.pairs.probes import made_by_rule
from rewardline.evaluation.leaderboards import Entry, entries, leaderboards
from rewardline.evaluation.results import EvaluationResult, Rates, read_results
from rewardline.report import figures
from rewardline.report.benchmarks import section
from rewardline.report.differences import interval_points, of_board, read_comparisons, signed
from rewardline.report.examples import suspects
from rewardline.report.figure_style import CHOSEN, FAMILY_COLOURS, QUIET, REJECTED, Figure, shade
from rewardline.report.findings import about_training, count, span, trained_on
from rewardline.report.summary import percent, score
from rewardline.report.tables import as_table, mixture, provenance, tokens, trainings, truncated
from rewardline.report.template import TEMPLATE
from rewardline.report.training import Curve, Training, read_object, read_training

MANY_REJECTED, MANY_TRUNCATED = 0.1, 0.05
"""Shares above which rejected rows and truncated pairs deserve a look."""


@dataclass(frozen=True)
class Inputs:
    """The files that the report is made from; the names of the folders above them match scores to metrics."""

    metrics: Sequence[Path]
    scores: Sequence[Path] = ()
    models: Sequence[Path] = ()
    stats: Sequence[Path] = ()
    tokens: Sequence[Path] = ()
    pairs: Sequence[Path] = ()
    suspects: Path | None = None
    comparisons: Path | None = None


def write_report(inputs: Inputs, output: Path) -> None:
    """Write the page; a `UserError` names an input that is missing or damaged."""
    page = render(inputs)
    with atomic_file(output) as partial:
        partial.write_text(page, encoding="utf-8")


def render(inputs: Inputs) -> str:
    """The page as HTML."""
    evaluations = read_results(inputs.metrics)
    families = _families(evaluations)
    colours = {
        run: shade(FAMILY_COLOURS[k % len(FAMILY_COLOURS)], seed)
        for k, runs in enumerate(families.values())
        for seed, run in enumerate(runs)
    }
    scores = {(path.parent.parent.name, path.parent.name): path for path in inputs.scores}
    trained = sorted((read_training(folder) for folder in set(inputs.models)), key=lambda one: one.run)
    stats = {path.parent.name: read_object(path) for path in sorted(set(inputs.stats))}
    mixtures = [mixture(name, one) for name, one in stats.items()]
    probes = {name for name, one in stats.items() if made_by_rule(one)}
    manifests = {
        f"{path.parent.parent.name}, {path.parent.name}": read_object(path) for path in sorted(set(inputs.tokens))
    }
    pairs = {folder.parent.name: folder for folder in inputs.pairs}
    paired = read_comparisons(inputs.comparisons) if inputs.comparisons else {}
    suspected, found = suspects(inputs.suspects) if inputs.suspects else ([], 0)
    tests = [
        section(
            board,
            scores,
            pairs,
            colours,
            of_board(board, paired),
            board.benchmark in probes,
            f"test{k}",
        )
        for k, board in enumerate(leaderboards(evaluations), 1)
    ]
    looks = [look for one in trained for look in about_training(one)]
    looks += [look for test in tests for look in test.looks]
    for one in mixtures:
        if one.rejected > MANY_REJECTED:
            looks.append(_look(one.name, f"{percent(one.rejected)} of the rows read were rejected; see Data for why."))
    for name, manifest in manifests.items():
        if (share := truncated(manifest)) > MANY_TRUNCATED:
            looks.append(_look(name, f"{percent(share)} of the pairs lost tokens to the length limit."))
    return _template().render(
        tests=tests,
        legend=[(colours[one.run], one.run) for one in trained if one.run in colours],
        matrix=[
            (colours[runs[0]], name, [_cell(test.board.entries, name) for test in tests])
            for name, runs in families.items()
        ],
        looks=looks,
        subjects=trained_on(trained, {one.run: one for one in evaluations}, families),
        curves=_curves(trained, colours),
        drifts=_drifts(trained, families),
        mixtures=mixtures,
        tokens=as_table([tokens(name, manifest) for name, manifest in manifests.items()]),
        trainings=as_table(trainings(trained)),
        provenance=provenance(trained),
        trained=[one.run for one in trained],
        suspects=suspected,
        suspects_found=found,
        chosen=CHOSEN,
        rejected=REJECTED,
    )


def _families(evaluations: Sequence[EvaluationResult]) -> dict[str, list[str]]:
    """The ids of all runs, seeds of one run together under their common name; in the order of the evaluations."""
    first: dict[str, EvaluationResult] = {}
    for one in evaluations:
        first.setdefault(one.run, one.model_copy(update={"benchmark": ""}))
    return {entry.name: [one.run for one in entry.members] for entry in entries(first.values())}


def _cell(board: Sequence[Entry], name: str) -> Rates | None:
    return next((entry.total for entry in board if entry.name == name), None)


def _look(name: str, text: str) -> Markup:
    return Markup("<b>{}</b>: {}").format(name, text)


def _curves(trained: Sequence[Training], colours: Mapping[str, str]) -> list[Figure]:
    """Loss and accuracy of all runs; what no run has logged is left out."""
    result = []
    for field, label, chance, unit, title, caption in (
        (
            "loss",
            "loss",
            math.log(2),
            1,
            "Loss",
            "The dashed line is ln 2 = 0.693, the loss of coin flips. "
            "Dots that rise while the line falls mean overfitting.",
        ),
        (
            "accuracy",
            "accuracy (%)",
            0.5,
            100,
            "Accuracy",
            "The dashed line is 50%, coin flips. A gap between line and dots is what the run has learned by heart.",
        ),
    ):
        series = [
            (colours.get(one.run, QUIET), one.curve(field), one.curve(f"eval_{field}"))
            for one in trained
            if one.curve(field).known or one.curve(f"eval_{field}").known
        ]
        if series:
            svg = figures.curves(f"curve-{field}", f"{title} over training steps.", series, label, chance, unit)
            result.append(
                Figure(f"{title}.", svg, f"Lines: training batches, smoothed; dots: held-out split. {caption}")
            )
    return result


def _drifts(trained: Sequence[Training], families: Mapping[str, Sequence[str]]) -> list[Figure]:
    """The mean chosen and rejected scores over training, a figure per run with all its seeds."""
    by_run = {one.run: one for one in trained}
    result = []
    for k, (name, runs) in enumerate(families.items()):
        pairs = [
            (by_run[run].curve("chosen_mean"), by_run[run].curve("rejected_mean")) for run in runs if run in by_run
        ]
        shown = [pair for pair in pairs if pair[0].known and pair[1].known]
        if shown:
            svg = figures.drift(f"drift-{k}", f"Mean chosen and rejected score of {name} over training steps.", shown)
            result.append(Figure(f"{name}: mean scores.", svg, _drift_words(shown)))
    return result


def _drift_words(seeds: Sequence[tuple[Curve, Curve]]) -> str:
    chosen = fmean(pair[0].final for pair in seeds)
    rejected = fmean(pair[1].final for pair in seeds)
    ends = f"Ends at {score(chosen)} for chosen and {score(rejected)} for rejected answers"
    return f"{ends}. Lighter lines are further seeds." if len(seeds) > 1 else f"{ends}."


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        percent=percent, count=count, span=span, points=signed, interval_points=interval_points, sentence=_sentence
    )
    return environment.from_string(TEMPLATE)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]

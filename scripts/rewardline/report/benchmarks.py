"""The report's part about one benchmark: a leaderboard of the runs, subsets, distributions and the hardest pairs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from markupsafe import Markup

from rewardline.evaluation.comparisons import Difference
from rewardline.evaluation.leaderboards import Leaderboard
from rewardline.evaluation.results import Rates
from rewardline.evaluation.scores import read_table
from rewardline.report import figures
from rewardline.report.diagnostics import Diagnostics, diagnostics
from rewardline.report.examples import Example, hardest_pairs
from rewardline.report.findings import compared_with_best, headline, probe_headline, subset_findings
from rewardline.report.inputs import ReportData

COMPARED = 4
"""Runs in one figure; more would be hard to distinguish."""
DISTRIBUTIONS = 8
SUBSETS_DRAWN = 24
RANKED_PAIRS = 10
"""Where subsets are many, the figure shows only those with this many pairs, if there are enough of them."""


@dataclass(frozen=True)
class Subsets:
    """The accuracy by subset.

    Attributes:
        svg: a figure of `drawn` of them: where these are not all, the weakest and the strongest of those with
            `least_pairs` or more.
        rows: the rates of each compared entry, None where it has none, by name; the weakest subset first.
    """

    svg: Markup
    drawn: int
    least_pairs: int
    rows: list[tuple[str, list[Rates | None]]]


@dataclass(frozen=True)
class Distribution:
    """Histograms of the scores and of the margins of a run, and its accuracy."""

    run: str
    scores: Markup
    margins: Markup
    accuracy: float


@dataclass(frozen=True)
class BenchmarkSection:
    """All that the report says about one benchmark.

    Attributes:
        anchor: unique on the page.
        title: the benchmark in words.
        headline, findings: sentences.
        scale: the range of the leaderboard's bars.
        compared: each entry against the best one, by name.
        paired: whether that is by paired differences.
        differences: between every two of three or more entries, the better one first.
        legend: color and name of the compared entries, where there are several.
        distributions: histograms of scores and margins; those of `left_out` entries are not drawn.
        hardest: the pairs that the best entry, `hardest_run`, gets most wrong.
        probes: whether the pairs are real answers against hacks of them.
    """

    board: Leaderboard
    anchor: str
    title: str
    headline: Markup
    findings: list[Markup]
    scale: tuple[float, float]
    compared: dict[str, str]
    paired: bool
    differences: list[Difference]
    legend: list[tuple[str, str]]
    diagnostics: Diagnostics
    subsets: Subsets | None
    distributions: list[Distribution]
    left_out: int
    hardest: list[Example]
    hardest_run: str
    probes: bool


def benchmark_section(board: Leaderboard, data: ReportData, colors: Mapping[str, str], anchor: str) -> BenchmarkSection:
    """Reduce the scores of a benchmark's runs, one file at a time, and draw its figures.

    `colors` are by run id; `anchor` is unique on the page.
    """
    probes = board.benchmark in data.probes
    differences = data.differences(board)
    findings = subset_findings(board, probes)
    paths = data.score_files(board)
    scored = [entry for entry in board.entries if all(one.run in paths for one in entry.members)]
    drawn = {entry.members[0].run: f"{anchor}-{k}" for k, entry in enumerate(scored[:DISTRIBUTIONS])}
    distributions: list[Distribution] = []
    for one in (one for entry in board.entries for one in entry.members if one.run in paths):
        table = read_table(paths[one.run], ("chosen_score", "rejected_score"))
        chosen, rejected = (column.to_numpy().astype(np.float64) for column in table.columns)
        usable = np.isfinite(chosen) & np.isfinite(rejected)
        if not usable.all():
            text = Markup("<b>{}</b>: on the {}, {:,} of {:,} pairs have a score that is not a finite number.")
            findings.append(text.format(one.run, board.title, int((~usable).sum()), len(usable)))
        if one.run in drawn and usable.any():
            name, chosen, rejected = drawn[one.run], chosen[usable], rejected[usable]
            both = figures.score_histogram(f"{name}-scores", one.run, chosen, rejected)
            margins = figures.margin_histogram(f"{name}-margins", one.run, chosen - rejected)
            distributions.append(Distribution(one.run, both, margins, one.accuracy))
    compared = board.competing[:COMPARED]
    measured = diagnostics(anchor, () if probes else compared, colors)
    findings += [
        Markup("<b>{}</b>, on the {}: it {}").format(name, board.title, text) for name, text in measured.findings
    ]
    pairs = data.pairs.get(board.mixture or board.benchmark)
    names = [entry.name for entry in board.entries]
    return BenchmarkSection(
        board=board,
        anchor=anchor,
        title=f"hacks of answers ({board.benchmark})" if probes else board.title,
        headline=probe_headline(board) if probes else headline(board, differences),
        findings=findings,
        scale=_scale([rates for e in board.entries for rates in (e.total, *(one.total for one in e.members))]),
        compared={entry.name: compared_with_best(entry, board, differences) for entry in board.entries},
        paired=bool(differences),
        differences=[differences[two] for two in combinations(names, 2) if two in differences and len(names) > 2],
        legend=[(colors[e.members[0].run], e.title) for e in compared] if len(names) > 1 else [],
        diagnostics=measured,
        subsets=_subsets(board, colors, f"{anchor}-subsets"),
        distributions=distributions,
        left_out=max(0, len(scored) - DISTRIBUTIONS),
        hardest=hardest_pairs([paths[one.run] for one in scored[0].members], pairs) if scored and pairs else [],
        hardest_run=scored[0].name if scored else "",
        probes=probes,
    )


def _scale(rates: Sequence[Rates]) -> tuple[float, float]:
    """The range, in tenths, that holds all intervals, the length-only rule and 50%."""
    values = [value for one in rates for value in (one.accuracy, one.low, one.high, one.length) if math.isfinite(value)]
    return math.floor(10 * min([0.5, *values])) / 10, math.ceil(10 * max([0.6, *values])) / 10


def _subsets(board: Leaderboard, colors: Mapping[str, str], name: str) -> Subsets | None:
    series = [(colors[entry.members[0].run], entry.by_subset) for entry in board.competing[:COMPARED]]
    rows = [(subset, [rates.get(subset) for _, rates in series]) for subset in board.subsets]
    rows = [(subset, rates) for subset, rates in rows if any(rates)]
    if len(rows) < 2:
        return None
    large = [subset for subset, rates in rows if next(filter(None, rates)).n >= RANKED_PAIRS]
    least = RANKED_PAIRS if len(rows) > SUBSETS_DRAWN <= len(large) else 0
    names = large if least else [subset for subset, _ in rows]
    if len(names) > SUBSETS_DRAWN:
        names = names[: SUBSETS_DRAWN // 2] + names[-SUBSETS_DRAWN // 2 :]
    alt = f"Accuracy of {len(names)} subsets of the {board.title}, with intervals, beside the length-only rule."
    return Subsets(figures.subset_dots(name, alt, names, series), len(names), least, rows)

"""The report's part about one benchmark: a leaderboard of the runs, subsets, distributions and the hardest pairs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from rewardline.evaluation.leaderboards import Entry, Leaderboard
from rewardline.evaluation.results import Rates
from rewardline.report import figures
from rewardline.report.diagnostics import Diagnostics, diagnostics
from rewardline.report.differences import DifferenceTable, difference_table
from rewardline.report.examples import Example, hardest_pairs
from rewardline.report.findings import compared_with_best, headline, probe_headline, subset_findings
from rewardline.report.formatting import Bar, Scale, decimal
from rewardline.report.inputs import ReportData, read_scores

COMPARED = 4
"""How many runs share one figure; more could not be told apart."""

DISTRIBUTIONS = 8
SUBSETS_DRAWN = 24
SUBSETS_LISTED = 300
RANKED_PAIRS = 10
"""Where subsets are many, the figure shows only those with this many pairs, if there are enough of them."""


@dataclass(frozen=True)
class LeaderboardRow:
    """A row of the leaderboard: an entry, or one seed of the entry above.

    `numbers` are the loss and the mean chosen and rejected score; `bar` is None where the interval is unknown.
    """

    name: str
    colour: str
    is_seed: bool
    rates: Rates
    numbers: tuple[str, str, str]
    bar: Bar | None
    comparison: str


@dataclass(frozen=True)
class SubsetRow:
    """A subset: its pairs, the rates of each compared entry, and the accuracy of the length-only rule."""

    name: str
    n: int
    rates: list[Rates | None]
    length: float


@dataclass(frozen=True)
class Subsets:
    """The accuracy by subset.

    Attributes:
        svg: a figure of `drawn` of `count` subsets: where these are not all, the weakest and the strongest of those
            with `least_pairs` or more.
        entries: the names of the compared entries.
        rows: the first SUBSETS_LISTED of `count`, the weakest first.
    """

    svg: Markup
    drawn: int
    least_pairs: int
    count: int
    entries: list[str]
    rows: list[SubsetRow]


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
        rows: the leaderboard.
        differences: between every two entries; None for fewer than three.
        paired: whether the leaderboard has paired comparisons.
        legend: colour and name of the compared entries, where there are several.
        distributions: histograms of scores and margins; those of `left_out` entries are not drawn.
        hardest: the pairs that the best entry, `hardest_run`, gets most wrong.
        probes: whether the pairs are real answers against hacks of them.
    """

    board: Leaderboard
    anchor: str
    title: str
    headline: Markup
    findings: list[Markup]
    scale: Scale
    rows: list[LeaderboardRow]
    differences: DifferenceTable | None
    paired: bool
    legend: list[tuple[str, str]]
    diagnostics: Diagnostics
    subsets: Subsets | None
    distributions: list[Distribution]
    left_out: int
    hardest: list[Example]
    hardest_run: str
    probes: bool


def benchmark_section(
    board: Leaderboard, data: ReportData, colours: Mapping[str, str], anchor: str
) -> BenchmarkSection:
    """Reduce the scores of a benchmark's runs, one file at a time, and draw its figures.

    `colours` are by run id; `anchor` is unique on the page.
    """
    probes = board.benchmark in data.probes
    differences = data.differences(board)
    findings = subset_findings(board, probes)
    paths = data.score_files(board)
    scored = [entry for entry in board.entries if all(one.run in paths for one in entry.members)]
    drawn = {entry.members[0].run: f"{anchor}-{k}" for k, entry in enumerate(scored[:DISTRIBUTIONS])}
    distributions: list[Distribution] = []
    for one in (one for entry in board.entries for one in entry.members if one.run in paths):
        chosen, rejected = read_scores(paths[one.run])
        usable = np.isfinite(chosen) & np.isfinite(rejected)
        if not usable.all():
            text = Markup("<b>{}</b>: on the {}, {:,} of {:,} pairs have a score that is not a finite number.")
            findings.append(text.format(one.run, board.title, int((~usable).sum()), len(usable)))
        if one.run in drawn and usable.any():
            name, chosen, rejected = drawn[one.run], chosen[usable], rejected[usable]
            both = figures.score_histogram(f"{name}-scores", one.run, chosen, rejected)
            margins = figures.margin_histogram(f"{name}-margins", one.run, chosen - rejected)
            distributions.append(Distribution(one.run, both, margins, one.accuracy))
    compared = board.entries[:COMPARED]
    measured = diagnostics(anchor, () if probes else compared, colours)
    findings += [
        Markup("<b>{}</b>, on the {}: it {}").format(name, board.title, text) for name, text in measured.findings
    ]
    pairs = data.pairs.get(board.mixture or board.benchmark)
    scale = _scale([one.total for entry in board.entries for one in entry.members])
    return BenchmarkSection(
        board=board,
        anchor=anchor,
        title=f"hacks of answers ({board.benchmark})" if probes else board.title,
        headline=probe_headline(board) if probes else headline(board, differences),
        findings=findings,
        scale=scale,
        rows=[
            row
            for entry in board.entries
            for row in _rows(entry, compared_with_best(entry, board, differences), colours, scale)
        ],
        differences=difference_table(board, differences),
        paired=bool(differences),
        legend=[(colours[e.members[0].run], e.name) for e in compared] if len(board.entries) > 1 else [],
        diagnostics=measured,
        subsets=_subsets(board, colours, f"{anchor}-subsets"),
        distributions=distributions,
        left_out=max(0, len(scored) - DISTRIBUTIONS),
        hardest=hardest_pairs([paths[one.run] for one in scored[0].members], pairs) if scored and pairs else [],
        hardest_run=scored[0].name if scored else "",
        probes=probes,
    )


def _rows(entry: Entry, comparison: str, colours: Mapping[str, str], scale: Scale) -> list[LeaderboardRow]:
    """The row of an entry, and one for each of several seeds."""
    name = entry.name if len(entry.members) == 1 else f"{entry.name}, mean of {len(entry.members)} seeds"
    means = (entry.mean("loss"), entry.mean("chosen_mean"), entry.mean("rejected_mean"))
    rows = [(name, entry.members[0].run, entry.total, means)]
    if len(entry.members) > 1:
        rows += [(one.run, one.run, one.total, (one.loss, one.chosen_mean, one.rejected_mean)) for one in entry.members]
    return [
        LeaderboardRow(
            name=name,
            colour=colours[run],
            is_seed=k > 0,
            rates=rates,
            numbers=(decimal(loss, 3), decimal(chosen), decimal(rejected)),
            bar=scale.bar(rates.accuracy, rates.low, rates.high, rates.length),
            comparison="" if k else comparison,
        )
        for k, (name, run, rates, (loss, chosen, rejected)) in enumerate(rows)
    ]


def _scale(rates: Sequence[Rates]) -> Scale:
    """The range, in tenths, that holds all intervals, the length-only rule and 50%."""
    values = [value for one in rates for value in (one.accuracy, one.low, one.high, one.length) if math.isfinite(value)]
    return Scale(math.floor(10 * min([0.5, *values])) / 10, math.ceil(10 * max([0.6, *values])) / 10)


def _subsets(board: Leaderboard, colours: Mapping[str, str], name: str) -> Subsets | None:
    compared = board.entries[:COMPARED]
    rates = [entry.by_subset for entry in compared]
    rows = []
    for subset in board.subsets:
        found = [one.get(subset) for one in rates]
        known = [one for one in found if one is not None]
        if known:
            rows.append(SubsetRow(subset, known[0].n, found, known[0].length))
    if len(rows) < 2:
        return None
    large = [one for one in rows if one.n >= RANKED_PAIRS]
    least = RANKED_PAIRS if len(rows) > SUBSETS_DRAWN <= len(large) else 0
    names = [one.name for one in (large if least else rows)]
    if len(names) > SUBSETS_DRAWN:
        names = names[: SUBSETS_DRAWN // 2] + names[-SUBSETS_DRAWN // 2 :]
    alt = f"Accuracy of {len(names)} subsets of the {board.title}, with intervals, beside the length-only rule."
    series = [(colours[entry.members[0].run], one) for entry, one in zip(compared, rates, strict=True)]
    return Subsets(
        svg=figures.subset_dots(name, alt, names, series),
        drawn=len(names),
        least_pairs=least,
        count=len(rows),
        entries=[entry.name for entry in compared],
        rows=rows[:SUBSETS_LISTED],
    )

"""The report's part about one board: the runs that were judged on the same pairs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from rewardline.evaluation.leaderboards import Entry, Leaderboard
from rewardline.evaluation.results import EvaluationResult, Rates
from rewardline.report import figures
from rewardline.report.differences import Differences, table
from rewardline.report.differences import Row as Compared
from rewardline.report.examples import Example, hardest
from rewardline.report.figure_style import Figure
from rewardline.report.findings import about_board, probe_verdict, standing, verdict
from rewardline.report.judged import Judged, judged
from rewardline.report.summary import percent, score
from rewardline.report.training import Scores, read_scores

COMPARED = 4
"""How many runs share one figure; more could not be told apart."""

DISTRIBUTIONS = 8
SUBSETS_DRAWN = 24
SUBSETS_LISTED = 300
RANKED_PAIRS = 10
"""Where subsets are many, only those with this many pairs compete for a place in the figure."""


@dataclass(frozen=True)
class Row:
    """A row of the leaderboard: an entry, or one seed of the entry above.

    `numbers` are the loss and the mean chosen and rejected score. `bar` says where on the track, in percent of its
    width, the interval starts, how long it is, and where accuracy and length-only rule lie; empty where unknown.
    """

    name: str
    colour: str
    is_seed: bool
    rates: Rates
    standing: str
    numbers: tuple[str, str, str]
    bar: tuple[float, ...]


@dataclass(frozen=True)
class Subsets:
    """The accuracy by subset: a figure, and a table with a column per compared entry. `left_out` are not listed."""

    figure: Figure
    names: list[str]
    rows: list[tuple[str, int, list[Rates | None], float]]
    left_out: int


@dataclass(frozen=True)
class Section:
    """All that the report says about one board. `track` is the range of the leaderboard's bars, as shares.

    `differences` are between every two entries, `zero` is where on their track 0 lies, in percent, `undrawn` how many
    are left out; `paired` says whether the leaderboard compares pair by pair.
    """

    board: Leaderboard
    anchor: str
    title: str
    verdict: Markup
    looks: list[Markup]
    track: tuple[float, float]
    rows: list[Row]
    differences: list[Compared]
    zero: float
    undrawn: int
    paired: bool
    legend: list[tuple[str, str]]
    judged: Judged
    subsets: Subsets | None
    distributions: list[Figure]
    left_out: int
    hardest: list[Example]
    hardest_run: str
    probes: bool

    @property
    def half(self) -> float:
        """Where on the track one half lies, in percent of its width."""
        low, high = self.track
        return round(100 * (0.5 - low) / (high - low), 2)


def section(
    board: Leaderboard,
    scores: Mapping[tuple[str, str], Path],
    pairs: Mapping[str, Path],
    colours: Mapping[str, str],
    differences: Differences,
    probes: bool,
    anchor: str,
) -> Section:
    """Reduce the scores of a board's runs, one file at a time, and draw its figures.

    `scores` are paths by run and benchmark, `pairs` folders of pairs by mixture or benchmark, `colours` are by
    run, and `anchor` is unique on the page. `probes`: the pairs are real answers against hacks of them.
    """
    members = [one for entry in board.entries for one in entry.members]
    paths = {one.run: path for one in members if (path := scores.get((one.run, board.benchmark))) is not None}
    reduced = {run: read_scores(path) for run, path in paths.items()}
    scored = [entry for entry in board.entries if all(one.run in reduced for one in entry.members)]
    found = judged(anchor, () if probes else board.entries[:COMPARED], colours)
    folder = pairs.get(board.mixture or board.benchmark)
    between_all, zero, undrawn = table(board, differences)
    track = _track([one.total for one in members])
    return Section(
        board=board,
        anchor=anchor,
        title=f"hacks of answers ({board.benchmark})" if probes else board.title,
        verdict=probe_verdict(board) if probes else verdict(board, differences),
        looks=about_board(board, probes)
        + [
            Markup("<b>{}</b>: on the {}, {:,} of {:,} pairs have a score that is not a finite number.").format(
                run, board.title, one.unusable, one.n
            )
            for run, one in reduced.items()
            if one.unusable
        ]
        + [Markup("<b>{}</b>, on the {}: it {}").format(name, board.title, text) for name, text in found.looks],
        track=track,
        rows=[
            row for entry in board.entries for row in _rows(entry, standing(entry, board, differences), colours, track)
        ],
        differences=between_all,
        zero=zero,
        undrawn=undrawn,
        paired=bool(differences),
        legend=[(colours[e.members[0].run], e.name) for e in board.entries[:COMPARED]]
        if len(board.entries) > 1
        else [],
        judged=found,
        subsets=_subsets(board, colours, anchor, probes),
        distributions=[
            figure
            for k, entry in enumerate(scored[:DISTRIBUTIONS])
            for figure in _distributions(f"{anchor}-{k}", entry.members[0], reduced[entry.members[0].run])
        ],
        left_out=max(0, len(scored) - DISTRIBUTIONS),
        hardest=hardest(scored[0], paths, folder) if scored and folder else [],
        hardest_run=scored[0].name if scored else "",
        probes=probes,
    )


def _rows(entry: Entry, against: str, colours: Mapping[str, str], track: tuple[float, float]) -> list[Row]:
    means = (score(entry.mean("chosen_mean")), score(entry.mean("rejected_mean")))
    name = entry.name if len(entry.members) == 1 else f"{entry.name}, mean of {len(entry.members)} seeds"
    colour, rates = colours[entry.members[0].run], entry.total
    numbers = (_loss(entry.mean("loss")), *means)
    rows = [Row(name, colour, False, rates, against, numbers, _bar(rates, track))]
    for one in entry.members if len(entry.members) > 1 else ():
        numbers = (_loss(one.loss), score(one.chosen_mean), score(one.rejected_mean))
        rows.append(Row(one.run, colours[one.run], True, one.total, "", numbers, _bar(one.total, track)))
    return rows


def _loss(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"


def _track(rates: Sequence[Rates]) -> tuple[float, float]:
    """The round range, in tenths, that holds all intervals, the length-only rule and one half."""
    values = [value for one in rates for value in (one.accuracy, one.low, one.high, one.length) if math.isfinite(value)]
    return math.floor(10 * min([0.5, *values])) / 10, math.ceil(10 * max([0.6, *values])) / 10


def _bar(rates: Rates, track: tuple[float, float]) -> tuple[float, ...]:
    low, high = track
    if math.isnan(rates.accuracy + rates.low + rates.high):
        return ()
    places = [100 * (value - low) / (high - low) for value in (rates.low, rates.high, rates.accuracy, rates.length)]
    start, end, dot, length = (round(place, 2) if math.isfinite(place) else -1.0 for place in places)
    return start, round(end - start, 2), dot, length


def _subsets(board: Leaderboard, colours: Mapping[str, str], anchor: str, probes: bool) -> Subsets | None:
    compared = board.entries[:COMPARED]
    rates = [entry.by_subset for entry in compared]
    rows = []
    for name in board.subsets:
        found = [one.get(name) for one in rates]
        known = [one for one in found if one is not None]
        if known:
            rows.append((name, known[0].n, found, known[0].length))
    if len(rows) < 2:
        return None
    drawn, caption = _drawn([(name, n) for name, n, _, _ in rows])
    alt = f"Accuracy of {len(drawn)} subsets of the {board.title}, with intervals, beside the length-only rule."
    series = [(colours[entry.members[0].run], one) for entry, one in zip(compared, rates, strict=True)]
    svg = figures.subset_dots(f"{anchor}-subsets", alt, drawn, series)
    caption += (
        " Dot: accuracy; line: its 95% interval; grey bar: the accuracy of always picking the longer answer; dashed: "
        "coin flips. A subset whose interval reaches back over its grey bar is not shown to beat length."
    )
    if probes:
        caption = "Dot: how often the real answer beats the hack; line: its 95% interval; grey bar: the longer answer."
    return Subsets(
        Figure("Which hacks win?" if probes else "Accuracy by subset.", svg, caption.strip()),
        [entry.name for entry in compared],
        rows[:SUBSETS_LISTED],
        max(0, len(rows) - SUBSETS_LISTED),
    )


def _drawn(subsets: Sequence[tuple[str, int]]) -> tuple[list[str], str]:
    """Which subsets (name, pairs; weakest first) to draw, weakest first, and a sentence about those left out."""
    if len(subsets) <= SUBSETS_DRAWN:
        return [name for name, _ in subsets], ""
    ranked = [name for name, n in subsets if n >= RANKED_PAIRS]
    chance = ranked if len(ranked) >= SUBSETS_DRAWN else [name for name, _ in subsets]
    among = f" with {RANKED_PAIRS} pairs or more" if chance is ranked else ""
    half = SUBSETS_DRAWN // 2
    told = f"Of {len(subsets):,} subsets the {half} weakest and the {half} strongest{among}, weakest first."
    return chance[:half] + chance[-half:], told


def _distributions(name: str, one: EvaluationResult, scores: Scores) -> list[Figure]:
    if scores.n == scores.unusable:
        return []
    alt = f"Histogram of the chosen and rejected scores of {one.run}."
    both = figures.score_histogram(f"{name}-scores", alt, scores.scores)
    margins = figures.margin_histogram(f"{name}-margins", f"Histogram of the margins of {one.run}.", scores.margins)
    right = f"Right in {percent(one.total.accuracy)}."
    return [Figure(f"{one.run}: scores.", both, ""), Figure(f"{one.run}: margins.", margins, right)]

"""A run's scores beyond its accuracy: calibration, length bias, win rates of sources, a benchmark's own figures."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from markupsafe import Markup

from rewardline.evaluation.leaderboards import Entry, average, pooled
from rewardline.evaluation.results import BestOfNPoint, Bin, EvaluationResult, Rates
from rewardline.report import figures
from rewardline.report.findings import FEW_PAIRS
from rewardline.report.formatting import Table, decimal, interval, percent, signed

SOURCES = 20
"""Sources of answers that are drawn."""
LEAST_PAIRS = 10
"""A bin with fewer pairs is not drawn: its accuracy is too uncertain."""

Seeds = Sequence[EvaluationResult]


@dataclass(frozen=True)
class WinRates:
    """A figure of the win rates of `drawn` of `count` sources of answers, those with the most pairs."""

    svg: Markup
    drawn: int
    count: int


@dataclass(frozen=True)
class Diagnostics:
    """Figures with a line per entry, and a table with a row for each; None where nothing is known.

    Attributes:
        calibration: accuracy against confidence.
        length_bias: accuracy against the difference in length.
        label_margins: accuracy against the margin of the label.
        win_rates: of the sources of answers.
        best_of_n: gold score of the best of n answers.
        published: the figures of a published benchmark by its own rules, and those of trivial baselines.
        findings: names of entries and sentences.
        least_pairs: bins with fewer are not drawn.
    """

    calibration: Markup | None
    length_bias: Markup | None
    label_margins: Markup | None
    win_rates: WinRates | None
    best_of_n: Markup | None
    table: Table | None
    published: Table | None
    findings: list[tuple[str, str]]
    least_pairs: int = LEAST_PAIRS

    @property
    def has_figures(self) -> bool:
        """Whether there is any figure."""
        return any((self.calibration, self.length_bias, self.label_margins, self.win_rates, self.best_of_n))


def diagnostics(anchor: str, entries: Sequence[Entry], colors: Mapping[str, str]) -> Diagnostics:
    """The diagnostics of some entries; `colors` are by run id, `anchor` is unique on the page."""
    shades = [colors[entry.members[0].run] for entry in entries]
    confidence = _series(entries, shades, lambda one: one.calibration.bins)
    lengths = _series(entries, shades, lambda one: one.length.by_difference)
    margins = _series(entries, shades, lambda one: one.by_margin)
    curves = zip(shades, map(_curve, entries), strict=True)
    best = [(shade, points) for shade, points in curves if points]
    longer = "Accuracy against how many tokens longer the chosen answer is."
    label = "chosen answer longer by (tokens)"
    margin = "Accuracy against the margin of the label."
    return Diagnostics(
        calibration=figures.reliability(f"{anchor}-calibration", confidence) if confidence else None,
        length_bias=_binned(f"{anchor}-length", longer, lengths, label, roots=True),
        label_margins=_binned(f"{anchor}-margin", margin, margins, "margin of the label"),
        win_rates=_win_rates(f"{anchor}-sources", entries, shades),
        best_of_n=figures.best_of_n(f"{anchor}-best", best) if best else None,
        table=_table(entries),
        published=_published(entries),
        findings=[(entry.name, text) for entry in entries for text in _findings(entry)],
    )


def _series(
    entries: Sequence[Entry], shades: Sequence[str], bins: Callable[[EvaluationResult], Sequence[Bin]]
) -> list[tuple[str, list[Bin]]]:
    """Color and bins of each entry that has any, its seeds pooled; bins with few pairs are left out."""
    by_color = [(shade, pooled(list(map(bins, entry.members)))) for entry, shade in zip(entries, shades, strict=True)]
    return [(shade, [one for one in some if one.n >= LEAST_PAIRS]) for shade, some in by_color if some]


def _binned(name: str, alt: str, series: figures.BinSeries, label: str, roots: bool = False) -> Markup | None:
    """The figure, unless there is no more than one bin."""
    several = any(len(bins) > 1 for _, bins in series)
    return figures.binned(name, alt, series, label, roots) if several else None


def _curve(entry: Entry) -> list[BestOfNPoint]:
    """The best-of-n curve of a published benchmark, the mean of seeds; [] where there is none."""
    curves = [one.sections.curve.points for one in entry.members if one.sections and one.sections.curve]
    names = ("kl", "gold", "gold_low", "gold_high", "best", "score")
    return [
        BestOfNPoint(n=points[0].n, **{name: fmean(getattr(point, name) for point in points) for name in names})
        for points in zip(*curves, strict=False)
    ]


def _win_rates(name: str, entries: Sequence[Entry], shades: Sequence[str]) -> WinRates | None:
    """The win rates of the sources with the most pairs, the best by the labels first."""
    sizes: dict[str, int] = {}
    by_entry = []
    for entry in entries:
        rates: dict[str, list[Rates]] = {}
        for one in (rate for member in entry.members for rate in member.win_rates):
            sizes[one.source] = max(one.n, sizes.get(one.source, 0))
            wins = Rates(n=one.n, accuracy=one.model, low=one.model, high=one.model, length=one.labelled)
            rates.setdefault(one.source, []).append(wins)
        by_entry.append({source: average(seeds) for source, seeds in rates.items()})
    labelled = {source: one.length for by_source in by_entry for source, one in by_source.items()}
    most = sorted(sizes, key=lambda source: (-sizes[source], source))[:SOURCES]
    if len(most) < 2:
        return None
    rows = sorted(most, key=lambda source: (-labelled[source], source))
    alt = f"Win rates of {len(rows)} sources of answers, by label and by score."
    series = list(zip(shades, by_entry, strict=True))
    return WinRates(figures.subset_dots(name, alt, rows, series, "wins (%)"), len(rows), len(sizes))


_COLUMNS: dict[str, Callable[[Seeds], str]] = {
    "mean confidence": lambda seeds: percent(_mean(map(_confidence, seeds))),
    "calibration error": lambda seeds: percent(_mean(one.calibration.ece for one in seeds)),
    "best temperature": lambda seeds: decimal(_mean(one.calibration.temperature for one in seeds)),
    "error at it": lambda seeds: percent(_mean(one.calibration.ece_at_temperature for one in seeds)),
    "length-controlled accuracy": lambda seeds: _with_interval([one.controlled for one in seeds]),
    "score-length correlation": lambda seeds: signed(_mean(one.length.correlation for one in seeds)),
    "best-of-N accuracy": lambda seeds: _with_interval([b.rates(b.prompts) for one in seeds if (b := one.best_of_n)]),
    "chance": lambda seeds: percent(_mean(one.best_of_n.chance for one in seeds if one.best_of_n)),
}


def _table(entries: Sequence[Entry]) -> Table | None:
    """A row per entry; a column in which nothing is known is left out."""
    cells = {title: [text(entry.members) for entry in entries] for title, text in _COLUMNS.items()}
    shown = {title: column for title, column in cells.items() if set(column) - {"-"}}
    if not shown:
        return None
    accuracies = [percent(entry.total.accuracy) for entry in entries]
    columns = [[entry.name for entry in entries], accuracies, *shown.values()]
    return Table(["run", "accuracy", *shown], [list(row) for row in zip(*columns, strict=True)])


def _published(entries: Sequence[Entry]) -> Table | None:
    """The score of each section, and overall, of the runs and of picking the longest, the shortest and the first."""
    known = {entry.name: [one.sections for one in entry.members if one.sections] for entry in entries}
    known = {name: seeds for name, seeds in known.items() if seeds}
    if not known:
        return None
    first = next(iter(known.values()))[0]
    baselines = {name: one for name, one in first.baselines.items() if math.isfinite(one.overall)}
    rows = []
    for name, section in first.sections.items():
        scores = [_mean(one.sections[name].score for one in seeds if name in one.sections) for seeds in known.values()]
        trivial = [percent(one.sections.get(name, math.nan)) for one in baselines.values()]
        rows.append([name, f"{section.n:,}", *map(percent, scores), *trivial])
    overall = [
        *(_mean(one.overall for one in seeds) for seeds in known.values()),
        *(b.overall for b in baselines.values()),
    ]
    rows.append(["overall", "", *map(percent, overall)])
    return Table([f"section of {first.arithmetic}", "pairs or lists", *known, *baselines], rows)


def _findings(entry: Entry) -> list[str]:
    """Confidence that is off, and accuracy that goes with length."""
    rates, seeds, findings = entry.total, entry.members, []
    if points := _curve(entry):
        peak, last = max(points, key=lambda one: one.gold), points[-1]
        if last.gold_high < peak.gold:
            findings.append(
                f"is over-optimized by best-of-n: the gold score falls from {peak.gold:.3g} at n = {peak.n} to"
                f" {last.gold:.3g} at n = {last.n}."
            )
    if rates.n < FEW_PAIRS or math.isnan(rates.low + rates.high):
        return findings
    confidence, temperature = _mean(map(_confidence, seeds)), _mean(one.calibration.temperature for one in seeds)
    if confidence > rates.high or confidence < rates.low:
        word = "overconfident" if confidence > rates.high else "underconfident"
        remedy = f"; margins divided by {temperature:.2f} fit best" if math.isfinite(temperature) else ""
        findings.append(
            f"is {word}: its mean confidence is {percent(confidence)}, its accuracy {percent(rates.accuracy)}{remedy}."
        )
    controlled = average([one.controlled for one in seeds])
    if controlled.low <= 0.5 < rates.low:
        findings.append(
            f"has an accuracy of {percent(controlled.accuracy)} ({interval(controlled)}) with the effect of length "
            "taken out, which may be random guessing: what it has learned may be length."
        )
    return findings


def _confidence(one: EvaluationResult) -> float:
    """The mean probability that a run gives to the answers it prefers."""
    pairs = sum(b.n for b in one.calibration.bins)
    return sum(b.n * b.confidence for b in one.calibration.bins if b.n) / pairs if pairs else math.nan


def _mean(values: Iterable[float]) -> float:
    """The mean of those that are known."""
    known = [value for value in values if math.isfinite(value)]
    return fmean(known) if known else math.nan


def _with_interval(rates: Sequence[Rates]) -> str:
    known = [one for one in rates if math.isfinite(one.accuracy)]
    if not known:
        return "-"
    mean = average(known)
    return f"{percent(mean.accuracy)} ({interval(mean)})"

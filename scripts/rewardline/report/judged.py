"""The report's part about what a run's scores are worth beyond its accuracy: calibration, length, answers, sections."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from rewardline.evaluation.leaderboards import Entry, average, pooled
from rewardline.evaluation.results import Bin, EvaluationResult, Rates
from rewardline.report import figures
from rewardline.report.figure_style import Figure
from rewardline.report.findings import FEW_PAIRS, span
from rewardline.report.summary import percent

SOURCES = 20
"""Sources of answers that are drawn."""


@dataclass(frozen=True)
class Judged:
    """Figures with a line per compared entry; a table with a row for each (its head is empty without any facts).

    `sections` has a head and rows of a published benchmark's own figures; `looks` say what deserves one.
    """

    figures: list[Figure]
    head: list[str]
    rows: list[list[str]]
    sections: tuple[list[str], list[list[str]]] | None
    looks: list[tuple[str, str]]


def judged(anchor: str, entries: Sequence[Entry], colours: Mapping[str, str]) -> Judged:
    """What is known of the compared entries; `colours` are by run, `anchor` is unique on the page."""
    seeds = {entry.name: entry.members for entry in entries}
    tints = {entry.name: colours[entry.members[0].run] for entry in entries}
    head, rows = _table(entries, seeds)
    drawn = [
        _reliability(anchor, seeds, tints),
        _binned(anchor, "length", seeds, tints, lambda one: one.length.by_difference),
        _binned(anchor, "margin", seeds, tints, lambda one: one.by_margin),
        _win_rates(anchor, seeds, tints),
    ]
    return Judged(
        figures=[one for one in drawn if one is not None],
        head=head,
        rows=rows,
        sections=_sections(seeds),
        looks=[look for entry in entries for look in _looks(entry, seeds[entry.name])],
    )


Seeds = Mapping[str, Sequence[EvaluationResult]]
Tints = Mapping[str, str]


def _reliability(anchor: str, seeds: Seeds, tints: Tints) -> Figure | None:
    series = _series(seeds, tints, lambda one: one.calibration.bins)
    if not series:
        return None
    caption = (
        "A margin m claims to be right with probability sigmoid(|m|). On the dashed diagonal that claim holds; below "
        "it the run is overconfident, above it too modest. Lines through the dots are 95% intervals; bins with fewer "
        f"than {figures.LEAST_PAIRS} pairs are left out."
    )
    alt = "Reliability plot: how often the run is right against how sure it is."
    return Figure("Is it as sure as it is right?", figures.reliability(f"{anchor}-reliability", alt, series), caption)


_WORDS = {
    "length": (
        "Does it reward length?",
        "Accuracy against how many tokens longer the chosen answer is.",
        "chosen answer longer by (tokens)",
        "A run that judges content is about equally right everywhere. A line that climbs to the right rewards length "
        "itself: it fails where the shorter answer is the better one. Dashed: coin flips.",
    ),
    "margin": (
        "Is it surer where people were?",
        "Accuracy against the margin that the label states.",
        "margin of the label",
        "Accuracy by how much better the chosen answer is, as the data states it. It should climb: pairs that people "
        "found nearly equal are hard, and their labels are the least certain.",
    ),
}


def _binned(
    anchor: str, what: str, seeds: Seeds, tints: Tints, bins: Callable[[EvaluationResult], Sequence[Bin]]
) -> Figure | None:
    series = _series(seeds, tints, bins)
    if not any(len(found) > 1 for _, found in series):
        return None
    title, alt, label, caption = _WORDS[what]
    return Figure(title, figures.binned(f"{anchor}-{what}", alt, series, label, roots=what == "length"), caption)


def _series(
    seeds: Seeds, tints: Tints, bins: Callable[[EvaluationResult], Sequence[Bin]]
) -> list[tuple[str, list[Bin]]]:
    """Colour and bins of each entry that has any with enough pairs."""
    found = [(tints[name], pooled([bins(one) for one in members])) for name, members in seeds.items()]
    return [(colour, [b for b in some if b.n >= figures.LEAST_PAIRS]) for colour, some in found if some]


def _win_rates(anchor: str, seeds: Seeds, tints: Tints) -> Figure | None:
    found: dict[str, dict[str, Rates]] = {}
    sizes: dict[str, int] = {}
    for name, members in seeds.items():
        for one in members:
            for rate in one.win_rates:
                sizes[rate.source] = max(rate.n, sizes.get(rate.source, 0))
        found[name] = {
            source: average(
                [
                    Rates(n=w.n, accuracy=w.model, low=w.model, high=w.model, length=w.labelled)
                    for one in members
                    for w in one.win_rates
                    if w.source == source
                ]
            )
            for source in {w.source for one in members for w in one.win_rates}
        }
    most = sorted(sizes, key=lambda source: (-sizes[source], source))[:SOURCES]
    if len(most) < 2:
        return None
    labelled = {source: rates.length for by in found.values() for source, rates in by.items()}
    rows = sorted(most, key=lambda source: (-labelled[source], source))
    caption = (
        "Of the pairs between an answer of this source and one of another, how many it wins. Grey bar: by the labels; "
        "dot: by the run's scores. A dot right of its bar means that the run overrates the source. Best first."
    )
    if len(sizes) > len(most):
        caption += f" The {len(most)} of {len(sizes):,} sources with the most pairs."
    alt = f"Win rates of {len(rows)} sources of answers, by label and by score."
    series = [(tints[name], by) for name, by in found.items()]
    svg = figures.subset_dots(f"{anchor}-sources", alt, rows, series, "wins (%)")
    return Figure("Whose answers win?", svg, caption)


def _table(entries: Sequence[Entry], seeds: Seeds) -> tuple[list[str], list[list[str]]]:
    """A row per entry; a column that nobody knows anything for is left out."""
    columns: dict[str, Callable[[Sequence[EvaluationResult]], str]] = {
        "sure on average": lambda some: percent(_mean(map(_confidence, some))),
        "calibration error": lambda some: percent(_mean(one.calibration.ece for one in some)),
        "best temperature": lambda some: _decimal(_mean(one.calibration.temperature for one in some)),
        "error at it": lambda some: percent(_mean(one.calibration.ece_at_temperature for one in some)),
        "length taken out": lambda some: _with_interval([one.controlled for one in some]),
        "score follows length": lambda some: _decimal(_mean(one.length.correlation for one in some), signed=True),
        "best of several": lambda some: _with_interval(
            [best.rates(best.prompts) for one in some if (best := one.best_of_n)]
        ),
        "by chance": lambda some: percent(_mean(one.best_of_n.chance for one in some if one.best_of_n)),
    }
    cells = {title: [tell(seeds[entry.name]) for entry in entries] for title, tell in columns.items()}
    shown = {title: column for title, column in cells.items() if set(column) - {"-"}}
    if not shown:
        return [], []
    rows = [
        [entry.name, percent(entry.total.accuracy), *(column[k] for column in shown.values())]
        for k, entry in enumerate(entries)
    ]
    return ["run", "right", *shown], rows


def _sections(seeds: Seeds) -> tuple[list[str], list[list[str]]] | None:
    first = next((one for members in seeds.values() if (one := members[0].sections) and one.sections), None)
    if first is None:
        return None
    scores = {
        name: {section: _mean(_section(one, section) for one in members) for section in first.sections}
        for name, members in seeds.items()
    }
    rows = [
        [name, f"{section.n:,}", *(percent(by[name]) for by in scores.values())]
        for name, section in first.sections.items()
    ]
    overall = [percent(_mean(one.sections.overall for one in members if one.sections)) for members in seeds.values()]
    return [f"section of {first.arithmetic}", "pairs", *seeds], [*rows, ["overall", "", *overall]]


def _section(one: EvaluationResult, name: str) -> float:
    known = one.sections.sections if one.sections else {}
    return known[name].score if name in known else math.nan


def _looks(entry: Entry, seeds: Sequence[EvaluationResult]) -> list[tuple[str, str]]:
    """What deserves a look: confidence that is off, and accuracy that goes with length."""
    rates, told = entry.total, []
    if rates.n < FEW_PAIRS or math.isnan(rates.low + rates.high):
        return []
    sure, temperature = _mean(map(_confidence, seeds)), _mean(one.calibration.temperature for one in seeds)
    if sure > rates.high or sure < rates.low:
        word = "overconfident" if sure > rates.high else "underconfident"
        mend = f"; margins divided by {temperature:.2f} fit best" if math.isfinite(temperature) else ""
        told.append(f"is {word}: {percent(sure)} sure on average and right in {percent(rates.accuracy)}{mend}.")
    controlled = average([one.controlled for one in seeds])
    if controlled.low <= 0.5 < rates.low:
        told.append(
            f"is right in {percent(controlled.accuracy)} ({span(controlled)}) with length taken out, which may be coin "
            "flips: what it has learned may be length."
        )
    return [(entry.name, text) for text in told]


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
    return f"{percent(mean.accuracy)} ({span(mean)})"


def _decimal(value: float, signed: bool = False) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}") if signed else f"{value:.2f}"

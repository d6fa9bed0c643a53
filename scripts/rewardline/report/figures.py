"""The report's figures: each function draws one as inline SVG, the same bytes each time, within the style `STYLE`.

`name` is unique on the page, as ids inside the SVG derive from it. Captions are the caller's.
"""

import io
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from xml.etree import ElementTree

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rewardline.evaluation.comparisons import LearningCurve
from rewardline.evaluation.results import BestOfNPoint, Bin, Rates
from rewardline.report.formatting import display_width, shorten

RUN_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#a89a00")
"""Okabe and Ito's palette, for color-blind readers too; its yellow is darker here, to be seen on white."""
CHOSEN, REJECTED = "#0072b2", "#d55e00"
INK, QUIET, FAINT = "#333333", "#777777", "#dddddd"
CURVE_POINTS = 240
HISTOGRAM_BINS = (8, 40)
LABEL_CHARACTERS = 28

Floats = npt.NDArray[np.float64]
BinSeries = Sequence[tuple[str, Sequence[Bin]]]
"""Color and bins, in order."""

STYLE = {
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],  # for the layout; the page's style sheet names the fonts that are shown
    "font.size": 8,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": "#bbbbbb",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.labelsize": 8,
    "xtick.color": "#bbbbbb",
    "ytick.color": "#bbbbbb",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 2,
    "ytick.major.size": 0,
    "xtick.major.width": 0.6,
    "grid.color": "#eeeeee",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "lines.dashed_pattern": (3, 3),
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"


def shade(color: str, seed: int) -> str:
    """The color of the n-th seed of a run: the run's own, then ever lighter."""
    white = (0.0, 0.4, 0.6, 0.72)[min(seed, 3)]
    return str(to_hex([part + (1 - part) * white for part in to_rgb(color)]))


def _axes(width: float = 4.2, height: float = 2.7, left: float = 0.55, bottom: float = 0.45) -> Axes:
    """The axes of a new figure. The size and the margins on the left and below are in inches."""
    figure = Figure(figsize=(width, height))
    FigureCanvasSVG(figure)
    return figure.add_axes((left / width, bottom / height, 1 - (left + 0.12) / width, 1 - (bottom + 0.12) / height))


def _dashed(line: Line2D) -> None:
    """Make a line of reference of it."""
    line.set(color=QUIET, linewidth=0.7, linestyle="--")


def _svg(axes: Axes, name: str, alt: str) -> Markup:
    """The figure as an element of HTML: without style sheet, namespaces and ids that repeat, with short numbers.

    `alt` describes the figure to those who cannot see it.
    """
    with warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": name}), io.StringIO() as stream:
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's browser has the fonts that count
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        axes.figure.canvas.print_figure(stream, format="svg", metadata=metadata)
        root = ElementTree.fromstring(stream.getvalue())
    root.remove(root[0])  # the style sheet
    view = root.attrib["viewBox"]
    for element in root.iter():
        element.tag, element.tail = element.tag.removeprefix(_SVG), None
        element.text = element.text if element.tag == "text" else None
        if element.tag == "g":
            element.attrib.pop("id", None)
        element.attrib = {
            key.removeprefix(_XLINK): " ".join(re.sub(r"(\.\d\d)\d+", r"\1", value).split())
            for key, value in element.attrib.items()
            if not value.startswith("rotate(-0 ")
        }
    root.attrib = {"viewBox": view, "role": "img", "aria-label": alt}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def subset_dots(
    name: str,
    alt: str,
    rows: Sequence[str],
    series: Sequence[tuple[str, Mapping[str, Rates]]],
    label: str = "accuracy (%)",
) -> Markup:
    """A share with its interval for each subset (a row, the first on top) and run, beside the length-only rule."""
    labels = _labels(rows)
    step = 0.17 + 0.07 * len(series)
    axes = _axes(height=0.62 + step * len(rows), left=0.15 + 0.075 * max(map(display_width, labels)))
    for k, (color, by_subset) in enumerate(series):
        known = [(place, by_subset[row]) for place, row in enumerate(rows) if row in by_subset]
        y = np.array([place for place, _ in known]) + 0.6 * ((k + 0.5) / len(series) - 0.5)
        rates = [(one.accuracy, one.low, one.high) for _, one in known]
        percent = 100 * np.array(rates).reshape(-1, 3)
        axes.hlines(y, percent[:, 1], percent[:, 2], color=color, linewidth=1)
        axes.plot(percent[:, 0], y, "o", color=color, markersize=3.6, markeredgewidth=0)
    length = {row: 100 * rates.length for _, by_subset in reversed(series) for row, rates in by_subset.items()}
    for place, row in enumerate(rows):
        axes.vlines(length.get(row, np.nan), place - 0.36, place + 0.36, color=QUIET, linewidth=1.4, zorder=1.5)
    _dashed(axes.axvline(50))
    axes.set(xlim=(-1, 101), ylim=(len(rows) - 0.5, -0.5), xlabel=label)
    axes.set_yticks(range(len(rows)), labels)
    axes.grid(axis="y")
    axes.spines.left.set_visible(False)
    return _svg(axes, name, alt)


def curves(
    name: str, title: str, series: Sequence[tuple[str, pd.Series, pd.Series]], label: str, chance: float, unit: int = 1
) -> Markup:
    """Training values, smoothed, as lines and held-out values as dots over steps; a dashed line at `chance`.

    `series` has color, training and held-out values by step; values are multiplied by `unit`.
    """
    axes = _step_axes(label, chance * unit)
    for color, train, held_out in series:
        line, dots = _thinned(_smoothed(train)), _thinned(held_out)
        axes.plot(line.index, line * unit, color=color)
        axes.plot(dots.index, dots * unit, "o-", color=color, markersize=3.4, markeredgewidth=0, linewidth=0.5)
    return _svg(axes, name, f"{title} over training steps.")


def drift(name: str, run: str, seeds: Sequence[tuple[pd.Series, pd.Series]]) -> Markup:
    """The mean chosen and rejected score over steps, smoothed; seeds after the first are lighter."""
    axes = _step_axes("mean score", 0)
    for k, means in reversed(list(enumerate(seeds))):
        for color, values in zip((CHOSEN, REJECTED), means, strict=True):
            line = _thinned(_smoothed(values))
            axes.plot(line.index, line, color=shade(color, k))
    return _svg(axes, name, f"Mean chosen and rejected score of {run} over training steps.")


def learning_curve(name: str, curve: LearningCurve) -> Markup:
    """Accuracy or loss against the number of training pairs, with intervals, and the fitted law to twice as many."""
    accuracy = curve.metric == "error"
    shown: Callable[[Floats], Floats] = (lambda values: 100 * (1 - values)) if accuracy else (lambda values: values)
    axes = _axes()
    pairs = np.array([point.pairs for point in curve.points], dtype=np.float64)
    values, low, high = (
        shown(np.array([getattr(point, field) for point in curve.points])) for field in ("value", "low", "high")
    )
    line = np.geomspace(pairs[0], 2 * pairs[-1], CURVE_POINTS)
    law = shown(curve.floor + curve.scale * line**-curve.exponent)
    inside = line <= pairs[-1]
    axes.plot(line[inside], law[inside], color=CHOSEN)
    _dashed(*axes.plot(line[~inside], law[~inside]))
    axes.vlines(pairs, low, high, color=CHOSEN, linewidth=0.9)
    axes.plot(pairs, values, "o", color=CHOSEN, markersize=3.6, markeredgewidth=0)
    axes.set(xscale="log", xlabel="training pairs", ylabel="accuracy (%)" if accuracy else "loss")
    ticks = [*pairs, 2 * pairs[-1]]
    axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(axis="y")
    return _svg(
        axes, name, f"{'Accuracy' if accuracy else 'Loss'} of {curve.name} against the number of training pairs."
    )


def by_setting(name: str, key: str, values: Sequence[str], by_value: Sequence[Sequence[Rates]]) -> Markup:
    """Accuracy with its interval of the runs with each value of a setting, and their mean, joined by a line."""
    axes = _axes(height=2.5)
    means = [100 * float(np.mean([one.accuracy for one in rates])) for rates in by_value]
    axes.plot(range(len(values)), means, "-", color=INK, linewidth=1)
    axes.plot(range(len(values)), means, "D", color=INK, markersize=4, markeredgewidth=0)
    for place, rates in enumerate(by_value):
        x = place + 0.5 * ((np.arange(len(rates)) + 0.5) / len(rates) - 0.5)
        percent = 100 * np.array([(one.accuracy, one.low, one.high) for one in rates]).reshape(-1, 3)
        axes.vlines(x, percent[:, 1], percent[:, 2], color=CHOSEN, linewidth=0.8)
        axes.plot(x, percent[:, 0], "o", color=CHOSEN, markersize=3, markeredgewidth=0)
    axes.set(xlim=(-0.5, len(values) - 0.5), xlabel=key, ylabel="accuracy (%)")
    axes.set_xticks(range(len(values)), _labels(values))
    axes.locator_params(axis="y", nbins=6)
    axes.grid(axis="y")
    return _svg(axes, name, f"Accuracy by {key}, with intervals.")


def parallel_coordinates(name: str, keys: Sequence[str], rows: Sequence[tuple[Sequence[float], float]]) -> Markup:
    """A line for each run through its value of every key, each scaled to [0, 1], to its accuracy: dark are the best."""
    axes = _axes(width=1.2 + 1.3 * len(keys), height=2.8, bottom=0.55)
    accuracies = np.array([accuracy for _, accuracy in rows])
    low, high = accuracies.min(), accuracies.max()
    for values, accuracy in sorted(rows, key=lambda row: row[1]):
        share = (accuracy - low) / ((high - low) or 1.0)
        axes.plot([*range(len(keys) + 1)], [*values, share], color=CHOSEN, alpha=0.12 + 0.88 * share**2)
    axes.set(xlim=(-0.2, len(keys) + 0.2), ylim=(-0.05, 1.05), yticks=[])
    axes.set_xticks(range(len(keys) + 1), [*keys, f"accuracy\n{100 * low:.1f} to {100 * high:.1f}%"])
    axes.grid(axis="x")
    return _svg(axes, name, f"Parallel coordinates of {', '.join(keys)} and accuracy.")


def _step_axes(label: str, reference: float) -> Axes:
    """Axes over training steps, with a dashed line at `reference`."""
    axes = _axes()
    _dashed(axes.axhline(reference))
    axes.set(xlabel="optimizer step", ylabel=label)
    axes.locator_params(axis="x", nbins=6, integer=True)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.locator_params(axis="y", nbins=6)
    axes.grid(axis="y")
    return axes


def _smoothed(values: pd.Series) -> pd.Series:
    """The mean of the known values around each step, weighted by a Hann window over a tenth of the steps."""
    if not values.notna().any():
        return values
    window = np.hanning(2 * (len(values) // 20) + 3)[1:-1]
    sums = np.convolve(values.fillna(0), window, mode="same")
    weights = np.convolve(values.notna(), window, mode="same")
    return pd.Series(sums, values.index).where(values.notna()) / weights


def _thinned(values: pd.Series) -> pd.Series:
    """At most `CURVE_POINTS` values, evenly chosen; the first and the last stay."""
    if len(values) <= CURVE_POINTS:
        return values
    return values.iloc[np.linspace(0, len(values) - 1, CURVE_POINTS).round().astype(int)]


def score_histogram(name: str, run: str, chosen: Floats, rejected: Floats) -> Markup:
    """The distributions of the scores of chosen and of rejected answers."""
    axes = _histogram_axes("score")
    edges, both = _histogram(chosen, rejected)
    for color, counts in zip((CHOSEN, REJECTED), both, strict=True):
        axes.stairs(counts, edges, fill=True, color=color, alpha=0.18)
        axes.stairs(counts, edges, color=color, linewidth=1)
    axes.set_ylim(bottom=0)
    return _svg(axes, name, f"Histogram of the chosen and rejected scores of {run}.")


def margin_histogram(name: str, run: str, margins: Floats) -> Markup:
    """The distribution of the margins; those below zero are the pairs that the run gets wrong."""
    axes = _histogram_axes("margin: chosen score minus rejected score")
    edges, (counts,) = _histogram(margins)
    axes.stairs(counts, edges, fill=True, color=INK, alpha=0.15)
    axes.stairs(np.where(edges[:-1] < 0, counts, 0), edges, fill=True, color=INK, alpha=0.3)
    axes.stairs(counts, edges, color=INK, linewidth=1)
    _dashed(axes.axvline(0))
    axes.set_ylim(bottom=0)
    return _svg(axes, name, f"Histogram of the margins of {run}.")


def _histogram_axes(label: str) -> Axes:
    axes = _axes(height=2.2)
    axes.set(xlabel=label, ylabel="pairs")
    axes.locator_params(axis="y", nbins=5, integer=True)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.spines.left.set_color(FAINT)
    return axes


def _histogram(*values: Floats) -> tuple[Floats, list[Floats]]:
    """The edges of bins of equal width, and the counts of each of `values` in them.

    The more values, the finer the bins. Zero is an edge if it is among the values; values beyond the outer edges count
    in the outer bins.
    """
    low, high = np.quantile(np.concatenate(values), [0.002, 0.998])
    bins = np.clip(2.5 * np.cbrt(len(values[0])), *HISTOGRAM_BINS)
    width = (high - low) / bins or 0.1
    edges = width * np.arange(np.floor(low / width), np.floor(high / width) + 2)
    inside = [np.clip(one, edges[0], edges[-1]) for one in values]
    return edges, [np.histogram(one, edges)[0].astype(np.float64) for one in inside]


def reliability(name: str, series: BinSeries) -> Markup:
    """Accuracy against confidence; on the diagonal a run is calibrated."""
    axes = _accuracy_axes("mean confidence of the pairs in a bin (%)")
    _dashed(*axes.plot([50, 100], [50, 100]))
    for color, bins in series:
        _plot_accuracy(axes, [100 * one.confidence for one in bins], bins, color)
    axes.set_xlim(49, 101)
    return _svg(axes, name, "Reliability diagram: accuracy against confidence.")


def binned(name: str, alt: str, series: BinSeries, label: str, roots: bool = False) -> Markup:
    """Accuracy against a quantity, a dot in the middle of each bin; `roots` draws the quantity by its square root."""
    axes = _accuracy_axes(label)
    _dashed(axes.axhline(50))
    scale = _root if roots else float
    for color, bins in series:
        _plot_accuracy(axes, [scale(one.low) / 2 + scale(one.high) / 2 for one in bins], bins, color)
    if roots:
        ticks = _round_numbers(max(max(abs(one.low), abs(one.high)) for _, bins in series for one in bins))
        texts = [f"{tick:,.0f}".replace("-", "\N{MINUS SIGN}") for tick in ticks]
        axes.set_xticks([_root(tick) for tick in ticks], texts)
    else:
        middles = sorted({(one.low + one.high) / 2 for _, bins in series for one in bins})
        if len(middles) <= 7:
            axes.set_xticks(middles, [f"{middle:.3g}" for middle in middles])
    return _svg(axes, name, alt)


def best_of_n(name: str, series: Sequence[tuple[str, Sequence[BestOfNPoint]]]) -> Markup:
    """The gold score of the best of n answers by score over the divergence; dashed: by the best possible scores."""
    axes = _axes(height=2.8, bottom=0.55)
    points = max((points for _, points in series), key=len)
    _dashed(*axes.plot([one.kl for one in points], [one.best for one in points]))
    for color, own in series:
        kl = [one.kl for one in own]
        axes.vlines(kl, [one.gold_low for one in own], [one.gold_high for one in own], color=color, linewidth=0.9)
        axes.plot(kl, [one.gold for one in own], "o-", color=color, markersize=3.6, markeredgewidth=0, linewidth=0.8)
    axes.set(xlabel="divergence, log n \N{MINUS SIGN} (n \N{MINUS SIGN} 1)/n, at n =", ylabel="gold score")
    axes.set_xticks([one.kl for one in points], [f"{one.n}" for one in points])
    axes.grid(axis="y")
    return _svg(axes, name, "Gold score of the best of n answers against the divergence from the policy.")


def _accuracy_axes(label: str) -> Axes:
    axes = _axes(height=2.8, bottom=0.55)
    axes.set(xlabel=label, ylabel="accuracy (%)", ylim=(-3, 103), yticks=range(0, 101, 25))
    axes.grid(axis="y")
    return axes


def _plot_accuracy(axes: Axes, x: Sequence[float], bins: Sequence[Bin], color: str) -> None:
    """Accuracies with their 95% intervals."""
    percent = 100 * np.array([(one.accuracy, one.accuracy_low, one.accuracy_high) for one in bins]).reshape(-1, 3)
    axes.vlines(x, percent[:, 1], percent[:, 2], color=color, linewidth=0.9)
    axes.plot(x, percent[:, 0], "o-", color=color, markersize=3.6, markeredgewidth=0, linewidth=0.8)


def _root(value: float) -> float:
    """The square root of a size, with the sign of the value."""
    return math.copysign(math.sqrt(abs(value)), value)


def _round_numbers(largest: float) -> list[float]:
    """Zero, and up to three round numbers on each side that divide the square roots up to `largest` about evenly."""
    sizes = set()
    for limit in (max(1.0, share * largest) for share in (1.0, 0.4, 0.08)):
        power = 10.0 ** math.floor(math.log10(limit))
        sizes.add(next(power * k for k in (5, 2, 1) if power * k <= limit))
    return sorted({-size for size in sizes} | {0.0} | sizes)


def _labels(rows: Sequence[str]) -> list[str]:
    """The names in at most `LABEL_CHARACTERS`: long ones lose the start that all share, then their middle."""
    if max(map(display_width, rows)) > LABEL_CHARACTERS:
        shared = next((k for k, letters in enumerate(zip(*rows, strict=False)) if len(set(letters)) > 1), 0)
        rows = [f"\N{HORIZONTAL ELLIPSIS}{row[shared:]}" for row in rows] if shared > 1 else rows
    return [shorten(row, LABEL_CHARACTERS) for row in rows]

"""The report's figures: each function draws one as inline SVG, the same bytes each time. Captions are the caller's."""

import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from xml.etree import ElementTree

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure as Canvas

from rewardline.evaluation.results import Bin, Rates
from rewardline.report.inputs import Curve, Floats

RUN_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#a89a00")
"""Okabe and Ito's palette, for colour-blind readers too; its yellow is darker here, to be seen on white."""

CHOSEN, REJECTED = "#0072b2", "#d55e00"
INK, QUIET, FAINT = "#333333", "#777777", "#dddddd"

CURVE_POINTS = 240
HISTOGRAM_BINS = (8, 40)

Series = Sequence[tuple[str, Sequence[Bin]]]
"""Colour and bins, in order."""

_STYLE = {
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
    "axes.unicode_minus": True,
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
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"


def shade(colour: str, seed: int) -> str:
    """The colour of the n-th seed of a run: the run's own, then ever lighter."""
    white = (0.0, 0.4, 0.6, 0.72)[min(seed, 3)]
    return str(to_hex([part + (1 - part) * white for part in to_rgb(colour)]))


class Panel:
    """One set of axes; its `svg` is ready when the block of `panel` ends."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self.svg = Markup()


@contextmanager
def panel(
    name: str, alt: str, width: float = 4.2, height: float = 2.7, left: float = 0.55, bottom: float = 0.45
) -> Iterator[Panel]:
    """Yield a panel to draw on. The size and the margins on the left and below are in inches.

    `name` is unique on the page (ids inside the SVG derive from it); `alt` describes the figure to those who cannot
    see it.
    """
    with warnings.catch_warnings(), matplotlib.rc_context(), io.StringIO() as stream:
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's browser has the fonts that count
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE | {"svg.hashsalt": name})
        canvas = Canvas(figsize=(width, height))
        FigureCanvasSVG(canvas)
        box = (left / width, bottom / height, 1 - (left + 0.12) / width, 1 - (bottom + 0.12) / height)
        drawn = Panel(canvas.add_axes(box))
        yield drawn
        canvas.savefig(stream, format="svg", metadata=_NO_METADATA)
        drawn.svg = _inline(stream.getvalue(), alt)


def _inline(svg: str, alt: str) -> Markup:
    """The SVG as an element of HTML: without its style sheet, namespaces and ids that repeat, with short numbers."""
    root = ElementTree.fromstring(svg)
    root.remove(root[0])  # the style sheet
    view = root.attrib["viewBox"]
    for element in root.iter():
        element.tag, element.tail = element.tag.removeprefix(_SVG), None
        element.text = element.text if element.tag == "text" else None
        if element.tag == "g":
            element.attrib.pop("id", None)
        element.attrib = {
            name.removeprefix(_XLINK): " ".join(re.sub(r"(\.\d\d)\d+", r"\1", value).split())
            for name, value in element.attrib.items()
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
    left = 0.15 + 0.075 * max(map(len, labels))
    step = 0.17 + 0.07 * len(series)
    with panel(name, alt, 4.2, 0.62 + step * len(rows), left) as drawn:
        axes = drawn.axes
        for k, (colour, by_subset) in enumerate(series):
            known = [(place, by_subset[row]) for place, row in enumerate(rows) if row in by_subset]
            y = np.array([place for place, _ in known]) + 0.6 * ((k + 0.5) / len(series) - 0.5)
            rates = [(one.accuracy, one.low, one.high) for _, one in known]
            percent = 100 * np.array(rates).reshape(-1, 3)
            axes.hlines(y, percent[:, 1], percent[:, 2], color=colour, linewidth=1)
            axes.plot(percent[:, 0], y, "o", color=colour, markersize=3.6, markeredgewidth=0)
        length = {row: 100 * one[row].length for _, one in reversed(series) for row in rows if row in one}
        for place, row in enumerate(rows):
            axes.vlines(length.get(row, np.nan), place - 0.36, place + 0.36, color=QUIET, linewidth=1.4, zorder=1.5)
        axes.axvline(50, color=QUIET, linewidth=0.7, linestyle="--")
        axes.set(xlim=(-1, 101), ylim=(len(rows) - 0.5, -0.5), xlabel=label)
        axes.set_yticks(range(len(rows)), labels)
        axes.grid(axis="y")
        axes.spines.left.set_visible(False)
    return drawn.svg


def curves(
    name: str, title: str, series: Sequence[tuple[str, Curve, Curve]], label: str, chance: float, unit: float = 1
) -> Markup:
    """Training values, smoothed, as lines and held-out values as dots over steps; a dashed line at `chance`.

    Values are multiplied by `unit`.
    """
    with panel(name, f"{title} over training steps.") as drawn:
        axes = drawn.axes
        axes.axhline(chance * unit, color=QUIET, linewidth=0.7, linestyle="--")
        for colour, train, held_out in series:
            line = _thinned(_smoothed(train))
            axes.plot(line.steps, line.values * unit, color=colour)
            dots = _thinned(held_out)
            axes.plot(
                dots.steps, dots.values * unit, "o-", color=colour, markersize=3.4, markeredgewidth=0, linewidth=0.5
            )
        _steps(axes)
        axes.set_ylabel(label)
    return drawn.svg


def _smoothed(curve: Curve) -> Curve:
    """The mean around each step, weighted by a Hann window over a tenth of the steps."""
    if not curve.known:
        return curve
    window = np.hanning(2 * (len(curve.values) // 20) + 3)[1:-1]
    known = np.isfinite(curve.values)
    sums = np.convolve(np.where(known, curve.values, 0.0), window, mode="same")
    weights = np.convolve(known.astype(np.float64), window, mode="same")
    return Curve(curve.steps, np.where(known, sums / np.where(known, weights, 1.0), np.nan))


def _thinned(curve: Curve) -> Curve:
    """At most `CURVE_POINTS` points, evenly chosen; the first and the last stay."""
    if len(curve.steps) <= CURVE_POINTS:
        return curve
    kept = np.linspace(0, len(curve.steps) - 1, CURVE_POINTS).round().astype(int)
    return Curve(curve.steps[kept], curve.values[kept])


def drift(name: str, run: str, seeds: Sequence[tuple[Curve, Curve]]) -> Markup:
    """The mean chosen and rejected score over steps, smoothed; seeds after the first are lighter."""
    with panel(name, f"Mean chosen and rejected score of {run} over training steps.") as drawn:
        axes = drawn.axes
        axes.axhline(0, color=QUIET, linewidth=0.7, linestyle="--")
        for k, means in reversed(list(enumerate(seeds))):
            for colour, curve in zip((CHOSEN, REJECTED), means, strict=True):
                line = _thinned(_smoothed(curve))
                axes.plot(line.steps, line.values, color=shade(colour, k))
        _steps(axes)
        axes.set_ylabel("mean score")
    return drawn.svg


def score_histogram(name: str, run: str, chosen: Floats, rejected: Floats) -> Markup:
    """The distributions of the scores of chosen and of rejected answers."""
    edges, both = _histogram(chosen, rejected)
    with panel(name, f"Histogram of the chosen and rejected scores of {run}.", height=2.2) as drawn:
        for colour, counts in zip((CHOSEN, REJECTED), both, strict=True):
            drawn.axes.stairs(counts, edges, fill=True, color=colour, alpha=0.18)
            drawn.axes.stairs(counts, edges, color=colour, linewidth=1)
        _counts(drawn.axes, "score")
    return drawn.svg


def margin_histogram(name: str, run: str, margins: Floats) -> Markup:
    """The distribution of the margins; those below zero are the pairs that the run gets wrong."""
    edges, (counts,) = _histogram(margins)
    with panel(name, f"Histogram of the margins of {run}.", height=2.2) as drawn:
        wrong = np.where(edges[:-1] < 0, counts, 0)
        drawn.axes.stairs(counts, edges, fill=True, color=INK, alpha=0.15)
        drawn.axes.stairs(wrong, edges, fill=True, color=INK, alpha=0.3)
        drawn.axes.stairs(counts, edges, color=INK, linewidth=1)
        drawn.axes.axvline(0, color=QUIET, linewidth=0.7, linestyle="--")
        _counts(drawn.axes, "margin: chosen score minus rejected score")
    return drawn.svg


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


def reliability(name: str, series: Series) -> Markup:
    """Accuracy against confidence; on the diagonal a run is calibrated."""
    alt = "Reliability diagram: accuracy against confidence."
    with panel(name, alt, height=2.8, bottom=0.55) as drawn:
        axes = drawn.axes
        axes.plot([50, 100], [50, 100], color=QUIET, linewidth=0.7, linestyle="--")
        for colour, bins in series:
            _points(axes, [100 * one.confidence for one in bins], bins, colour)
        axes.set(xlim=(49, 101), xlabel="mean confidence of the pairs in a bin (%)", ylabel="accuracy (%)")
    return drawn.svg


def binned(name: str, alt: str, series: Series, label: str, roots: bool = False) -> Markup:
    """Accuracy against a quantity, a dot in the middle of each bin; `roots` draws the quantity by its square root."""
    with panel(name, alt, height=2.8, bottom=0.55) as drawn:
        axes = drawn.axes
        axes.axhline(50, color=QUIET, linewidth=0.7, linestyle="--")
        for colour, bins in series:
            scale = _root if roots else float
            _points(axes, [scale(one.low) / 2 + scale(one.high) / 2 for one in bins], bins, colour)
        axes.set(xlabel=label, ylabel="accuracy (%)")
        if roots:
            ticks = _round_numbers(max(max(abs(one.low), abs(one.high)) for _, bins in series for one in bins))
            axes.set_xticks(
                [_root(tick) for tick in ticks], [f"{tick:,.0f}".replace("-", "\N{MINUS SIGN}") for tick in ticks]
            )
        else:
            middles = sorted({(one.low + one.high) / 2 for _, bins in series for one in bins})
            if len(middles) <= 7:
                axes.set_xticks(middles, [f"{middle:.3g}" for middle in middles])
    return drawn.svg


def _root(value: float) -> float:
    """The square root of a size, with the sign of the value."""
    return math.copysign(math.sqrt(abs(value)), value)


def _round_numbers(largest: float) -> list[float]:
    """Zero, and up to three round numbers on each side that part the square roots up to `largest` about evenly."""
    found: list[float] = []
    for share in (1.0, 0.4, 0.08):
        size = 10.0 ** math.floor(math.log10(max(1.0, share * largest)))
        found += [next(size * k for k in (5, 2, 1) if size * k <= max(1.0, share * largest))]
    sides = sorted(set(found))
    return [*(-size for size in reversed(sides)), 0.0, *sides]


def _points(axes: Axes, x: Sequence[float], bins: Sequence[Bin], colour: str) -> None:
    """Rates with their 95% intervals."""
    percent = 100 * np.array([(one.accuracy, one.accuracy_low, one.accuracy_high) for one in bins]).reshape(-1, 3)
    axes.vlines(x, percent[:, 1], percent[:, 2], color=colour, linewidth=0.9)
    axes.plot(x, percent[:, 0], "o-", color=colour, markersize=3.6, markeredgewidth=0, linewidth=0.8)
    axes.set_ylim(-3, 103)
    axes.set_yticks(range(0, 101, 25))
    axes.grid(axis="y")


def _labels(rows: Sequence[str], most: int = 28) -> list[str]:
    """The names in at most `most` characters: long ones lose the start that all share, then their middle."""
    dots, half = "\N{HORIZONTAL ELLIPSIS}", most // 2
    if max(map(len, rows)) > most:
        shared = next((k for k, letters in enumerate(zip(*rows, strict=False)) if len(set(letters)) > 1), 0)
        rows = [dots + row[shared:] for row in rows] if shared > 1 else rows
    return [row if len(row) <= most else f"{row[:half]}{dots}{row[1 - half :]}" for row in rows]


def _steps(axes: Axes) -> None:
    axes.set_xlabel("optimiser step")
    axes.locator_params(axis="x", nbins=6, integer=True)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.locator_params(axis="y", nbins=6)
    axes.grid(axis="y")


def _counts(axes: Axes, label: str) -> None:
    axes.set(xlabel=label, ylabel="pairs")
    axes.locator_params(axis="y", nbins=5, integer=True)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylim(bottom=0)
    axes.set_facecolor("none")
    axes.spines.left.set_color(FAINT)

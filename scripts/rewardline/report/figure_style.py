"""How the report's figures look, and how a figure becomes inline SVG that is the same bytes each time."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure as Canvas

FAMILY_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#a89a00")
"""Okabe and Ito's palette, for colour-blind readers too; its yellow is darker here, to be seen on white."""

CHOSEN, REJECTED = "#0072b2", "#d55e00"
INK, QUIET, FAINT = "#333333", "#777777", "#dddddd"

_STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
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
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def shade(colour: str, k: int) -> str:
    """The colour of the k-th seed of a run: the run's own, then ever lighter."""
    white = (0.0, 0.4, 0.6, 0.72)[min(k, 3)]
    return str(to_hex([part + (1 - part) * white for part in to_rgb(colour)]))


@dataclass(frozen=True)
class Figure:
    """A figure for the page, with what to read from it."""

    title: str
    svg: Markup
    caption: str


class Panel:
    """One set of axes, `width` by `height` inches, with margins in inches; becomes SVG when its block ends."""

    def __init__(self, width: float, height: float, left: float, bottom: float) -> None:
        top, right = 0.12, 0.12
        self.figure = Canvas(figsize=(width, height))
        FigureCanvasSVG(self.figure)
        box = (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
        self.axes: Any = self.figure.add_axes(box)
        self.svg = Markup()


@contextmanager
def panel(
    name: str, alt: str, width: float = 4.2, height: float = 2.7, left: float = 0.55, bottom: float = 0.45
) -> Iterator[Panel]:
    """Yield a `Panel` to draw on; its `svg` is ready when the block ends.

    `name` is unique on the page (ids inside the SVG derive from it); `alt` says what the figure shows to who cannot see
    it.
    """
    with warnings.catch_warnings(), matplotlib.rc_context(), io.StringIO() as stream:
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's browser has the fonts that count
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE | {"svg.hashsalt": name})
        drawn = Panel(width, height, left, bottom)
        yield drawn
        drawn.figure.savefig(stream, format="svg", metadata={"Date": None})
        drawn.svg = _inline(stream.getvalue(), alt)


def _inline(svg: str, alt: str) -> Markup:
    """The SVG for use inside HTML: no prolog, no metadata, no ids that nothing refers to, short numbers."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->|<defs>\s*</defs>", "", svg, flags=re.DOTALL)
    view = re.search(r'viewBox="[^"]*"', svg)
    assert view is not None
    svg = re.sub(r"<svg[^>]*>", f'<svg {view[0]} role="img" aria-label="{escape(alt)}">', svg, count=1)
    svg = re.sub(r"<(?!svg)[^>]*>", _shorten_tag, svg)
    return Markup(re.sub(r">\s+<", "><", svg))


def _shorten_tag(match: re.Match[str]) -> str:
    """A tag without what the page's style sheet or nobody needs. Text outside of tags is data and stays as it is."""
    tag = match[0].replace("xlink:href", "href")
    tag = re.sub(r'<g id="[^"]*"', "<g", tag)
    tag = re.sub(r" ?font-family: [^;\"]*;?", "", tag)
    tag = re.sub(r' transform="rotate\(-?0 [^"]*"', "", tag)
    tag = re.sub(r"(\.\d\d)\d+", r"\1", tag)
    return re.sub(r"\s+", " ", tag)

"""The Jinja environment of the report's templates."""

import math
from pathlib import Path

import jinja2

from rewardline.evaluation.results import printable
from rewardline.report.formatting import compact, count, decimal, duration, interval, percent, points, ratio

_FILTERS = (compact, count, decimal, duration, interval, percent, points, printable, ratio)
_CONTROLS = {
    code: "\N{REPLACEMENT CHARACTER}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"
}


def template(name: str) -> jinja2.Template:
    """A template. HTML escapes what it prints, and an unknown variable is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=jinja2.select_autoescape(["html.jinja"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update({function.__name__: function for function in (*_FILTERS, sentence, readable)})
    environment.tests["known"] = math.isfinite
    return environment.get_template(name)


def sentence(text: str) -> str:
    """`text` with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def readable(text: str) -> str:
    """`text` without control characters except line breaks and tabs."""
    return text.translate(_CONTROLS)

"""The templates of the report, as Jinja reads them."""

from pathlib import Path

import jinja2

from rewardline.report.formatting import count, interval, percent


def template(name: str) -> jinja2.Template:
    """A template; what it prints is escaped if it is HTML, and an unknown variable is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=jinja2.select_autoescape(["html.jinja"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(percent=percent, count=count, interval=interval, sentence=_sentence, cell=_cell)
    return environment.get_template(name)


def _sentence(text: str) -> str:
    """`text` with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def _cell(text: str) -> str:
    """`text` as a cell of a Markdown table, which a bar in it does not end."""
    return text.replace("\\", "\\\\").replace("|", "\\|")

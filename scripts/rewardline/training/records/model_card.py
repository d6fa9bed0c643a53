"""The model card of a trained reward model."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rewardline.tokens.settings import TODAY
from rewardline.training.records.run_facts import RunFacts

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    undefined=StrictUndefined,
    trim_blocks=True,
    keep_trailing_newline=True,
)


def model_card(run: RunFacts) -> str:
    """The Markdown of the card."""
    template = _TEMPLATES.get_template("model_card.md.jinja")
    tokens = {"chat_template": None, "changed": {}, **run.tokenization}
    return template.render(
        run=run, training=run.training, tokens=tokens, normalization=run.normalization, today=f"{TODAY:%d %B %Y}"
    )

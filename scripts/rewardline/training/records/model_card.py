"""The model card of a trained reward model."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

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
    return template.render(run=run, training=run.training, tokens=run.tokenization, normalization=run.normalization)

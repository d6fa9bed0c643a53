"""The evaluation card: what a run scored on each benchmark, in Markdown, for the folder of its model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rewardline.core.errors import UserError
from rewardline.evaluation.leaderboards import nan_last
from rewardline.evaluation.results import EvaluationResult, Rates, read_results
from rewardline.evaluation.settings import HELD_OUT
from rewardline.report.formatting import Table, count, decimal, interval, percent
from rewardline.report.rendering import template

SUBSETS = 40
"""Subsets that are listed for a benchmark, the weakest."""


@dataclass(frozen=True)
class CardSection:
    """A benchmark: facts beyond its accuracy, published figures, and subsets, of which `left_out` are not listed."""

    title: str
    facts: list[str]
    published: Table | None
    subsets: Table | None
    left_out: int


def evaluation_card(metrics: Sequence[Path]) -> str:
    """The Markdown, from the `metrics.json` files of one run; a `UserError` where they are of several."""
    results = read_results(metrics)
    runs = sorted({one.run for one in results})
    if len(runs) != 1:
        raise UserError(f"a card is about one run, but these metrics are of {', '.join(runs) or 'none'}")
    sections = [_section(one) for one in results]
    return template("evaluation_card.md.jinja").render(
        run=runs[0],
        results=_results(results),
        sections=[one for one in sections if one.facts or one.published or one.subsets],
    )


def _results(results: Sequence[EvaluationResult]) -> Table:
    columns = ["benchmark", "pairs", "accuracy", "95% interval", "length only"]
    return Table(
        [*columns, "log loss", "chosen mean", "rejected mean"],
        [
            [
                *_rates(_title(one), one.total),
                decimal(one.loss, 3),
                decimal(one.chosen_mean),
                decimal(one.rejected_mean),
            ]
            for one in results
        ],
    )


def _section(one: EvaluationResult) -> CardSection:
    published, subsets = None, None
    if (own := one.sections) is not None and own.sections:
        rows = [[name, count(section.n), percent(section.score)] for name, section in own.sections.items()]
        rows.append(["**overall**", "", percent(own.overall)])
        published = Table([f"section ({own.arithmetic})", "pairs", "score"], rows)
    weakest = sorted(one.by_subset.items(), key=lambda item: (nan_last(item[1].accuracy), item[0]))
    if len(weakest) > 1:
        columns = ["subset, weakest first", "pairs", "accuracy", "95% interval", "length only"]
        subsets = Table(columns, [_rates(name, rates) for name, rates in weakest[:SUBSETS]])
    return CardSection(_title(one), _facts(one), published, subsets, max(0, len(weakest) - SUBSETS))


def _rates(name: str, rates: Rates) -> list[str]:
    return [name, count(rates.n), percent(rates.accuracy), interval(rates), percent(rates.length)]


def _facts(one: EvaluationResult) -> list[str]:
    facts, calibration = [], one.calibration
    if math.isfinite(calibration.ece):
        text = f"Calibration: the expected calibration error is {percent(calibration.ece)}"
        if math.isfinite(calibration.temperature):
            text += f"; with margins divided by {calibration.temperature:.2f} it is "
            text += percent(calibration.ece_at_temperature)
        facts.append(f"{text}.")
    if math.isfinite(one.controlled.accuracy):
        accuracy = f"{percent(one.controlled.accuracy)} ({interval(one.controlled)})"
        facts.append(f"Length: with the effect of length taken out, the accuracy is {accuracy}.")
    if math.isfinite(one.length.correlation):
        facts.append(f"The correlation of score and length is {decimal(one.length.correlation)}.")
    if (best := one.best_of_n) is not None and math.isfinite(best.accuracy):
        facts.append(
            f"Best of N: of {best.prompts:,} prompts with {best.answers:.1f} answers on average it puts the best one "
            f"first in {percent(best.accuracy)} ({interval(best.rates(best.prompts))}); "
            f"chance is {percent(best.chance)}."
        )
    return facts


def _title(one: EvaluationResult) -> str:
    return f"held-out split of {one.mixture}" if one.benchmark == HELD_OUT else one.benchmark

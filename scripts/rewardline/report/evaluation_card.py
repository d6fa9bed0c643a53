"""The evaluation card: what a run scored on each benchmark, in Markdown, for the folder of its model."""

from collections.abc import Sequence
from pathlib import Path

from rewardline.core.errors import UserError
from rewardline.evaluation.leaderboards import nan_last
from rewardline.evaluation.results import EvaluationResult, Rates, read_all_results
from rewardline.evaluation.settings import HELD_OUT
from rewardline.report.formatting import rating_table
from rewardline.report.rendering import template

SUBSETS = 40
"""Subsets that are listed for a benchmark, the weakest."""


def evaluation_card(metrics: Sequence[Path]) -> str:
    """The Markdown, from the `metrics.json` files of one run; a `UserError` where they are of several."""
    results, left_out = read_all_results(metrics)
    runs = sorted({one.run for one in [*results, *left_out]})
    if len(runs) != 1:
        raise UserError(f"a card is about one run, but these metrics are of {', '.join(runs) or 'none'}")
    return template("evaluation_card.md.jinja").render(
        run=runs[0],
        results=[(_title(one), one, _weakest_first(one)) for one in results if one.n or not one.ratings],
        ratings=rating_table(results),
        left_out=[(_title(one), one.left_out) for one in left_out],
        listed=SUBSETS,
    )


def _title(one: EvaluationResult) -> str:
    return f"held-out split of {one.mixture}" if one.benchmark == HELD_OUT else one.benchmark


def _weakest_first(one: EvaluationResult) -> list[tuple[str, Rates]]:
    return sorted(one.by_subset.items(), key=lambda item: (nan_last(item[1].accuracy), item[0]))

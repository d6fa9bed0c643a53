"""The evaluation card: what a run scored on each benchmark, in Markdown, for the folder of its model."""

import math
from collections.abc import Sequence
from pathlib import Path

from rewardline.core.errors import UserError
from rewardline.evaluation.leaderboards import nan_last
from rewardline.evaluation.results import EvaluationResult, Rates, read_results
from rewardline.evaluation.settings import HELD_OUT
from rewardline.report.summary import percent, score

SUBSETS = 40
"""Subsets that are listed for a benchmark, the weakest."""

_HEAD = """# {run}: evaluation

What the reward model in this folder gets right, measured after its training. `README.md` says how it was made and how
to use it.

Accuracy is the share of pairs whose chosen answer scores higher than the rejected one, ties half. Its 95% interval
comes from resampling whole prompts: it covers the chance in the choice of test prompts, not that in the training, nor
how much another kind of data differs from this. Length only is how often the longer answer is the chosen one: a model
must do better than that, or than its opposite, to have learned more than length.
"""


def evaluation_card(paths: Sequence[Path]) -> str:
    """The Markdown, from the `metrics.json` files of one run; a `UserError` where they are of several."""
    evaluations = read_results(paths)
    if len({one.run for one in evaluations}) != 1:
        runs = ", ".join(sorted({one.run for one in evaluations}))
        raise UserError(f"a card is about one run, but these metrics are of {runs or 'none'}")
    parts = [_HEAD.format(run=evaluations[0].run), _table(evaluations)]
    parts += [_section(one) for one in evaluations]
    return "\n".join(part for part in parts if part) + "\n"


def _table(evaluations: Sequence[EvaluationResult]) -> str:
    rows = [
        [
            *(
                _title(one),
                f"{one.total.n:,}",
                percent(one.total.accuracy),
                interval(one.total),
                percent(one.total.length),
            ),
            *(_number(one.loss, 3), score(one.chosen_mean), score(one.rejected_mean)),
        ]
        for one in evaluations
    ]
    head = ["benchmark", "pairs", "accuracy", "95% interval", "length only", "log loss", "chosen mean", "rejected mean"]
    return markdown(head, rows)


def _section(one: EvaluationResult) -> str:
    facts = [f"- {fact}" for fact in _facts(one)]
    parts = ["\n".join(facts)] if facts else []
    if (published := one.sections) is not None and published.sections:
        rows = [[name, f"{section.n:,}", percent(section.score)] for name, section in published.sections.items()]
        rows.append(["**overall**", "", percent(published.overall)])
        parts.append(markdown([f"section ({published.arithmetic})", "pairs", "score"], rows))
    weakest = sorted(one.by_subset.items(), key=lambda item: (nan_last(item[1].accuracy), item[0]))
    if len(weakest) > 1:
        rows = [
            [name, f"{rates.n:,}", percent(rates.accuracy), interval(rates), percent(rates.length)]
            for name, rates in weakest[:SUBSETS]
        ]
        parts.append(markdown(["subset, weakest first", "pairs", "accuracy", "95% interval", "length only"], rows))
        if len(weakest) > SUBSETS:
            parts.append(f"... and {len(weakest) - SUBSETS:,} stronger ones.")
    title = _title(one)
    return "\n\n".join([f"\n## {title[:1].upper()}{title[1:]}", *parts]) if parts else ""


def _facts(one: EvaluationResult) -> list[str]:
    told = []
    known = one.calibration
    if math.isfinite(known.ece):
        text = f"Calibration: the expected calibration error is {percent(known.ece)}"
        if math.isfinite(known.temperature):
            text += f"; with margins divided by {known.temperature:.2f} it is {percent(known.ece_at_temperature)}"
        told.append(f"{text}.")
    if math.isfinite((controlled := one.controlled).accuracy):
        right = f"{percent(controlled.accuracy)} ({interval(controlled)})"
        told.append(f"Length: with the effect of length taken out, the accuracy is {right}.")
    if math.isfinite(one.length.correlation):
        told.append(f"The correlation of score and length is {score(one.length.correlation)}.")
    if (best := one.best_of_n) is not None and math.isfinite(best.accuracy):
        told.append(
            f"Best of N: of {best.prompts:,} prompts with {best.answers:.1f} answers on average it puts the best one "
            f"first in {percent(best.accuracy)} ({interval(best.rates(best.prompts))}); chance is "
            f"{percent(best.chance)}."
        )
    return told


def _title(one: EvaluationResult) -> str:
    return f"held-out split of {one.mixture}" if one.benchmark == HELD_OUT else one.benchmark


def interval(rates: Rates) -> str:
    """The bounds of an accuracy in percent."""
    return "-" if math.isnan(rates.low + rates.high) else f"{100 * rates.low:.1f} to {100 * rates.high:.1f}%"


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table. Cells are kept on one line, and a bar in one does not end it."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("\\", "\\\\").replace("|", "\\|") for cell in line) + " |" for line in lines
    )

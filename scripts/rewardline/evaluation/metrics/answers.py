"""Metrics of answers instead of pairs: the best of several, and win rates by source."""

import numpy as np
import pandas as pd

from rewardline.evaluation.metrics.intervals import Codes, Floats, accuracy
from rewardline.evaluation.results import BestOfN, WinRate

PAIRS_AT_ONCE = 100_000


def best_of_n(scores: pd.DataFrame) -> BestOfN | None:
    """How often the best of three or more answers to a prompt has the greatest score; None where there are none.

    The best answer is the only one that no pair rejects. Equal scores share the success. `prompts` counts the prompts,
    `answers` is the mean number of answers, and `chance` the success of a random choice.
    """
    several = scores[scores.duplicated("comparison", keep=False)]  # a single pair has two answers
    parts = max(1, len(scores) // PAIRS_AT_ONCE)
    table = pd.concat([_best_answers(several[several["comparison"] % parts == part]) for part in range(parts)])
    if table.empty:
        return None
    return BestOfN(
        prompts=len(table),
        answers=float(table["answers"].mean()),
        **accuracy(table["success"].to_numpy(), table["prompt_id"].to_numpy()),
        chance=float((1 / table["answers"]).mean()),
    )


def _best_answers(scores: pd.DataFrame) -> pd.DataFrame:
    """The `prompt_id`, the number of `answers` and the `success` of each comparison with a best answer."""
    columns = [("chosen_answer", "chosen_score"), ("rejected_answer", "rejected_score")]
    sides = [
        scores[["comparison", "prompt_id", *names]].set_axis(["comparison", "prompt_id", "answer", "score"], axis=1)
        for names in columns
    ]
    answers = pd.concat(sides, keys=[False, True], names=["rejected"]).reset_index("rejected")
    answers = answers.groupby(["comparison", "answer"]).agg({"prompt_id": "first", "score": "first", "rejected": "max"})
    answers["top"] = answers["score"] == answers.groupby("comparison")["score"].transform("max")
    answers["best"] = ~answers["rejected"]
    answers["success"] = answers["top"] & answers["best"]
    table = answers.groupby("comparison").agg({"prompt_id": "first", "top": "sum", "best": "sum", "success": "sum"})
    table["answers"] = answers.groupby("comparison").size()
    table["success"] /= table["top"]
    return table[(table["answers"] > 2) & (table["best"] == 1)]


def win_rates(scores: pd.DataFrame, correct: Floats) -> list[WinRate]:
    """How often each source wins against others, by label and by score; most pairs first, [] where none is named.

    `n` are the pairs with one answer of the source and one of another, or of an unnamed one.
    """
    sources = [scores[f"{side}_source"].astype("category") for side in ("chosen", "rejected")]
    names = sorted({str(name) for source in sources for name in source.cat.categories})
    chosen, rejected = (source.cat.set_categories(names).cat.codes.to_numpy() for source in sources)
    differ = chosen != rejected

    def totals(codes: Codes, weights: Floats) -> Floats:
        return np.bincount(codes[differ] + 1, weights[differ], len(names) + 1)[1:].astype(np.float64)

    won, lost = totals(chosen, np.ones(len(correct))), totals(rejected, np.ones(len(correct)))
    n, model = won + lost, totals(chosen, correct) + totals(rejected, 1 - correct)
    rows = [
        WinRate(source=name, n=int(n[k]), labelled=float(won[k] / n[k]), model=float(model[k] / n[k]))
        for k, name in enumerate(names)
        if n[k]
    ]
    return sorted(rows, key=lambda row: (-row.n, row.source))

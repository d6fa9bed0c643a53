"""Metrics of answers instead of pairs: the best of several, and win rates by source."""

import numpy as np
import pandas as pd

from rewardline.evaluation.metrics.intervals import Codes, Floats, accuracy
from rewardline.evaluation.results import BestOfN, WinRate

PAIRS_AT_ONCE = 100_000


def best_of_n(scores: pd.DataFrame, prompts: Codes) -> BestOfN | None:
    """How often the best of three or more answers to a prompt has the greatest score; None where there are none.

    The best answer is the only one that no pair rejects. Scores that are equal share the success. `prompts` counts the
    prompts, `answers` is the mean number of answers, and `chance` what a random choice would reach.
    """
    if not {"comparison", "chosen_answer", "rejected_answer"} <= set(scores.columns):
        return None
    comparisons = scores["comparison"].to_numpy()
    parts = max(1, len(scores) // PAIRS_AT_ONCE)
    results = [_best_answers(scores, np.flatnonzero(comparisons % parts == part)) for part in range(parts)]
    success, answers, rows = (np.concatenate(column) for column in zip(*results, strict=True))
    if not len(success):
        return None
    return BestOfN(
        prompts=len(success),
        answers=float(answers.mean()),
        **accuracy(success, prompts[rows]),
        chance=float((1 / answers).mean()),
    )


def _best_answers(scores: pd.DataFrame, rows: Codes) -> tuple[Floats, Codes, Codes]:
    """Of each comparison with a best answer: the success [prompts], the number of answers, and one of its rows."""
    _, first, owner, pairs = np.unique(
        scores["comparison"].to_numpy()[rows], return_index=True, return_inverse=True, return_counts=True
    )
    several = (pairs > 1)[owner]  # one pair has two answers
    part, owner = scores.iloc[rows[several]], owner[several]
    if not len(owner):
        return np.zeros(0), owner, owner
    sides = [part[f"{side}_answer"].to_numpy(np.int64) for side in ("chosen", "rejected")]
    width = int(max(side.max() for side in sides)) + 1
    keys, index = np.unique(np.concatenate([owner * width + side for side in sides]), return_inverse=True)
    values = np.empty(len(keys))
    values[index] = np.concatenate([part[f"{side}_score"].to_numpy() for side in ("chosen", "rejected")])
    rejected = np.zeros(len(keys), dtype=bool)
    rejected[index[len(owner) :]] = True
    is_first = np.diff(keys // width, prepend=-1) != 0
    starts, group = np.flatnonzero(is_first), np.cumsum(is_first) - 1
    answers = np.bincount(group)
    usable = (answers > 2) & (np.bincount(group, weights=~rejected) == 1)
    top = values == np.maximum.reduceat(values, starts)[group]
    success = np.bincount(group, weights=top & ~rejected) / np.bincount(group, weights=top)
    return success[usable], answers[usable], rows[first[keys[starts] // width]][usable]


def win_rates(scores: pd.DataFrame, correct: Floats) -> list[WinRate]:
    """How often each source wins against others, by label and by score; most pairs first, [] where none is named.

    `n` are the pairs with one answer of the source and one of another, or of an unnamed one.
    """
    if not {"chosen_source", "rejected_source"} <= set(scores.columns):
        return []
    sides = [scores[f"{side}_source"].astype("category") for side in ("chosen", "rejected")]
    names = pd.Index(sides[0].cat.categories.union(sides[1].cat.categories), dtype=object)
    winner, loser = (side.cat.set_categories(names).cat.codes.to_numpy() for side in sides)
    apart = winner != loser
    count = len(names)
    sides_won = []
    for codes, right in ((winner, correct), (loser, 1 - correct)):
        named = apart & (codes >= 0)
        pairs = np.bincount(codes[named], minlength=count)
        sides_won.append((pairs, np.bincount(codes[named], weights=right[named], minlength=count)))
    total, model = sides_won[0][0] + sides_won[1][0], sides_won[0][1] + sides_won[1][1]
    rows = [
        WinRate(
            source=str(names[k]),
            n=int(total[k]),
            labelled=float(sides_won[0][0][k] / total[k]),
            model=float(model[k] / total[k]),
        )
        for k in range(count)
        if total[k]
    ]
    return sorted(rows, key=lambda row: (-row.n, row.source))

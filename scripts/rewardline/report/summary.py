"""The evals of all runs as one table, and as the screen that ends a run. Imports nothing slow."""

import csv
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from rewardline.core.errors import UserError
from rewardline.core.files import atomic_file
from rewardline.evaluation.comparisons import ComparisonsFile
from rewardline.evaluation.leaderboards import Entry, Leaderboard, entries, leaderboards
from rewardline.evaluation.results import EvaluationResult, Rates, printable, read_results

COLUMNS = (
    *("run", "mixture", "model", "seed", "benchmark", "n", "accuracy", "accuracy_low", "accuracy_high"),
    *("chosen_mean", "rejected_mean", "length_accuracy", "loss"),
)
"""The columns of `summary.tsv`. Rates are shares from 0 to 1; an unknown number is `nan`, an unknown seed is empty."""

SUBSETS_SHOWN = 12
ENTRIES_SHOWN = 4
NAMED = 3
FAILURE_LINES = 12


def write_summary(evaluations: Iterable[EvaluationResult], path: Path) -> None:
    """Write one row per run and benchmark, in the order given, as tab-separated values with six decimals."""
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, escapechar="\\")
        writer.writerow(COLUMNS)
        for one in evaluations:
            rates = one.total
            numbers = (rates.accuracy, rates.low, rates.high, one.chosen_mean, one.rejected_mean, rates.length)
            names = (one.run, one.mixture, one.model, "" if one.seed is None else one.seed, one.benchmark, rates.n)
            writer.writerow((*names, *(f"{number:.6f}" for number in (*numbers, one.loss))))


def read_summary(path: Path) -> list[EvaluationResult]:
    """Read what `write_summary` wrote; `by_subset` is empty. A `UserError` names a file that is missing or damaged."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE, escapechar="\\"))
        return [_from_row(row) for row in rows]
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; run the summarize stage first") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it and run the summarize stage again") from error


def screen(summary: Path | None, metrics: Sequence[Path], width: int = 100, comparisons: Path | None = None) -> str:
    """The last screen of a run: a table of the rows of `summary`, then the accuracy by subset from `metrics`.

    Without a summary the rows are those of `metrics`. `comparisons` says which differences are noise. Plain text
    without colour; lines fit `width` columns as long as the numbers leave room for the names.
    """
    parts = [_results(read_results(metrics) if summary is None else read_summary(summary), width)]
    if comparisons is not None and (lines := noise(ComparisonsFile.read(comparisons), width)):
        parts[0] += "\n" + "\n".join(lines)
    parts += [_by_subset(board, width) for board in leaderboards(read_results(metrics)) if len(board.subsets) > 1]
    return "\n\n".join(parts)


def noise(comparisons: ComparisonsFile, width: int = 100) -> list[str]:
    """For each leaderboard with two runs or more, a line on the differences within the noise."""
    lines = []
    for board in comparisons.boards:
        runs = [one for one in board.differences if not one.seeds]
        if not runs:
            continue
        within = [f"{one.first} and {one.second}" for one in runs if one.within_noise]
        text = f"within the noise: {', '.join(within)}"
        if not within:
            text = "all runs differ beyond the noise"
        elif len(within) == len(runs) > 1:
            text = "no two runs differ beyond the noise"
        elif len(within) > NAMED:
            text = f"{len(within):,} of {len(runs):,} differences between runs are within the noise"
        name = board.benchmark if board.mixture is None else f"{board.benchmark} of {board.mixture}"
        lines.append(_shorten(f"{name}: {text}", width))
    return lines


def failure(log: Path) -> list[str]:
    """The first lines of the message with which a stage's log ends; [] where there is none."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    message = re.split(r"^\d\d:\d\d:\d\d error: ", text, flags=re.MULTILINE)[1:]
    return [printable(line) for line in message[-1].splitlines()[:FAILURE_LINES]] if message else []


def percent(share: float) -> str:
    """A share as a percentage with one decimal; `-` where unknown."""
    return f"{100 * share:.1f}%" if math.isfinite(share) else "-"


def score(value: float) -> str:
    """A score with two decimals; `-` where unknown."""
    return f"{value:.2f}".replace("-0.00", "0.00") if math.isfinite(value) else "-"


def interval(rates: Rates) -> str:
    """The 95% interval of an accuracy, in percent; `-` where unknown."""
    return "-" if math.isnan(rates.low + rates.high) else f"{100 * rates.low:.1f} - {100 * rates.high:.1f}"


def _results(evaluations: Sequence[EvaluationResult], width: int) -> str:
    head = ["run", "benchmark", "pairs", "accuracy", "95% interval", "length only", "chosen", "rejected"]
    rows = []
    for entry in entries(evaluations):
        for one in entry.members:
            rates, means = one.total, (score(one.chosen_mean), score(one.rejected_mean))
            rows.append([one.run, one.benchmark, f"{rates.n:,}", percent(rates.accuracy), interval(rates)])
            rows[-1] += [percent(rates.length), *means]
        if len(entry.members) > 1:
            rows.append(_seeds_row(entry))
    note = ["length only: how often the longer answer is the chosen one; a model must do better than that"]
    if any(len(entry.members) > 1 for entry in entries(evaluations)):
        note.append("±: standard deviation between seeds")
    return "\n".join([*_table(head, rows, width, names=2), *note])


def _seeds_row(entry: Entry) -> list[str]:
    first, rates = entry.members[0], entry.total
    spread = f"± {100 * entry.spread:.1f}" if math.isfinite(entry.spread) else "-"
    means = [score(entry.mean("chosen_mean")), score(entry.mean("rejected_mean"))]
    name = f"{entry.name}, {len(entry.members)} seeds"
    return [name, first.benchmark, f"{rates.n:,}", percent(rates.accuracy), spread, percent(rates.length), *means]


def _by_subset(board: Leaderboard, width: int) -> str:
    shown, subsets = board.entries[:ENTRIES_SHOWN], board.subsets
    rows = []
    for name in subsets[:SUBSETS_SHOWN]:
        rates = [entry.by_subset.get(name) for entry in shown]
        known = next(one for one in (entry.by_subset.get(name) for entry in board.entries) if one is not None)
        accuracies = [percent(one.accuracy) if one else "-" for one in rates]
        rows.append([name, f"{known.n:,}", *accuracies, percent(known.length)])
    names = ["accuracy"] if len(board.entries) == 1 else [_shorten(entry.name, 14) for entry in shown]
    lines = [f"Accuracy by subset, {board.title}, weakest first"]
    lines += _table(["subset", "pairs", *names, "length only"], rows, width, names=1)
    if len(subsets) > SUBSETS_SHOWN:
        lines.append(f"... and {len(subsets) - SUBSETS_SHOWN:,} more")
    if len(board.entries) > len(shown):
        lines.append(f"the best {len(shown)} of {len(board.entries)} runs; all are in the report")
    return "\n".join(lines)


def _table(head: list[str], rows: list[list[str]], width: int, names: int) -> list[str]:
    """Align the first `names` columns left and the others right; shorten the names so that lines fit `width`."""
    columns = list(zip(head, *rows, strict=True))
    widths = [max(map(_columns, column)) for column in columns]
    while sum(widths) + 2 * len(widths) - 2 > width and max(widths[:names]) > 12:
        widths[widths.index(max(widths[:names]))] -= 1
    lines = []
    for row in [head, *rows]:
        cells = [_shorten(cell, widths[k]) if k < names else cell for k, cell in enumerate(row)]
        gaps = [" " * (widths[k] - _columns(cell)) for k, cell in enumerate(cells)]
        padded = [
            cell + gap if k < names else gap + cell for k, (cell, gap) in enumerate(zip(cells, gaps, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return lines


def _columns(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def _shorten(text: str, width: int) -> str:
    """`text` in at most `width` columns, its middle left out where it is longer: ends tell names apart."""
    if _columns(text) <= width:
        return text
    half = (width - 3) // 2
    start, end = text, text
    while _columns(start) > width - 3 - half:
        start = start[:-1]
    while _columns(end) > half:
        end = end[1:]
    return f"{start}...{end}"


def _from_row(row: dict[str, str]) -> EvaluationResult:
    return EvaluationResult(
        run=row["run"],
        mixture=row["mixture"],
        model=row["model"],
        seed=int(row["seed"]) if row["seed"] else None,
        benchmark=row["benchmark"],
        n=int(row["n"]),
        accuracy=float(row["accuracy"]),
        accuracy_low=float(row["accuracy_low"]),
        accuracy_high=float(row["accuracy_high"]),
        length_accuracy=float(row["length_accuracy"]),
        chosen_mean=float(row["chosen_mean"]),
        rejected_mean=float(row["rejected_mean"]),
        loss=float(row["loss"]),
    )

"""The results of all runs as `summary.tsv`, and as the final summary that ends a run.

Snakemake's own process prints the final summary, so that this imports nothing slow and nothing (such as rich) that
Snakemake does not bring with it.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import fill

from rewardline.core.artifacts import damaged
from rewardline.core.files import atomic_file
from rewardline.data.pairs.left_out import PairsAccount, TokensAccount
from rewardline.evaluation.choices import ChosenRun
from rewardline.evaluation.comparisons import ComparisonsFile
from rewardline.evaluation.labels.audit_result import AuditResult
from rewardline.evaluation.leaderboards import Entry, Leaderboard, entries, leaderboards
from rewardline.evaluation.results import EvaluationResult, Rates, left_out_lines, printable, read_all_results
from rewardline.evaluation.settings import HELD_OUT
from rewardline.report.formatting import abbreviated, decimal, display_width, interval, percent, rating_table, shorten
from rewardline.report.provenance import varied_settings
from rewardline.scoring.manifests import read_account
from rewardline.tokens.base_manifest import BaseManifest
from rewardline.training.halving import Rung
from rewardline.training.records.run_facts import RunFacts

COLUMNS = (
    *("run", "mixture", "model", "seed", "benchmark", "n", "accuracy", "accuracy_low", "accuracy_high"),
    *("chosen_mean", "rejected_mean", "length_accuracy", "loss"),
)
"""The columns of `summary.tsv`. Rates are shares from 0 to 1; an unknown number is `nan`, an unknown seed is empty."""
RUN_COLUMNS = (
    *(
        "run",
        "sweep",
        "mixture",
        "model",
        "seed",
        "train_pairs",
        "steps",
        "exported_step",
        "pairs",
        "tokens",
        "seconds",
    ),
)
"""The first columns of `runs.tsv`."""

SCREEN = 48
"""Lines that the final summary takes at most; what was lost or failed is shown before subsets are."""
LEAST = 2
"""Lines that are left of each block when there is much to say: the first, and how many more there are."""
MORE = re.compile(r"\.\.\. and ([\d,]+) more (lines|rows) in the report")
ROWS_SHOWN = 12
"""Rows of the table of results; with more, seeds have their mean alone, and the best of each benchmark come first."""
NOISE_SHOWN, CURVES_SHOWN, CHOICES_SHOWN, ACCOUNT_SHOWN, LEFT_OUT_SHOWN, RUNGS_SHOWN, SCORED_SHOWN = 4, 4, 6, 7, 2, 3, 8
AUDITS_SHOWN, RATINGS_SHOWN = 4, 8
"""Lines on noise, learning curves, choices, the data, runs left out, halving, scoring, audits, and ratings."""
BOARDS_SHOWN = 2
SUBSETS_SHOWN, LEAST_SUBSETS = 12, 4
PLACES = "best", "2nd", "3rd", "4th"
ENTRIES_SHOWN = len(PLACES)
MARK = " *"
"""The end of the names of runs that do not compete with others."""
NAMED = 3
"""Differences within noise that are named."""
FAILURE_LINES = 12


def write_summary(results: Iterable[EvaluationResult], runs: Sequence[RunFacts], path: Path) -> None:
    """Write one row per run and benchmark, in the order given, as tab-separated values with six decimals.

    The columns end with the settings that differ between `runs`, under their keys; those of an ensemble are empty.
    """
    with atomic_file(path) as partial:
        partial.write_bytes(_table_of(results, runs))


def verify_summary(results: Iterable[EvaluationResult], runs: Sequence[RunFacts], path: Path) -> None:
    """Raise `UserError` if the table in a file is not that of these results."""
    if not path.is_file() or path.read_bytes() != _table_of(results, runs):
        raise damaged(path, path, "it is not the table of the evaluations")


def write_runs(results: Sequence[EvaluationResult], runs: Sequence[RunFacts], path: Path) -> None:
    """Write one row per training run: facts, the settings that differ, and the accuracy on each benchmark."""
    varied = varied_settings(runs)
    accuracy = {(one.run, one.benchmark): one.accuracy for one in results}
    benchmarks = list(dict.fromkeys(one.benchmark for one in results))
    rows = [
        [
            *(getattr(run, name) for name in RUN_COLUMNS),
            *(by_run[run.run] for by_run in varied.values()),
            *(accuracy.get((run.run, name), "") for name in benchmarks),
        ]
        for run in runs
    ]
    with atomic_file(path) as partial:
        partial.write_bytes(_tsv([*RUN_COLUMNS, *varied, *benchmarks], rows))


def _table_of(results: Iterable[EvaluationResult], runs: Sequence[RunFacts]) -> bytes:
    varied = varied_settings(runs)
    rows = [
        [*(getattr(one, name) for name in COLUMNS), *(by_run.get(one.run, "") for by_run in varied.values())]
        for one in results
    ]
    return _tsv([*COLUMNS, *varied], rows)


def _tsv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, escapechar="\\")
    writer.writerow(columns)
    writer.writerows([f"{value:.6f}" if isinstance(value, float) else value for value in row] for row in rows)
    return stream.getvalue().encode()


def final_summary(
    metrics: Sequence[Path],
    width: int = 100,
    comparisons: Path | None = None,
    height: int = SCREEN,
    others: Sequence[str] = (),
) -> str:
    """A table of all results, the accuracy by subset on each benchmark, and what else there is to say, in `others`.

    `comparisons` says which differences are within noise. Plain text without color; lines fit `width` columns as long
    as the numbers leave room for the names. Long blocks after the table are cut until all fit `height` lines; subsets
    take what is left.
    """
    others = list(filter(None, others))
    results, left_out = read_all_results(metrics)
    gone = _first([_wrapped(line, width) for line in left_out_lines(left_out)], LEFT_OUT_SHOWN)
    if not results:
        return "\n\n".join(_cut(["\n".join(["no evaluation is up to date", *gone]), *others], height))
    compared = ComparisonsFile.read(comparisons) if comparisons is not None else ComparisonsFile(boards=[])
    said = [*gone, *_first(noise(compared, width), NOISE_SHOWN)]
    judged = [one for one in results if one.n or not one.ratings]
    parts = ["\n".join([*([_results(entries(judged, compared.boards), width)] if judged else []), *said])]
    parts += [text] if (text := _ratings(results, width)) else []
    parts = list(filter(None, parts))
    curves = [_wrapped(one.sentence(), width) for one in compared.curves if one.metric == "error"]
    parts += ["\n".join(_first(curves, CURVES_SHOWN))] if curves else []
    first, last = len(parts), _cut([*parts, *others], height)
    parts, last = last[:first], last[first:]
    left, shown = [board for board in leaderboards(results) if len(board.subsets) > 1], 0
    while left and shown < BOARDS_SHOWN:
        # Lines besides those of subsets: blank ones, title, columns, what is left out here and of other benchmarks.
        room = height - sum(part.count("\n") + 2 for part in (*parts, *last)) - 6
        if room < min(LEAST_SUBSETS, len(left[0].subsets)):
            break
        parts.append(_by_subset(left.pop(0), width, min(room, SUBSETS_SHOWN)))
        shown += 1
    if left:
        more, benchmarks = "more " if shown else "", "benchmarks" if len(left) > 1 else "benchmark"
        parts.append(f"accuracy by subset on {len(left):,} {more}{benchmarks} is in the report")
    return "\n\n".join([*parts, *last])


def _cut(blocks: Sequence[str], height: int) -> list[str]:
    """Blocks of lines, of which the longest but the first are cut until all fit `height` lines, blank ones between."""
    lines = [block.split("\n") for block in blocks]
    while sum(len(block) + 1 for block in lines) > height:
        longest = max(lines[1:], key=len, default=[])
        if len(longest) <= LEAST:
            break
        found = MORE.fullmatch(longest[-1])
        count, kind = (int(found[1].replace(",", "")) + 1, found[2]) if found else (2, "lines")
        longest[-2:] = [f"... and {count:,} more {kind} in the report"]
    return ["\n".join(block) for block in lines]


def _first(texts: Sequence[str], shown: int) -> list[str]:
    """The first lines, and how many more there are."""
    lines = [line for text in texts for line in text.splitlines()]
    left = len(lines) - shown
    return lines if left < 2 else [*lines[:shown], f"... and {left:,} more lines in the report"]


def choices(selections: Sequence[Path], width: int = 100) -> str:
    """Which runs were chosen, and why, as lines; `selections` are `selection.json` files."""
    found = [ChosenRun.read(path) for path in selections]
    return "\n".join(
        _first([_wrapped(f"{one.name}: {' '.join(one.sentences())}", width) for one in found], CHOICES_SHOWN)
    )


def scored(manifests: Sequence[Path], width: int = 100) -> str:
    """What was scored, chosen to be labeled, lost and left out, as lines; `manifests` are of such jobs."""
    lines = [line for path in manifests for line in read_account(path).lines()]
    return "\n".join(_first([_wrapped(line, width) for line in lines], SCORED_SHOWN))


def audits(results: Sequence[Path], width: int = 100) -> str:
    """What audits of labels found, as lines; `results` are `audit.json` files."""
    return "\n".join(_first([_wrapped(AuditResult.read(path).line(), width) for path in results], AUDITS_SHOWN))


def halvings(rungs: Sequence[Path], width: int = 100) -> str:
    """How many cells of sweeps went on after each rung, as lines; `rungs` are `Rung` files."""
    return "\n".join(_first([_wrapped(Rung.read(path).sentence(), width) for path in rungs], RUNGS_SHOWN))


def account(stats: Sequence[Path], tokens: Sequence[Path], bases: Sequence[Path], width: int = 100) -> str:
    """What became of the rows of each mixture and benchmark, and what was lost or changed on the way, as lines.

    Manifests of pairs, `stats.json`; of tokens, in a folder of the mixture's and the model's name; of base models.
    """
    counted = [PairsAccount.read(path) for path in stats]
    lines = [line for one in counted for line in one.lines()]
    for path in tokens:
        lines += TokensAccount.read(path).lines(path.parent.parent.name, path.parent.name)
    lines += [f"{path.parent.name}: {note}" for path in bases for note in BaseManifest.read(path).notes]
    return "\n".join(_first([_wrapped(line, width) for line in lines], ACCOUNT_SHOWN))


def _wrapped(line: str, width: int) -> str:
    return fill(printable(line), width, subsequent_indent="  ", break_on_hyphens=False)


def noise(comparisons: ComparisonsFile, width: int = 100) -> list[str]:
    """For each benchmark with two runs or more, a line on differences within noise; and what one seed cannot tell."""
    lines = []
    for board in comparisons.boards:
        runs = board.differences
        if not runs:
            continue
        within = [f"{one.first} and {one.second}" for one in runs if one.within_noise]
        text = f"within noise: {', '.join(within)}"
        if not within:
            text = "all runs differ by more than noise"
        elif len(within) == len(runs) > 1:
            text = "no two runs differ by more than noise"
        elif len(within) > NAMED:
            text = f"{len(within):,} of {len(runs):,} differences between runs are within noise"
        name = board.benchmark if board.mixture is None else f"{board.benchmark} of {board.mixture}"
        lines.append(shorten(f"{name}: {text}", width))
    if any(not one.seeds for board in comparisons.boards for one in board.differences):
        lines.append(
            "runs with one seed each are compared as these weights; recipes need several seeds to be told apart"
        )
    return lines


def failure_message(log: Path) -> list[str]:
    """The first lines of the message with which a stage's log ends; [] where there is none."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    messages = re.split(r"^\d\d:\d\d:\d\d error: ", text, flags=re.MULTILINE)[1:]
    return [printable(line) for line in messages[-1].splitlines()[:FAILURE_LINES]] if messages else []


def abrupt_end(log: Path) -> list[str]:
    """What to say of a job that ended without a message, in two lines: the last one of its log tells most."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        lines = []
    last = next((printable(line.strip()) for line in reversed(lines) if line.strip()), "")
    reason = "it ended without a message, as when the system ends it for lack of memory"
    return [f"{reason}; its log ends with:", last] if last else [f"{reason}; its log is empty"]


def stop_message(log: Path) -> str:
    """Where a stage stopped on request, as the last line of its log says; empty if it did not."""
    try:
        *_, last = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, ValueError):
        return ""
    found = re.fullmatch(r"\d\d:\d\d:\d\d stopped on request (.*)", last)
    return printable(found[1]) if found else ""


def _results(entries: Sequence[Entry], width: int) -> str:
    """A row for each run and benchmark; for several seeds one more with their means."""
    columns = ["run", "benchmark", "pairs", "accuracy", "95% interval", "length only", "chosen", "rejected"]
    notes = ["length only: how often the longer answer is the chosen one; a model must do better than that"]
    rows = []
    is_long = sum(len(entry.members) + (len(entry.members) > 1) for entry in entries) > ROWS_SHOWN
    for entry in sorted(entries, key=_best_first) if is_long else entries:
        for one in entry.members if not is_long or len(entry.members) == 1 else ():
            means = (one.chosen_mean, one.rejected_mean)
            name = one.run + MARK * bool(entry.mark)
            rows.append(_row(name, one.benchmark, one.total, interval(one.total), means))
        if len(entry.members) > 1:
            name = f"{entry.name}, {len(entry.members)} seeds{MARK * bool(entry.mark)}"
            benchmark = entry.members[0].benchmark
            means = (entry.mean("chosen_mean"), entry.mean("rejected_mean"))
            rows.append(_row(name, benchmark, entry.total, interval(entry.total), means))
            notes[1:] = [
                "95% interval: for other prompts; of several seeds for other seeds too, so few seeds leave it wide"
            ]
    if any(row[0].endswith(MARK) for row in rows[:ROWS_SHOWN]):
        notes.append(f"{MARK.strip()}: eliminated by successive halving, or the training of a seed has diverged")
    if len(rows) > ROWS_SHOWN:
        notes.insert(0, f"... and {len(rows) - ROWS_SHOWN:,} more rows in the report and summary.tsv")
    if display_width("  ".join(columns)) + max(display_width(row[0]) for row in rows[:ROWS_SHOWN]) > width:
        columns, rows = columns[:-2], [row[:-2] for row in rows]  # names of cells say more than mean scores
    return "\n".join([*_table(columns, rows[:ROWS_SHOWN], width, names=2), *notes])


def _ratings(results: Sequence[EvaluationResult], width: int) -> str:
    """How well the ratings of single answers are predicted; empty without any."""
    table = rating_table(results)
    if not table.rows:
        return ""
    columns = [k for k, name in enumerate(table.columns) if name not in ("95% interval", "MSE of the mean")]
    rows = [[row[k] for k in columns] for row in table.rows]
    lines = _table([table.columns[k] for k in columns], rows[:RATINGS_SHOWN], width, names=3)
    more = [f"... and {len(rows) - RATINGS_SHOWN:,} more rows in the report"] if len(rows) > RATINGS_SHOWN else []
    return "\n".join(["Ratings of single answers", *lines, *more])


def _best_first(entry: Entry) -> tuple[bool, str, bool, float]:
    benchmark, accuracy = entry.members[0].benchmark, entry.total.accuracy
    return benchmark != HELD_OUT, benchmark, bool(entry.mark), -accuracy if accuracy >= 0 else 0.0


def _row(name: str, benchmark: str, rates: Rates, certainty: str, means: tuple[float, float]) -> list[str]:
    shares = [percent(rates.accuracy), certainty, percent(rates.length)]
    return [name, benchmark, f"{rates.n:,}", *shares, *map(decimal, means)]


def _by_subset(board: Leaderboard, width: int, most: int) -> str:
    shown, subsets = board.competing[:ENTRIES_SHOWN], board.subsets
    rows = []
    for name in subsets[:most]:
        known = next(entry.by_subset[name] for entry in board.entries if name in entry.by_subset)
        rates = [entry.by_subset.get(name) for entry in shown]
        accuracies = [percent(one.accuracy) if one else "-" for one in rates]
        rows.append([name, f"{known.n:,}", *accuracies, percent(known.length)])
    names = ["accuracy"] if len(shown) == 1 else abbreviated([entry.name for entry in shown], 14)
    if len(set(names)) < len(names):
        names = list(PLACES[: len(names)])
    lines = [f"Accuracy by subset, {board.title}, weakest first"]
    lines += _table(["subset", "pairs", *names, "length only"], rows, width, names=1)
    if len(subsets) > most:
        lines.append(f"... and {len(subsets) - most:,} more")
    if len(board.entries) > len(shown):
        lines.append(f"the best {len(shown)} of {len(board.entries)} runs; all are in the report")
    return "\n".join(lines)


def _table(columns: list[str], rows: list[list[str]], width: int, names: int) -> list[str]:
    """Align the first `names` columns left and the others right; shorten the names so that lines fit `width`."""
    widths = [max(map(display_width, cells)) for cells in zip(columns, *rows, strict=True)]
    while sum(widths) + 2 * len(widths) - 2 > width and max(widths[:names]) > 12:
        widths[widths.index(max(widths[:names]))] -= 1
    lines, texts = [], [abbreviated([row[k] for row in rows], widths[k]) for k in range(names)]
    widths[:names] = [max(map(display_width, [columns[k], *texts[k]])) for k in range(names)]
    for row in [columns, *([*first, *row[names:]] for *first, row in zip(*texts, rows, strict=True))]:
        cells = []
        for k, (text, size) in enumerate(zip(row, widths, strict=True)):
            cell = shorten(text, size)
            gap = " " * (size - display_width(cell))
            cells.append(cell + gap if k < names else gap + cell)
        lines.append("  ".join(cells).rstrip())
    return lines

"""Build the pairs of a mixture: convert rows, clean, split by prompt, and say what was left out and why.

    python scripts/build_pairs.py --name main --settings @settings.json \\
        --data results/data/hh/manifest.json --output results/pairs/main

Leaves `train/` and `eval/` with Parquet parts clustered by prompt, `rejects.parquet` and `stats.json`.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from rewardline.artifacts import canonical, file_sha256, publish, read_json, settings_argument, write_json
from rewardline.cli import UserError, log, parser, progress, run, start_logging
from rewardline.formats import FORMATS, OPTIONS, Pairs, Reject, converter, detect
from rewardline.pairs import (
    PAIR_SCHEMA,
    REJECT_SCHEMA,
    Candidate,
    PartWriter,
    Source,
    clean,
    pair_row,
    position,
    prompt_identity,
    read_pairs,
    read_part,
)
from rewardline.spill import Spill, read_bucket
from rewardline.statistics import PairStatistics

Json = dict[str, Any]
EXAMPLES_PER_REASON = 3
INTENDED = (
    "outside_share", "not_sampled", "duplicate", "contradiction", "in_benchmark", "tie", "small_margin", "no_margin",
    "max_pairs",
)  # fmt: skip
"""Reasons that follow from the settings or from other rows, and do not count against `max_reject_fraction`."""


class Rejects:
    """What is left out: a file with every case, and counts by reason."""

    def __init__(self, folder: Path) -> None:
        self._writer = PartWriter(folder, REJECT_SCHEMA, rows_per_part=2**62)
        self._folder = folder
        self.rows: dict[str, Counter[str]] = defaultdict(Counter)
        self.pairs: Counter[str] = Counter()
        self.examples: list[Json] = []
        self._seen: Counter[tuple[str, str]] = Counter()

    def add(self, source: Source, reason: str, detail: str, whole_row: bool = True) -> None:
        """Note that a row gives no pair at all, or (not `whole_row`) that one of its pairs goes."""
        row = {**vars(source), "reason": reason, "detail": detail}
        self._writer.add(row)
        if whole_row:
            self.rows[source.dataset][reason] += 1
        else:
            self.pairs[reason] += 1
        self._seen[source.dataset, reason] += 1
        if self._seen[source.dataset, reason] <= EXAMPLES_PER_REASON:
            self.examples.append(row)

    def close(self, target: Path) -> None:
        """Finish the file and move it to `target`."""
        self._writer.close()
        self._writer.parts[0].replace(target)
        self._folder.rmdir()


def raw_rows(manifest: Path) -> Iterator[Json]:
    """The rows of a downloaded data set, checked to be the parts that its manifest describes."""
    for part in read_json(manifest)["parts"]:
        path = manifest.parent / part["file"]
        count = 0
        for row in read_part(path):
            yield row
            count += 1
        if count != part["rows"]:
            raise UserError(f"{path} has {count} rows, not {part['rows']}; delete {manifest.parent} and run again")


def choose_format(dataset: str, shape: Json, manifest: Path) -> str:
    """The format to read a data set's rows with; `auto` takes the one that fits each of the first rows."""
    if shape["format"] != "auto":
        return str(shape["format"])
    rows = list(islice((row for row in raw_rows(manifest) if row["record"]), 50))
    fits = [detect(json.loads(row["record"]), shape["fields"]) for row in rows]
    certain = {fit for fit in fits if isinstance(fit, str)}
    unclear = [row for row, fit in zip(rows, fits, strict=True) if not isinstance(fit, str)]
    if len(certain) == 1 and 2 * len(unclear) < len(rows):  # a few bad rows become rejects with their reason
        (name,) = certain
        log.info("%s: format %s (%s)", dataset, name, FORMATS[name].description)
        return name
    where = "none of its rows is readable"
    if rows:
        example = (unclear or rows)[0]
        keys = ", ".join(map(str, json.loads(example["record"])))
        where = f"{example['file']}:{example['row']} has the keys {keys}"
    possible = certain | {name for fit in fits if isinstance(fit, list) for name in fit}
    raise UserError(
        f"{dataset}: its format is not clear: {where}. "
        f"Set `format` to one of {', '.join(sorted(possible) or FORMATS)}, or say where its parts stand "
        "with `fields: {prompt: ..., chosen: ..., rejected: ...}`"
    )


def conversion(dataset: str, name: str, shape: Json) -> Callable[[Json], Pairs]:
    """The function that makes pairs of a data set's rows."""
    options = {key: shape[key] for key in OPTIONS}
    try:
        return converter(name, shape["fields"], **options)
    except UserError as error:
        raise UserError(f"{dataset}: {error}") from None


def candidates_of(
    dataset: str, shape: Json, row: Json, convert: Callable[[Json], Pairs], rejects: Rejects
) -> list[Candidate]:
    """The candidates that a raw row gives; pairs left out of a row that gives others go to `rejects`.

    Raises:
        Reject: the row gives none; with the reason.
    """
    if row["error"] is not None:
        raise Reject("unreadable", row["error"])
    source = Source(dataset, row["file"], row["row"])
    low, high = shape["share"]
    result = []
    pairs = convert(json.loads(row["record"]))
    for reason, count in pairs.skipped.items():
        for _ in range(count):
            rejects.add(source, reason, "one of the pairs that the row could give", whole_row=False)
    for pair in pairs:
        prompt = [{"role": turn["role"], "content": turn["content"]} for turn in pair.prompt]
        prompt_id = prompt_identity(prompt)
        if not low <= position("share", prompt_id) < high and (low, high) != (0, 1):
            continue
        subset = shape.get("subset") or pair.subset or dataset
        text = canonical(prompt)
        result.append(Candidate(source, prompt_id, text, pair.chosen, pair.rejected, pair.margin, pair.weight, subset))
    if not result:
        raise Reject("outside_share", f"its prompt lies outside the share [{low}, {high}]")
    return result


def convert_all(settings: Json, data: dict[str, Path], spill: Spill, rejects: Rejects) -> tuple[Json, float]:
    """Spill the candidates of every data set. Returns facts by data set, and the least `position` of a prompt."""
    facts: Json = {}
    least = 1.0
    for dataset, manifest in data.items():
        shape = settings["shapes"][dataset]
        name = choose_format(dataset, shape, manifest)
        convert = conversion(dataset, name, shape)
        rows = read_json(manifest)["rows"]
        with progress(f"{dataset}: rows", total=rows) as bar:
            for row in raw_rows(manifest):
                try:
                    for candidate in candidates_of(dataset, shape, row, convert, rejects):
                        spill.add(candidate)
                        least = min(least, position(str(settings["seed"]), candidate.prompt_id))
                except Reject as reject:
                    rejects.add(Source(dataset, row["file"], row["row"]), reject.reason, reject.detail)
                bar.update(1)
        facts[dataset] = {"rows_in": rows, "format": name, "pairs_out": 0}
        _check_rejects(dataset, rows, rejects, settings["max_reject_fraction"])
    return facts, least


def _check_rejects(dataset: str, rows: int, rejects: Rejects, limit: float) -> None:
    unusable = {reason: n for reason, n in rejects.rows[dataset].items() if reason not in INTENDED}
    count = sum(unusable.values())
    if count <= limit * rows and count < rows:
        return
    reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(unusable.items(), key=lambda item: -item[1]))
    lines = [
        f"  {example['file']}:{example['row']}: {example['reason']}: {example['detail']}"
        for example in rejects.examples
        if example["dataset"] == dataset and example["reason"] in unusable
    ]
    raise UserError(
        f"{dataset}: {count} of {rows} rows are unusable ({reasons}), more than max_reject_fraction {limit:g} allows.\n"
        + "\n".join(lines[:6])
        + "\nMend the rows, set `format` or `fields` of the data set, or raise max_reject_fraction of the mixture."
    )


def eval_threshold(name: str, fraction: float, least: float) -> float:
    """Below which `position` a prompt is held out: at least one prompt is when any shall be."""
    if fraction == 0 or least < fraction:
        return fraction
    log.warning("%s: so few prompts that eval_fraction %g would hold out none; holding out one", name, fraction)
    return least + 2**-50


def write_pairs(
    settings: Json, buckets: list[Path], out: Path, rejects: Rejects, facts: Json, threshold: float, blocked: set[str]
) -> tuple[PairStatistics, dict[str, PartWriter]]:
    """Clean bucket by bucket and write `train/` and `eval/`."""
    weights = {name: float(weight) for name, weight in settings["datasets"].items()}
    writers = {split: PartWriter(out / split, PAIR_SCHEMA) for split in ("train", "eval")}
    statistics = PairStatistics()
    with progress("clean and split", total=len(buckets), unit="bucket") as bar:
        for bucket in buckets:
            cleaned = clean(
                read_bucket(bucket),
                seed=settings["seed"],
                eval_below=threshold,
                weights=weights,
                benchmark_prompts=blocked,
            )
            for split, pairs in (("train", cleaned.train), ("eval", cleaned.eval)):
                for pair in pairs:
                    dataset = pair.source.dataset
                    writers[split].add(pair_row(pair, weights[dataset] if split == "train" else 1.0))
                    statistics.add(pair, split)
                    facts[dataset]["pairs_out"] += 1
            used = {pair.source for pair in cleaned.train + cleaned.eval}
            counted: set[Source] = set()
            for pair, reason, detail in cleaned.rejects:
                whole_row = pair.source not in used and pair.source not in counted
                counted.add(pair.source)
                rejects.add(pair.source, reason, detail, whole_row)
            statistics.rows_used += len(used)
            bucket.unlink()
            bar.update(1)
    for writer in writers.values():
        writer.close()
    return statistics, writers


def build(name: str, settings: Json, data: dict[str, Path], benchmarks: list[Path], out: Path) -> Json:
    """Write the pairs of a mixture to `out` and return its statistics."""
    rejects = Rejects(out / ".rejects")
    spill = Spill(out / ".spill", sum(read_json(manifest)["rows"] for manifest in data.values()))
    facts, least = convert_all(settings, data, spill, rejects)
    blocked = {
        str(row["prompt_id"]) for stats in benchmarks for row in read_pairs(stats.parent / "eval", ["prompt_id"])
    }
    threshold = eval_threshold(name, settings["eval_fraction"], least)
    statistics, writers = write_pairs(settings, spill.buckets(), out, rejects, facts, threshold, blocked)
    (out / ".spill").rmdir()
    rejects.close(out / "rejects.parquet")
    for dataset, fact in facts.items():
        fact["rejects"] = dict(sorted(rejects.rows[dataset].items()))
    check_splits(name, settings, writers, sum(rejects.rows.values(), Counter()))
    stats = {
        "name": name,
        "rows_in": sum(fact["rows_in"] for fact in facts.values()),
        "rows_used": statistics.rows_used,
        "pairs_out": sum(writer.total for writer in writers.values()),
        **{split: writer.total for split, writer in writers.items()},
        "rejects": dict(sorted(sum(rejects.rows.values(), Counter()).items())),
        "pair_rejects": dict(sorted(rejects.pairs.items())),
        "by_dataset": facts,
        **statistics.summary(),
        "reject_examples": rejects.examples,
        "parts": {
            split: [{"file": part.name, "sha256": file_sha256(part)} for part in writer.parts]
            for split, writer in writers.items()
        },
    }
    if stats["rows_in"] != stats["rows_used"] + sum(stats["rejects"].values()):
        raise AssertionError(f"the rows of {name} do not add up: {stats}")
    return stats


def check_splits(name: str, settings: Json, writers: dict[str, PartWriter], left_out: Counter[str]) -> None:
    """A split that should hold something must not be empty."""
    reasons = ", ".join(f"{reason} {count}" for reason, count in left_out.most_common()) or "nothing"
    if settings["eval_fraction"] < 1 and not writers["train"].total:
        raise UserError(
            f"{name}: no training pairs are left ({writers['eval'].total} for evaluation; left out: {reasons}); add "
            "data, or lower eval_fraction"
        )
    if settings["eval_fraction"] > 0 and not writers["eval"].total:
        raise UserError(f"{name}: no pairs are left for evaluation (left out: {reasons}); add data")


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = parser(__doc__)
    options.add_argument("--name", required=True, help="name of the mixture or benchmark")
    options.add_argument("--settings", required=True, type=str, help="settings as JSON, or @FILE")
    options.add_argument("--data", required=True, nargs="+", type=Path, help="manifest.json of each data set")
    options.add_argument("--benchmarks", nargs="*", default=[], type=Path, help="stats.json of benchmarks' pairs")
    options.add_argument("--output", required=True, type=Path, help="folder to leave the pairs in")
    args = options.parse_args(argv)
    start_logging(args.log)
    settings = settings_argument(args.settings)
    data = {path.parent.name: path for path in sorted(args.data)}
    with publish(args.output) as out:
        stats = build(args.name, settings, data, args.benchmarks, out)
        write_json(out / "stats.json", stats)
    left_out = ", ".join(f"{reason} {count}" for reason, count in stats["rejects"].items()) or "nothing"
    log.info(
        "%s: %d rows, %d train and %d eval pairs; left out: %s",
        args.name,
        stats["rows_in"],
        stats["train"],
        stats["eval"],
        left_out,
    )
    return 0


if __name__ == "__main__":
    run(main)

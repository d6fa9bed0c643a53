"""The pairs of a mixture, joined from its shards, and their statistics."""

from collections import Counter
from pathlib import Path
from typing import Any

from rewardline.core.errors import UserError
from rewardline.core.files import link_or_copy, read_json
from rewardline.data.pairs.accounting import balance
from rewardline.data.pairs.pair_statistics import summarize
from rewardline.data.pairs.rejects import join_examples, join_rejects
from rewardline.data.pairs.settings import PairsSettings

Json = dict[str, Any]


def join_parts(shards: list[tuple[Path, Json]], split: str, out: Path) -> list[Json]:
    """Put the parts of all shards that hold anything into one folder; their entries for `stats.json`."""
    (out / split).mkdir()
    entries = [(folder, part) for folder, facts in shards for part in facts["parts"][split]]
    full = [entry for entry in entries if entry[1]["rows"]] or entries[:1]
    listed = []
    for number, (folder, part) in enumerate(full):
        name = f"part-{number:05d}.parquet"
        link_or_copy(folder / split / part["file"], out / split / name)
        listed.append({"file": name, "sha256": part["sha256"]})
    return listed


def build(
    name: str, settings: PairsSettings, sources: list[Path], prompts: Path, shards: list[Path], out: Path
) -> Json:
    """Write the pairs of a mixture to `out`; its statistics.

    Raises:
        UserError: a split that should hold something is empty.
    """
    common = read_json(prompts)
    data = [Path(entry["folder"]) for entry in common["data"]]
    converted = [read_json(folder / "manifest.json") for folder in data]
    cleaned = [(path.parent, read_json(path)) for path in shards]
    datasets = sorted({facts["dataset"] for facts in converted})
    left_out, used, pair_rejects = balance(
        [(folder / "rows.npy", facts["reasons"]) for folder, facts in cleaned], datasets
    )
    counts = [facts["statistics"] for _, facts in cleaned]
    origins = {path.parent.name: read_json(path) for path in sources}
    by_dataset: Json = {}
    for dataset in datasets:
        own = [facts for facts in converted if facts["dataset"] == dataset]
        reasons = sum((Counter(facts["rejects"]) for facts in own), left_out[dataset])
        by_dataset[dataset] = {
            "rows_in": origins[dataset]["rows"],
            "revision": origins[dataset]["revision"],
            "format": ", ".join(sorted({facts["format"] for facts in own})),
            "pairs_out": sum(part["datasets"].get(dataset, 0) for part in counts),
            "rows_used": used[dataset],
            "rejects": dict(sorted(reasons.items())),
        }
    for facts in converted:
        pair_rejects.update(facts["pair_rejects"])
    splits = {split: sum(facts[split] for _, facts in cleaned) for split in ("train", "eval")}
    rejects: Counter[str] = sum((Counter(facts["rejects"]) for facts in by_dataset.values()), Counter())
    check_splits(name, settings, splits, rejects)
    join_rejects([*data, *(folder for folder, _ in cleaned)], out)
    stats = {
        "name": name,
        "rows_in": sum(facts["rows_in"] for facts in by_dataset.values()),
        "rows_used": sum(used.values()),
        "pairs_out": sum(splits.values()),
        **splits,
        "rejects": dict(sorted(rejects.items())),
        "pair_rejects": dict(sorted(pair_rejects.items())),
        "by_dataset": by_dataset,
        **summarize(counts),
        "similar_prompts": common["groups"],
        "reject_examples": join_examples([*converted, *(facts for _, facts in cleaned)]),
        "parts": {split: join_parts(cleaned, split, out) for split in ("train", "eval")},
    }
    for facts in [stats, *by_dataset.values()]:
        if facts["rows_in"] != facts["rows_used"] + sum(facts["rejects"].values()):
            raise AssertionError(f"the rows of {name} do not add up: {stats}")
    return stats


def check_splits(name: str, settings: PairsSettings, splits: dict[str, int], left_out: Counter[str]) -> None:
    """A split that should hold something must not be empty."""
    reasons = ", ".join(f"{reason} {count}" for reason, count in left_out.most_common()) or "nothing"
    if settings.eval_fraction < 1 and not splits["train"]:
        raise UserError(
            f"{name}: no training pairs are left ({splits['eval']} for evaluation; left out: {reasons}); add data, or "
            "lower eval_fraction"
        )
    if settings.eval_fraction > 0 and not splits["eval"]:
        raise UserError(f"{name}: no pairs are left for evaluation (left out: {reasons}); add data")

"""Compare all prompts of a mixture with each other and with its benchmarks, before the pairs are cleaned in shards.

    python scripts/group_prompts.py --name main --settings @settings.json --output results/shards/prompts/main \\
        --data results/shards/candidates/hh/*/manifest.json --benchmarks results/shards/candidates/test/*/manifest.json

Leaves `groups.npy` (prompts that are nearly the same, with the group that each belongs to), the index of the
benchmarks' prompts, and `manifest.json` with what is the same for every shard: the split and the caps.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rewardline.artifacts import file_sha256, publish, read_json, settings_argument, write_json
from rewardline.candidates import CandidateReader, prompt_words
from rewardline.cli import UserError, log, parser, run, start_logging
from rewardline.contamination import BenchmarkPrompts
from rewardline.formats import GROUPED
from rewardline.identity import Hashes, positions
from rewardline.rejects import INTENDED
from rewardline.similarity import SignatureFiles, groups

Json = dict[str, Any]
LARGE_GROUP = 0.05
_STEP = 2**64 // 4096


def check_rejects(manifests: list[Json], limit: float) -> None:
    """Stop when a data set has too many unusable rows.

    Raises:
        UserError: the reasons, with examples and what to do.
    """
    for dataset in sorted({one["dataset"] for one in manifests}):
        own = [one for one in manifests if one["dataset"] == dataset]
        rows = sum(one["rows_in"] for one in own)
        unusable: Counter[str] = Counter()
        for one in own:
            unusable.update({reason: n for reason, n in one["rejects"].items() if reason not in INTENDED})
        count = sum(unusable.values())
        if count <= limit * rows and count < rows:
            continue
        reasons = ", ".join(f"{reason} {n}" for reason, n in unusable.most_common())
        lines = [
            f"  {example['file']}:{example['row']}: {example['reason']}: {example['detail']}"
            for one in own
            for example in one["reject_examples"]
            if example["reason"] in unusable
        ]
        raise UserError(
            f"{dataset}: {count} of {rows} rows are unusable ({reasons}), more than max_reject_fraction {limit:g} "
            "allows.\n" + "\n".join(lines[:6]) + "\nMend the rows, set `format` or `fields` of the data set, or raise "
            "max_reject_fraction of the mixture."
        )


def check_parts(manifests: list[Json]) -> None:
    """Stop when rows that belong together may have been converted apart."""
    parts = Counter(one["dataset"] for one in manifests)
    for one in manifests:
        if one["format"] in GROUPED and parts[one["dataset"]] > 1:
            raise UserError(
                f"{one['dataset']}: rows of format {one['format']} belong together, but its {parts[one['dataset']]} "
                f"parts were converted apart; set `format: {one['format']}`, so that all are read in one job"
            )


def benchmark_prompts(folders: list[tuple[str, Path]]) -> Iterator[tuple[str, int, Hashes]]:
    """The prompts of benchmarks: name, id, words."""
    for name, folder in folders:
        reader = CandidateReader(folder)
        for low in range(0, 2**64, _STEP):
            seen = None
            for candidate in reader.between(low, low + _STEP):
                if candidate.prompt_id != seen:
                    seen = candidate.prompt_id
                    yield name, seen, prompt_words(candidate.prompt)


def eval_threshold(name: str, fraction: float, seed: int, group_ids: Hashes) -> float:
    """Below which position a group is held out: at least one is when any shall be."""
    least = float(positions(f"split {seed}", group_ids).min()) if len(group_ids) else 1.0
    if fraction == 0 or least < fraction:
        return fraction
    log.warning("%s: so few prompts that eval_fraction %g would hold out none; holding out one", name, fraction)
    return least + 2**-50


def cap_position(cap: int, key: str, rows: Hashes) -> float:
    """Below which position a prompt is taken, so that at most `cap` of the candidates (their prompt ids) are."""
    places = positions(key, rows)
    if len(places) <= cap:
        return 1.0
    ordered = np.sort(places)
    return float(ordered[cap])


def group(name: str, settings: Json, data: list[Path], benchmarks: list[Path], out: Path) -> Json:
    """Write the groups and the index of benchmarks to `out`; what the manifest says of them."""
    manifests = [read_json(path) for path in data]
    check_parts(manifests)
    check_rejects(manifests, settings["max_reject_fraction"])
    folders = [path.parent for path in data]
    others = [(read_json(path)["dataset"], path.parent) for path in benchmarks]
    threshold = settings["near_duplicates"]
    own = [np.load(folder / "prompts.npy") for folder in folders]
    ids = np.concatenate([*own, *(np.load(folder / "prompts.npy") for _, folder in others)])
    alike: npt.NDArray[np.uint64] = np.zeros((0, 2), dtype=np.uint64)
    if threshold is not None:
        with ExitStack() as stack:
            paths = [folder / "signatures.bin" for folder in [*folders, *(folder for _, folder in others)]]
            alike = groups(ids, SignatureFiles(paths, stack), threshold)
    np.save(out / "groups.npy", alike)
    rule = settings["decontamination"] or {"ngram": None, "overlap": 1.0}
    BenchmarkPrompts.build(benchmark_prompts(others), alike, rule["ngram"], rule["overlap"]).save(out)
    unique = np.unique(np.concatenate(own))
    group_ids = unique.copy()
    inside = np.isin(unique, alike[:, 0])
    group_ids[inside] = alike[np.searchsorted(alike[:, 0], unique[inside]), 1]
    largest = int(np.unique(group_ids, return_counts=True)[1].max(initial=0))
    if largest > max(20, LARGE_GROUP * len(unique)):
        log.warning(
            "%s: %d of %d prompts are nearly the same as each other and stand on one side of the split together; if "
            "they only share a template, raise near_duplicates (now %g)",
            name, largest, len(unique), threshold,
        )  # fmt: skip
    owned = [(folder, manifest["dataset"]) for folder, manifest in zip(folders, manifests, strict=True)]
    caps = {
        dataset: cap_position(
            entry["cap"],
            f"sample {settings['seed']} {dataset}",
            np.concatenate([np.load(folder / "rows.npy") for folder, owner in owned if owner == dataset]),
        )
        for dataset, entry in settings["datasets"].items()
        if entry["cap"] is not None
    }  # fmt: skip
    return {
        "name": name,
        "eval_below": eval_threshold(name, settings["eval_fraction"], settings["seed"], group_ids),
        "caps": caps,
        "prompts": len(unique),
        "groups": {"prompts": int(inside.sum()), "groups": len(np.unique(group_ids[inside])), "largest": largest},
        "data": [
            {"folder": str(folder), "sha256": manifest["sha256"]}
            for folder, manifest in zip(folders, manifests, strict=True)
        ],
    }


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = parser(__doc__)
    options.add_argument("--name", required=True, help="name of the mixture or benchmark")
    options.add_argument("--settings", required=True, help="settings as JSON, or @FILE")
    options.add_argument("--data", required=True, nargs="+", type=Path, help="manifest.json of candidates")
    options.add_argument(
        "--benchmarks", nargs="*", default=[], type=Path, help="manifest.json of benchmarks' candidates"
    )
    options.add_argument("--output", required=True, type=Path, help="folder to make")
    args = options.parse_args(argv)
    start_logging(args.log)
    with publish(args.output) as out:
        facts = group(args.name, settings_argument(args.settings), args.data, args.benchmarks, out)
        sha256 = {path.name: file_sha256(path) for path in sorted(out.iterdir())}
        write_json(out / "manifest.json", {**facts, "sha256": sha256})
    found = facts["groups"]
    log.info(
        "%s: %d prompts; %d of them in %d groups of nearly the same",
        args.name,
        facts["prompts"],
        found["prompts"],
        found["groups"],
    )
    return 0


if __name__ == "__main__":
    run(main)

"""Groups of prompts that are nearly the same, the split by them, and prompts that benchmarks hold as well."""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rewardline.core.errors import UserError
from rewardline.core.files import read_json
from rewardline.data.formats.registry import GROUPED
from rewardline.data.pairs.candidates import CandidateReader, all_words, ranges
from rewardline.data.pairs.decontamination import BenchmarkPrompts
from rewardline.data.pairs.identity import Hashes, positions
from rewardline.data.pairs.near_duplicates import SignatureFiles, groups, near
from rewardline.data.pairs.rejects import INTENDED
from rewardline.data.pairs.settings import GroupSettings

log = logging.getLogger(__name__)
Json = dict[str, Any]
LARGE_GROUP = 50, 0.01
"""A group of more prompts than the first number, and than the second as a share of all, shares a template."""


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
        for low, high in ranges([reader]):
            seen = None
            for candidate in reader.between(low, high):
                if candidate.prompt_id != seen:
                    seen = candidate.prompt_id
                    yield name, seen, all_words(candidate.prompt)


def split(
    name: str, fraction: float, seed: int, ids: Hashes, alike: npt.NDArray[np.uint64]
) -> tuple[float, npt.NDArray[np.bool_], npt.NDArray[np.uint64]]:
    """Which prompts are held out: those of groups of which any prompt lies below the threshold by itself.

    So a prompt that is held out stays so when data is added. Returns the threshold, a mask of `ids` (sorted), and the
    ids of the groups of `alike` that are held out, sorted.
    """
    places = positions(f"split {seed}", ids)
    threshold = fraction
    if fraction and len(ids) and places.min() >= fraction:
        log.warning("%s: so few prompts that eval_fraction %g would hold out none; holding out one", name, fraction)
        threshold = float(places.min()) + 2**-50
    held_out = places < threshold
    below = held_out[np.searchsorted(ids, alike[:, 0])]
    chosen = np.unique(alike[below, 1])
    held_out[np.searchsorted(ids, alike[np.isin(alike[:, 1], chosen), 0])] = True
    return threshold, held_out, chosen


def without_templates(name: str, alike: npt.NDArray[np.uint64], prompts: int) -> tuple[npt.NDArray[np.uint64], int]:
    """Leave out groups so large that their prompts rather share a template; also how many prompts these hold."""
    _, inverse, sizes = np.unique(alike[:, 1], return_inverse=True, return_counts=True)
    template = sizes[inverse] > max(LARGE_GROUP[0], LARGE_GROUP[1] * prompts)
    if template.any():
        log.warning(
            "%s: %d prompts are in groups of more than %d that are nearly the same, as from a template; they are split "
            "one by one", name, int(template.sum()), max(LARGE_GROUP[0], int(LARGE_GROUP[1] * prompts)),
        )  # fmt: skip
    return alike[~template], int(template.sum())


def cap_position(cap: int, key: str, rows: Hashes) -> float:
    """Below which position a prompt is taken, so that at most `cap` of the candidates (their prompt ids) are."""
    places = positions(key, rows)
    return 1.0 if len(places) <= cap else float(np.sort(places)[cap])


def group(name: str, settings: GroupSettings, data: list[Path], benchmarks: list[Path], out: Path) -> Json:
    """Write the groups and the index of benchmarks to `out`; what the manifest says of them."""
    manifests = [read_json(path) for path in data]
    check_parts(manifests)
    check_rejects(manifests, settings.max_reject_fraction)
    folders = [path.parent for path in data]
    others = [(read_json(path)["dataset"], path.parent) for path in benchmarks]
    threshold = settings.near_duplicates
    own = np.concatenate([np.load(folder / "prompts.npy") for folder in folders])
    unique = np.unique(own)
    alike: npt.NDArray[np.uint64] = np.zeros((0, 2), dtype=np.uint64)
    close: list[tuple[int, str]] = []
    if threshold is not None:
        with ExitStack() as stack:
            alike = groups(own, SignatureFiles([folder / "signatures.bin" for folder in folders], stack), threshold)
        close = near_benchmarks(own, folders, others, threshold)
    alike, templated = without_templates(name, alike, len(unique))
    below, held_out, chosen = split(name, settings.eval_fraction, settings.seed, unique, alike)
    np.savez(out / "groups.npz", alike=alike, held_out=chosen)
    runs = settings.decontamination
    ngram, overlap = (runs.ngram, runs.overlap) if runs else (None, 1.0)
    BenchmarkPrompts.build(benchmark_prompts(others), close, ngram, overlap).save(out)
    training = unique[~held_out]
    owned = [(folder, manifest["dataset"]) for folder, manifest in zip(folders, manifests, strict=True)]
    caps = {}
    for dataset, cap in settings.caps.items():
        if cap is not None:
            rows = np.concatenate([np.load(folder / "rows.npy") for folder, owner in owned if owner == dataset])
            key = f"sample {settings.seed} {dataset}"
            caps[dataset] = cap_position(cap, key, rows[np.isin(rows, training)])
    sizes = np.unique(alike[:, 1], return_counts=True)[1]
    return {
        "name": name,
        "eval_below": below,
        "caps": caps,
        "prompts": len(unique),
        "groups": {
            "prompts": len(alike),
            "groups": len(sizes),
            "largest": int(sizes.max(initial=0)),
            "templated": templated,
        },
        "data": [
            {"folder": str(folder), "sha256": manifest["sha256"]}
            for folder, manifest in zip(folders, manifests, strict=True)
        ],
    }


def near_benchmarks(
    own: Hashes, folders: list[Path], others: list[tuple[str, Path]], threshold: float
) -> list[tuple[int, str]]:
    """The prompts of a mixture that are nearly the same as one of a benchmark, each with that benchmark."""
    if not others:
        return []
    foreign = [np.load(folder / "prompts.npy") for _, folder in others]
    ids = np.concatenate([own, *foreign])
    wanted = np.arange(len(ids)) >= len(own)
    starts = len(own) + np.cumsum([0, *map(len, foreign)])
    with ExitStack() as stack:
        paths = [folder / "signatures.bin" for folder in [*folders, *(folder for _, folder in others)]]
        found = near(ids, wanted, SignatureFiles(paths, stack), threshold)
    return [(int(number), others[int(np.searchsorted(starts, place, side="right")) - 1][0]) for number, place in found]

"""Groups of nearly equal prompts of a mixture, and the prompts of its benchmarks."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import compress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rewardline.core.errors import UserError
from rewardline.data.formats.settings import GROUPED_FORMATS
from rewardline.data.pairs import left_out
from rewardline.data.pairs.candidates import CandidateReader, prompt_words, ranges
from rewardline.data.pairs.copies import WordFiles, copies
from rewardline.data.pairs.decontamination import BenchmarkPrompts
from rewardline.data.pairs.identity import Hashes, unit_interval_hashes
from rewardline.data.pairs.manifests import (
    CandidatesFolder,
    CandidatesManifest,
    PromptsManifest,
    SimilarPrompts,
    counts_of,
)
from rewardline.data.pairs.near_duplicates import SignatureFiles, groups, joined, near
from rewardline.data.pairs.prompt_groups import PromptGroups, without_templates
from rewardline.data.pairs.settings import GroupSettings
from rewardline.data.parquet import read_array, reading

log = logging.getLogger(__name__)


def group_prompts(
    name: str, settings: GroupSettings, data: list[Path], benchmarks: list[Path], out: Path
) -> PromptsManifest:
    """Write the groups of prompts and the index of benchmarks to `out`.

    `data` and `benchmarks` are manifests of candidates: of the mixture, and of its benchmarks.

    Raises:
        UserError: too many rows are unusable, or rows that belong together were converted separately.
    """
    manifests = [CandidatesManifest.read(path) for path in data]
    check_parts(manifests)
    check_rejects(name, manifests, settings.max_reject_fraction)
    folders = [path.parent for path in data]
    of_benchmarks = [(CandidatesManifest.read(path).dataset, path.parent) for path in benchmarks]
    ids = np.concatenate([read_array(folder / "prompts.npy", np.uint64) for folder in folders])
    prompts = np.unique(ids)
    table, templated = similar_prompts(name, ids, folders, settings.near_duplicates)
    close: list[tuple[int, str]] = []
    if settings.near_duplicates is not None:
        close = near_benchmarks(ids, folders, of_benchmarks, settings.near_duplicates)
    split = PromptGroups.split(name, settings.eval_fraction, settings.seed, prompts, table)
    split.save(out)
    rule = settings.decontamination
    ngram, overlap = (rule.ngram, rule.overlap) if rule else (None, 1.0)
    BenchmarkPrompts.build(benchmark_prompts(of_benchmarks), close, ngram, overlap).save(out)
    caps = {}
    for dataset, cap in settings.caps.items():
        if cap is not None:
            parts = [manifest.dataset == dataset for manifest in manifests]
            rows = np.concatenate([read_array(folder / "rows.npy", np.uint64) for folder in compress(folders, parts)])
            caps[dataset] = cap_threshold(cap, f"sample {settings.seed} {dataset}", rows[~split.held_out(rows)])
    sizes = split.sizes()
    log.info("%s: %d prompts; %d of them in %d groups of nearly the same", name, len(prompts), sizes.sum(), len(sizes))
    return PromptsManifest(
        caps=caps,
        groups=SimilarPrompts(
            prompts=int(sizes.sum()), groups=len(sizes), largest=int(sizes.max(initial=0)), templated=templated
        ),
        held_out=left_out.HeldOut(
            prompts=int(split.held_out(prompts).sum()), of=len(prompts), fraction=settings.eval_fraction
        ),
        data=[
            CandidatesFolder(folder=str(folder), xxh3=manifest.xxh3)
            for folder, manifest in zip(folders, manifests, strict=True)
        ],
    )


def similar_prompts(
    name: str, ids: Hashes, folders: Sequence[Path], threshold: float | None
) -> tuple[npt.NDArray[np.uint64], int]:
    """The table of `PromptGroups` for prompts (`ids`, in `folders`), and the number of those from a template."""
    if threshold is None or not len(ids):
        return np.zeros((0, 2), dtype=np.uint64), 0
    count = len(np.unique(ids))
    with ExitStack() as stack:
        table = groups(ids, _signature_files(folders, stack), threshold)
    table, templated = without_templates(name, table, count)
    links = copies(ids, WordFiles(list(folders)), threshold)
    table, more = without_templates(name, joined(table, links), count)
    return table, templated + more


def check_rejects(name: str, manifests: Sequence[CandidatesManifest], limit: float) -> None:
    """Raise `UserError`, with reasons, examples and a remedy, if a dataset lost too many rows and pairs."""
    for dataset in sorted({manifest.dataset for manifest in manifests}):
        parts = [manifest for manifest in manifests if manifest.dataset == dataset]
        cases = [case for part in parts for case in part.reject_examples if case.reason not in left_out.INTENDED]
        examples = (f"{case.file}:{case.row}: {case.reason}: {case.detail}" for case in cases)
        remedy = "Fix the rows, set `format` or `fields` of the dataset"
        left_out.check(name, dataset, counts_of(parts).losses(), limit, examples, remedy)


def check_parts(manifests: Sequence[CandidatesManifest]) -> None:
    """Raise `UserError` if rows that belong together may have been converted in different parts."""
    parts = Counter(manifest.dataset for manifest in manifests)
    for manifest in manifests:
        dataset, form = manifest.dataset, manifest.format
        if form in GROUPED_FORMATS and parts[dataset] > 1:
            raise UserError(
                f"{dataset}: rows of format {form} belong together, but its {parts[dataset]} parts were converted "
                f"separately; set `format: {form}`, so that all are read in one job"
            )


def benchmark_prompts(folders: list[tuple[str, Path]]) -> Iterator[tuple[str, int, Hashes]]:
    """Benchmark, prompt id and word hashes of each prompt; `folders` are benchmarks and folders of candidates."""
    for name, folder in folders:
        reader = CandidateReader(folder)
        for low, high in ranges([reader]):
            last = None
            for candidate in reader.between(low, high):
                if candidate.prompt_id != last:
                    last = candidate.prompt_id
                    yield name, last, prompt_words(candidate.prompt, system=True)


def cap_threshold(cap: int, key: str, rows: Hashes) -> float:
    """The hash below which prompts are used, so that at most `cap` of the candidates (by prompt id) are."""
    hashes = unit_interval_hashes(key, rows)
    return 1.0 if len(hashes) <= cap else float(np.sort(hashes)[cap])


def near_benchmarks(
    ids: Hashes, folders: list[Path], of_benchmarks: list[tuple[str, Path]], threshold: float
) -> list[tuple[int, str]]:
    """The prompts of a mixture (`ids`, in `folders`) that are near one of a benchmark or a copy of it, and it."""
    if not of_benchmarks:
        return []
    others = [read_array(folder / "prompts.npy", np.uint64) for _, folder in of_benchmarks]
    all_ids = np.concatenate([ids, *others])
    starts = len(ids) + np.cumsum([0, *map(len, others)])
    is_target = np.arange(len(all_ids)) >= len(ids)
    with ExitStack() as stack:
        files = _signature_files([*folders, *(folder for _, folder in of_benchmarks)], stack)
        pairs = dict(near(all_ids, is_target, files, threshold))
    links = copies(all_ids, WordFiles([*folders, *(folder for _, folder in of_benchmarks)]), threshold)
    links = np.concatenate([links, links[:, ::-1]])
    targets, index = np.unique(all_ids[is_target], return_index=True)
    links = links[np.isin(links[:, 0], ids) & np.isin(links[:, 1], targets)]
    found = len(ids) + index[np.searchsorted(targets, links[:, 1])]
    pairs = {**dict(zip(links[:, 0].tolist(), found.tolist(), strict=True)), **pairs}
    owners = np.searchsorted(starts, list(pairs.values()), side="right") - 1
    return [(prompt, of_benchmarks[owner][0]) for prompt, owner in zip(pairs, owners.tolist(), strict=True)]


def _signature_files(folders: Sequence[Path], stack: ExitStack) -> SignatureFiles:
    paths = [folder / "signatures.bin" for folder in folders]
    for path in paths:
        stack.enter_context(reading(path))
    return SignatureFiles(paths, stack)

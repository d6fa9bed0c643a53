"""The evaluation of an ensemble, from the scores of its members, in memory that does not grow with their number."""

import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from rewardline.core.errors import UserError
from rewardline.core.files import atomic_folder
from rewardline.data.schema import hash_texts
from rewardline.evaluation.metrics.summarize import summarize
from rewardline.evaluation.published.figures import published_figures
from rewardline.evaluation.results import EvaluationResult, Standard
from rewardline.evaluation.scores import (
    SCHEMA,
    Ids,
    read_batches,
    read_ids,
    read_pair_scores,
    read_scores,
    write_scores,
)
from rewardline.evaluation.settings import EnsembleSettings
from rewardline.scoring.combination import Combination
from rewardline.scoring.settings import CombineSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CombinedScores:
    """The scores of an ensemble for the pairs that all members scored.

    Attributes:
        pairs: hash of each pair's id, uint64 [n], ascending.
        scores: of the chosen and of the rejected answer, float32 [2, n].
        standards: by member, those of its scores, by which they are standardized.
        unscored: pairs that some members scored, and others did not.
    """

    pairs: Ids
    scores: npt.NDArray[np.float32]
    standards: dict[str, Standard]
    unscored: int


def evaluate_ensemble(
    settings: EnsembleSettings, folders: Sequence[Path], output: Path, first: Path | None = None
) -> None:
    """Combine the scores in the evaluations of the members (`folders`); write scores and metrics to `output`.

    `first`: the `metrics.json` of the ensemble's first benchmark, whose standards are those of all others.
    Members that halving has eliminated, and those whose training has diverged, are left out.

    Raises:
        UserError: a file is missing or damaged, there is no pair that all members scored, or no member is left.
    """
    members = dict(zip(settings.ensemble, folders, strict=True))
    results = {member: EvaluationResult.read(folder / "metrics.json") for member, folder in members.items()}
    for member in [member for member, one in results.items() if one.mark]:
        log.warning("without %s, which has no complete training: %s", member, results.pop(member).mark)
    if not results:
        raise UserError(f"runs.{settings.name}.ensemble: all members have diverged or are eliminated; name others")
    paths = {member: members[member] / "scores.parquet" for member in results}
    known = None if first is None else EvaluationResult.read(first).standards
    combined = combine(paths, settings, known)
    # Score differences times this are log odds. For the mean of members with equal spread: their mean log odds.
    spreads = (standard.std for standard in combined.standards.values())
    scale = math.fsum(std * result.scale for std, result in zip(spreads, results.values(), strict=True)) / len(results)
    with atomic_folder(output) as out:
        scores = out / "scores.parquet"
        write_scores(scores, _tables(next(iter(paths.values())), combined))
        metrics = summarize(read_scores(scores), scale)
        figures = {}
        if settings.scoring is not None:
            left_out: Counter[str] = Counter()
            for result in results.values():
                left_out |= Counter(result.sections.left_out if result.sections else {})  # the most of any member
            figures["sections"] = published_figures(scores, settings.scoring, left_out)
        result = EvaluationResult.model_validate(
            {
                **settings.model_dump(exclude={"scoring"}),
                **metrics.as_json(),
                **figures,
                "ensemble": list(paths),
                "standards": combined.standards,
                "unscored": combined.unscored,
            }
        )
        result.write(out / "metrics.json", [scores.name])
    log.info("accuracy %.4f on %d pairs, %d not scored by all", metrics.accuracy, metrics.n, combined.unscored)


def combine(
    members: Mapping[str, Path], settings: CombineSettings, known_standards: Mapping[str, Standard] | None = None
) -> CombinedScores:
    """Combine the `scores.parquet` of each member; see `Combination`.

    Scores of different training runs differ in mean and spread, which carry no information. So each member's are
    standardized first: minus their mean, divided by their standard deviation, over both answers of all pairs in common,
    unless those of another benchmark are known. Labels are not used.
    """
    ids = [np.unique(read_ids(path, "pair_id")) for path in members.values()]
    pairs, known = ids[0], ids[0]
    for member_ids in ids[1:]:
        pairs, known = np.intersect1d(pairs, member_ids), np.union1d(known, member_ids)
    if not len(pairs):
        paths = ", ".join(map(str, members.values()))
        raise UserError(f"{paths} have no pair in common, so that nothing can be combined; evaluate them anew")
    combination = Combination((2, len(pairs)))
    standards = {}
    for member, path in members.items():
        member_ids, member_scores = read_pair_scores(path)
        scores = member_scores[:, np.intersect1d(member_ids, pairs, return_indices=True)[1]].astype(np.float64)
        own = Standard(mean=float(scores.mean()), std=float(scores.std()))
        standard = standards[member] = own if known_standards is None else known_standards[member]
        combination.add((scores - standard.mean) / (standard.std or 1.0))
    result = combination.combined(settings)
    return CombinedScores(pairs, result.astype(np.float32), standards, len(known) - len(pairs))


def _tables(first: Path, combined: CombinedScores) -> Iterator[pa.Table]:
    """The rows of the first member's `scores.parquet`, with the ensemble's scores, a batch at a time."""
    pairs = pd.Index(combined.pairs)
    for batch in read_batches(first, SCHEMA.names, size=1 << 14):
        indices = pairs.get_indexer(hash_texts(batch.column("pair_id")))
        table = pa.Table.from_batches([batch]).filter(pa.array(indices >= 0))
        chosen, rejected = combined.scores[:, indices[indices >= 0]]
        correct = ((chosen > rejected) + 0.5 * (chosen == rejected)).astype(np.float32)
        for name, values in {"chosen_score": chosen, "rejected_score": rejected, "correct": correct}.items():
            table = table.set_column(table.column_names.index(name), name, pa.array(values))
        yield table.cast(SCHEMA)

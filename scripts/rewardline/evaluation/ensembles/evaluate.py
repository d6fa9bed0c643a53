"""The evaluation of an ensemble, from the scores of its members, in memory that does not grow with their number."""

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rewardline.core.errors import UserError
from rewardline.core.files import atomic_folder
from rewardline.data.schema import hash_texts
from rewardline.evaluation.ensembles.answers import combined_answers, mean_attributes, read_answer_scores
from rewardline.evaluation.metrics.ratings import rating_figures
from rewardline.evaluation.metrics.summarize import summarize
from rewardline.evaluation.published.figures import published_figures
from rewardline.evaluation.results import NAN, EvaluationResult, Metrics, Standard
from rewardline.evaluation.scores import (
    ANSWERS,
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
    """The scores of an ensemble for the pairs, or the rated answers, that all members scored.

    Attributes:
        ids: hash of the id of each pair or answer, uint64 [n], ascending.
        scores: of the chosen and of the rejected answer, float32 [2, n]; of the answer, float32 [1, n].
        standards: by member, those of its scores, by which they are standardized.
        unscored: those that some members scored, and others did not.
    """

    ids: Ids
    scores: npt.NDArray[np.float32]
    standards: dict[str, Standard]
    unscored: int


def evaluate_ensemble(
    settings: EnsembleSettings, folders: Sequence[Path], output: Path, first: Path | None = None
) -> None:
    """Combine the scores in the evaluations of the members (`folders`); write scores and metrics to `output`.

    `first`: the `metrics.json` of the ensemble's first benchmark, whose standards are those of all others.
    Members that halving has eliminated, and those whose training has diverged, are left out.

    Without pairs, the scores of rated answers are combined alone, and standardized by their own moments.

    Raises:
        UserError: a file is missing or damaged, there is nothing that all members scored, or no member is left.
    """
    members = dict(zip(settings.ensemble, folders, strict=True))
    results = {member: EvaluationResult.read(folder / "metrics.json") for member, folder in members.items()}
    for member in [member for member, one in results.items() if one.mark]:
        log.warning("without %s, which has no complete training: %s", member, results.pop(member).mark)
    if not results:
        raise UserError(f"runs.{settings.name}.ensemble: all members have diverged or are eliminated; name others")
    paths = {member: members[member] / "scores.parquet" for member in results}
    standards = None if first is None else EvaluationResult.read(first).standards
    rated = {members[member] / ANSWERS: result.attributes for member, result in results.items() if result.ratings}
    metrics, figures, unscored = Metrics(n=0, accuracy=NAN), dict[str, object](), 0
    with atomic_folder(output) as out:
        scores = out / "scores.parquet"
        if not rated or any(result.n for result in results.values()):
            combined = combine(paths, settings, standards)
            standards, unscored = combined.standards, combined.unscored
            # Score differences times this are log odds. For the mean of members with equal spread: their mean log odds.
            spreads = (standards[member].std * result.scale for member, result in results.items())
            scale = math.fsum(spreads) / len(results)
            write_scores(scores, _tables(next(iter(paths.values())), combined))
            metrics = summarize(read_scores(scores), scale)
        else:
            write_scores(scores, ())
        if rated:
            combined = combine(
                dict(zip(results, rated, strict=True)), settings, standards, read_answer_scores, "answer_id"
            )
            standards, unscored = combined.standards, unscored + combined.unscored
            pq.write_table(combined_answers(rated, combined.ids, combined.scores), out / ANSWERS, compression="zstd")
            figures |= rating_figures(out / ANSWERS, mean_attributes(list(rated.values())))
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
                "standards": standards,
                "unscored": unscored,
            }
        )
        result.write(out / "metrics.json", [scores.name, *([ANSWERS] if rated else [])])
    if metrics.n:
        log.info("accuracy %.4f on %d pairs, %d not scored by all", metrics.accuracy, metrics.n, unscored)


def combine(
    members: Mapping[str, Path],
    settings: CombineSettings,
    known_standards: Mapping[str, Standard] | None = None,
    read: Callable[[Path], tuple[Ids, npt.NDArray[np.float32]]] = read_pair_scores,
    id_column: str = "pair_id",
) -> CombinedScores:
    """Combine the scores in a file of each member, ids and scores of which `read` gives; see `Combination`.

    Scores of different training runs differ in mean and spread, which carry no information. So each member's are
    standardized first: minus their mean, divided by their standard deviation, over all answers in common,
    unless those of another benchmark are known. Labels are not used.
    """
    ids = [np.unique(read_ids(path, id_column)) for path in members.values()]
    common, known = ids[0], ids[0]
    for member_ids in ids[1:]:
        common, known = np.intersect1d(common, member_ids), np.union1d(known, member_ids)
    if not len(common):
        paths = ", ".join(map(str, members.values()))
        raise UserError(f"{paths} have no pair in common, so that nothing can be combined; evaluate them anew")
    combination: Combination | None = None
    standards = {}
    for member, path in members.items():
        member_ids, member_scores = read(path)
        scores = member_scores[:, np.intersect1d(member_ids, common, return_indices=True)[1]].astype(np.float64)
        own = Standard(mean=float(scores.mean()), std=float(scores.std()))
        standard = standards[member] = own if known_standards is None else known_standards[member]
        combination = combination or Combination(scores.shape)
        combination.add((scores - standard.mean) / (standard.std or 1.0))
    assert combination is not None
    result = combination.combined(settings)
    return CombinedScores(common, result.astype(np.float32), standards, len(known) - len(common))


def _tables(first: Path, combined: CombinedScores) -> Iterator[pa.Table]:
    """The rows of the first member's `scores.parquet`, with the ensemble's scores, a batch at a time."""
    pairs = pd.Index(combined.ids)
    for batch in read_batches(first, SCHEMA.names, size=1 << 14):
        indices = pairs.get_indexer(hash_texts(batch.column("pair_id")))
        table = pa.Table.from_batches([batch]).filter(pa.array(indices >= 0))
        chosen, rejected = combined.scores[:, indices[indices >= 0]]
        correct = ((chosen > rejected) + 0.5 * (chosen == rejected)).astype(np.float32)
        for name, values in {"chosen_score": chosen, "rejected_score": rejected, "correct": correct}.items():
            table = table.set_column(table.column_names.index(name), name, pa.array(values))
        yield table.cast(SCHEMA)

"""The evaluation of an ensemble, from the scores of its members."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from rewardline.core.files import atomic_folder
from rewardline.evaluation.ensembles import combine, log_odds_scale, rows
from rewardline.evaluation.metrics.summarize import summarize
from rewardline.evaluation.published import sections_of
from rewardline.evaluation.results import EvaluationResult
from rewardline.evaluation.scores import SCHEMA, read_scores
from rewardline.evaluation.settings import EnsembleSettings

log = logging.getLogger(__name__)


def evaluate_ensemble(settings: EnsembleSettings, folders: Sequence[Path], output: Path) -> None:
    """Combine the scores in the evaluations of the members (`folders`); leave scores and metrics in `output`."""
    members = dict(zip(settings.ensemble, folders, strict=True))
    scores = {name: folder / "scores.parquet" for name, folder in members.items()}
    found = [EvaluationResult.read(folder / "metrics.json") for folder in members.values()]
    combined = combine(scores, settings.combine, settings.variance_weight)
    with atomic_folder(output) as out:
        with pq.ParquetWriter(out / "scores.parquet", SCHEMA, compression="zstd") as writer:
            for table in rows(next(iter(scores.values())), combined):
                writer.write_table(table)
        scale = log_odds_scale(combined.standards, [one.scale for one in found])
        metrics = summarize(read_scores(out / "scores.parquet"), scale)
        published = {}
        if settings.scoring is not None:
            left_out: Counter[str] = Counter()
            for one in found:
                if one.sections is not None:
                    left_out |= Counter(one.sections.left_out)  # the most that a member left out for a reason
            published = {"sections": sections_of(out / "scores.parquet", settings.scoring, left_out)}
        result = EvaluationResult.model_validate(
            {
                **settings.model_dump(exclude={"scoring"}),
                **metrics.as_json(),
                **published,
                "standards": combined.standards,
                "unscored": combined.unscored,
            }
        )
        result.write(out / "metrics.json")
    log.info("accuracy %.4f on %d pairs, %d not scored by all", metrics.accuracy, metrics.n, combined.unscored)

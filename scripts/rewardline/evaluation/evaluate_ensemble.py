"""The evaluation of an ensemble, from the scores of its members."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rewardline.core.files import atomic_folder
from rewardline.evaluation.ensembles import combine, ensemble_tables, log_odds_scale
from rewardline.evaluation.metrics.summarize import summarize
from rewardline.evaluation.published import published_figures
from rewardline.evaluation.results import EvaluationResult
from rewardline.evaluation.scores import read_scores, write_scores
from rewardline.evaluation.settings import EnsembleSettings

log = logging.getLogger(__name__)


def evaluate_ensemble(settings: EnsembleSettings, folders: Sequence[Path], output: Path) -> None:
    """Combine the scores in the evaluations of the members (`folders`); write scores and metrics to `output`."""
    members = dict(zip(settings.ensemble, folders, strict=True))
    paths = {name: folder / "scores.parquet" for name, folder in members.items()}
    results = [EvaluationResult.read(folder / "metrics.json") for folder in folders]
    combined = combine(paths, settings.combine, settings.variance_weight)
    with atomic_folder(output) as out:
        scores = out / "scores.parquet"
        write_scores(scores, ensemble_tables(paths[settings.ensemble[0]], combined))
        metrics = summarize(read_scores(scores), log_odds_scale(combined.standards, [one.scale for one in results]))
        figures = {}
        if settings.scoring is not None:
            left_out: Counter[str] = Counter()
            for one in results:
                left_out |= Counter(one.sections.left_out if one.sections else {})  # the most of any member
            figures["sections"] = published_figures(scores, settings.scoring, left_out)
        result = EvaluationResult.model_validate(
            {
                **settings.model_dump(exclude={"scoring"}),
                **metrics.as_json(),
                **figures,
                "standards": combined.standards,
                "unscored": combined.unscored,
            }
        )
        result.write(out / "metrics.json")
    log.info("accuracy %.4f on %d pairs, %d not scored by all", metrics.accuracy, metrics.n, combined.unscored)

"""The evaluation of a model on a benchmark, or on the eval split of a mixture."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rewardline.core.artifacts import MANIFEST
from rewardline.core.files import atomic_folder, read_json
from rewardline.data.pairs.left_out import PairsAccount
from rewardline.data.parquet import PartWriter
from rewardline.data.schema import arrow_schema
from rewardline.evaluation.left_out import TrainedModel
from rewardline.evaluation.metrics.ratings import rating_figures
from rewardline.evaluation.metrics.summarize import summarize
from rewardline.evaluation.published.figures import published_figures
from rewardline.evaluation.results import NAN, EvaluationResult, Metrics, PredictedAttribute
from rewardline.evaluation.score_pairs import (
    PairScoring,
    collected_comparisons,
    scored_comparisons,
    scored_pairs,
    with_answers,
)
from rewardline.evaluation.scores import ANSWERS, RatedScore, as_tables, read_scores, write_scores
from rewardline.evaluation.settings import EvaluateSettings
from rewardline.scoring.parts import verified_weights
from rewardline.tokens.store import TokenManifest

log = logging.getLogger(__name__)


def evaluate(
    settings: EvaluateSettings,
    model: Path,
    tokens: Path,
    pairs: Path | None,
    output: Path,
    shards: Path,
    batch_tokens: int,
    shares: Sequence[Path] = (),
    processes: int = 0,
) -> None:
    """Score all pairs of the eval split of `tokens`; write scores and metrics to `output`.

    `shards`: a folder for scores, which are computed once for the same model, tokens, settings and scoring code.
    `shares`: the manifests of the jobs that have computed them; without, they are computed here, by a model that so
    many `processes` hold, see `partitioned.processes_for`.

    Raises:
        UserError: the model is not the one that was trained, or a file cannot be read.
    """
    weights = verified_weights(model)
    trained = TrainedModel.read(model / "run.json")
    with atomic_folder(output) as out:
        if shares:
            scored = collected_comparisons(tokens, shards, shares)
        else:
            label = f"{settings.run}: {settings.benchmark}"
            remote, threads = settings.trust_remote_code, settings.threads
            scored = scored_comparisons(
                PairScoring(model, weights, tokens, shards, batch_tokens, remote, threads, label, processes)
            )
        scores, split = out / "scores.parquet", TokenManifest.read(tokens / MANIFEST).splits["eval"]
        if split.answers:
            answers = PartWriter[RatedScore](out, arrow_schema(RatedScore), name=ANSWERS, part_rows=2**62)
            scored = with_answers(scored, answers.add)
        write_scores(scores, as_tables(scored_pairs(scored, pairs)))
        metrics, ratings = Metrics(n=0, accuracy=NAN), dict[str, object]()
        if split.answers:
            answers.close()
            entries = read_json(model / "config.json").get("rewardline", {}).get("attributes", [])
            ratings = rating_figures(out / ANSWERS, [PredictedAttribute.model_validate(entry) for entry in entries])
        if split.pairs:
            metrics = summarize(read_scores(scores), trained.normalization.std if trained.normalization else 1.0)
        figures = None
        if settings.scoring is not None:
            figures = published_figures(scores, settings.scoring, _left_out(tokens, pairs))
        result = EvaluationResult.model_validate(
            {
                **settings.model_dump(exclude={"trust_remote_code", "threads", "scoring"}),
                **metrics.as_json(),
                "sections": figures,
                **ratings,
                "normalization": trained.normalization,
                **({} if trained.eliminated_at is None else {"eliminated_at": trained.eliminated_at}),
            }
        )
        result.write(out / "metrics.json", [scores.name, *([ANSWERS] if ratings else [])])
    if metrics.n:
        log.info("accuracy %.4f on %d pairs", metrics.accuracy, metrics.n)
    for name, one in result.ratings.items():
        log.info("%s: Spearman's rho %.3f on %d answers", name, one.spearman, one.n)


def _left_out(tokens: Path, pairs: Path | None) -> Counter[str]:
    """The number of rows and pairs of a benchmark without a score, by reason."""
    left_out = Counter(TokenManifest.read(tokens / MANIFEST).dropped)
    if pairs is not None:
        stats = PairsAccount.read(pairs / "stats.json")
        left_out.update(Counter(stats.rejects) + Counter(stats.pair_rejects))
    return left_out

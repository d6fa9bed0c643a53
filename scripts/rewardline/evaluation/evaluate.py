"""The evaluation of a model on a benchmark, or on the eval split of a mixture."""

import logging
import shutil
from collections import Counter
from pathlib import Path

from rewardline.core.errors import UserError
from rewardline.core.files import atomic_folder, read_json
from rewardline.core.hashing import file_sha256
from rewardline.evaluation.metrics.summarize import summarize
from rewardline.evaluation.published import sections_of
from rewardline.evaluation.results import EvaluationResult, PublishedFigures
from rewardline.evaluation.score_pairs import scored_comparisons, write_scores
from rewardline.evaluation.scores import read_scores
from rewardline.evaluation.settings import EvaluateSettings

log = logging.getLogger(__name__)


def evaluate(
    settings: EvaluateSettings, model: Path, tokens: Path, pairs: Path | None, output: Path, batch_tokens: int
) -> None:
    """Score all pairs of the eval split of `tokens`; leave scores and metrics in `output`.

    Raises:
        UserError: the model is not the one that was trained, or a file cannot be read.
    """
    made = read_json(model / "run.json")
    if file_sha256(model / "model.safetensors") != made["weights_sha256"]:
        raise UserError(f"{model}/model.safetensors is not what was trained; delete {model} and run again")
    kept = output.with_name(f".{output.name}.parts")
    with atomic_folder(output) as out:
        scored = scored_comparisons(
            model,
            made["weights_sha256"],
            tokens,
            kept,
            batch_tokens=batch_tokens,
            trust=settings.trust_remote_code,
            label=f"{settings.run}: {settings.benchmark}",
        )
        write_scores(scored, out / "scores.parquet", pairs)
        normalization = made.get("normalization")
        metrics = summarize(read_scores(out / "scores.parquet"), normalization["std"] if normalization else 1.0)
        sections = _published(settings.scoring, out / "scores.parquet", tokens, pairs)
        result = EvaluationResult.model_validate(
            {
                **settings.model_dump(exclude={"trust_remote_code", "scoring"}),
                **metrics.as_json(),
                "sections": sections,
                "normalization": normalization,
            }
        )
        result.write(out / "metrics.json")
    shutil.rmtree(kept, ignore_errors=True)
    log.info("accuracy %.4f on %d pairs", metrics.accuracy, metrics.n)


def _published(scoring: str | None, scores: Path, tokens: Path, pairs: Path | None) -> PublishedFigures | None:
    """The figures of a published benchmark, and what was left out of it; None for others."""
    if scoring is None:
        return None
    left_out = Counter(read_json(tokens / "manifest.json")["dropped"])
    if pairs is not None:
        found = read_json(pairs / "stats.json")
        left_out.update(Counter(found["rejects"]) + Counter(found["pair_rejects"]))
    return sections_of(scores, scoring, left_out)

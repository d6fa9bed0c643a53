"""Evaluations that are left out: of a run whose training has diverged; of an eliminated one, all but that on `eval`.

Imports nothing slow.
"""

from pathlib import Path

from rewardline.core.files import atomic_folder
from rewardline.evaluation.results import EvaluationResult, Name, ResultFile, ScoreNormalization
from rewardline.evaluation.scores import write_scores
from rewardline.evaluation.settings import HELD_OUT, EvaluateSettings


class TrainedModel(ResultFile):
    """The part of a `run.json` that evaluation reads: evaluation needs no modules of training."""

    content = "a training run"
    stage = "train"

    weights_sha256: Name
    normalization: ScoreNormalization | None = None
    diverged: str | None = None
    eliminated_at: int | None = None

    def is_evaluated(self, benchmark: str) -> bool:
        """Whether its scores on the benchmark are computed."""
        return self.diverged is None and (self.eliminated_at is None or benchmark == HELD_OUT)


def leave_out(settings: EvaluateSettings, model: Path, output: Path) -> str | None:
    """Write why a model is not evaluated, and no scores, to the folder `output`; None if it is to be evaluated.

    Raises:
        UserError: run.json is missing or damaged.
    """
    trained = TrainedModel.read(model / "run.json")
    if trained.is_evaluated(settings.benchmark):
        return None
    result = EvaluationResult.model_validate(
        {
            **settings.model_dump(exclude={"trust_remote_code", "threads", "scoring"}),
            **{"n": 0, "accuracy": None, "diverged": trained.diverged, "eliminated_at": trained.eliminated_at},
        }
    )
    with atomic_folder(output) as out:
        write_scores(out / "scores.parquet", ())
        result.write(out / "metrics.json", ["scores.parquet"])
    return result.left_out

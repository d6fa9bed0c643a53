"""Score a share of a benchmark's pairs, one of several jobs that score it together; evaluate.py collects their scores.

    python scripts/score_benchmark.py --settings '{"run": "first", "benchmark": "eval", "shard": 0, "shards": 4}' \\
        --model results/models/first --tokens results/tokens/main/opt-350m \\
        --shards results/shards/scores/first/eval --output results/shards/scores/first/eval/0.json

Pairs are computed in the same batches as by one job, to the same scores bit for bit. Killed at any time, the same
command resumes after the last part that it has scored.
"""

from pathlib import Path

from rewardline.core import runtime
from rewardline.core.artifacts import write_sealed
from rewardline.core.cli import StageParser, run
from rewardline.core.gpus import reserved_gpus
from rewardline.evaluation.left_out import TrainedModel
from rewardline.evaluation.score_pairs import PairScoring, score_share
from rewardline.evaluation.settings import ShareSettings
from rewardline.scoring.parts import verified_weights


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, ShareSettings)
    options.add_argument("--model", required=True, type=Path, help="folder of a trained model")
    options.add_argument("--tokens", required=True, type=Path, help="folder of tokens whose eval split is scored")
    options.add_argument("--shards", required=True, type=Path, help="folder to keep scores in, the same for all jobs")
    options.add_argument("--output", required=True, type=Path, help="file to write when all scores are there")
    options.add_argument("--batch-tokens", type=int, default=8192, help="most tokens computed at once")
    options.add_argument("--gpus", type=int, default=0)
    options.add_argument("--processes", type=int, default=0, help="that hold the model, as of score.py")
    args = options.start(argv)
    settings = args.settings
    if not TrainedModel.read(args.model / "run.json").is_evaluated(settings.benchmark):
        write_sealed(args.output, {"left_out": True})  # evaluate.py says why
        return 0
    with reserved_gpus(args.gpus):
        runtime.prepare(args.gpus, settings.threads)
        job = PairScoring(
            args.model,
            verified_weights(args.model),
            args.tokens,
            args.shards,
            args.batch_tokens,
            settings.trust_remote_code,
            settings.threads,
            f"{settings.run}: {settings.benchmark}, {settings.shard + 1} of {settings.shards}",
            args.processes,
        )
        score_share(job, (settings.shard, settings.shards), args.output)
    return 0


if __name__ == "__main__":
    run(main)

"""Record what a run scored on its benchmarks where its training was recorded: TensorBoard, W&B, MLflow, Trackio.

    python scripts/track.py --settings '{"run": "first", "loggers": ["wandb"]}' --model results/models/first \\
        --metrics results/evals/first/*/metrics.json --output results/tracked/first.json

A logger that does not know the run yet, as it was added later, gets the curves of the training too.
"""

from pathlib import Path

from rewardline.core.cli import StageParser, run
from rewardline.evaluation.track import track
from rewardline.training.settings import TrackSettings


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, TrackSettings)
    options.add_argument("--metrics", type=Path, nargs="+", required=True, help="metrics.json of each eval of the run")
    options.add_argument("--model", type=Path, required=True, help="folder of the trained model")
    options.add_argument("--trackers", type=Path, help="folder for what loggers keep here; default: beside --output")
    options.add_argument("--output", type=Path, required=True, help="file to write when all have them")
    args = options.start(argv)
    track(args.settings, args.model, args.metrics, args.trackers or args.output.with_name("trackers"), args.output)
    return 0


if __name__ == "__main__":
    run(main)

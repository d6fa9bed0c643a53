"""Score every pair of a benchmark, or of a mixture's eval split, with a trained model.

    python scripts/evaluate.py --settings '{"run": "first", "benchmark": "eval", ...}' \\
        --model results/models/first --tokens results/tokens/main/opt-350m --pairs results/pairs/main \\
        --output results/evals/first/eval

Killed at any time, the same command resumes after the last part that it has scored, to the same scores bit for bit.
Scores are kept in --shards, keyed by all that they depend on: where none of that has changed, nothing is scored again.
With --shares, score_benchmark.py has computed them in several jobs.

A run that halving has eliminated is evaluated on `eval` alone, and one whose training has diverged on nothing:
`metrics.json` then says why.
"""

from pathlib import Path

from rewardline.core import runtime
from rewardline.core.cli import StageParser, log, run
from rewardline.core.gpus import reserved_gpus
from rewardline.evaluation.left_out import leave_out
from rewardline.evaluation.settings import EvaluateSettings


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, EvaluateSettings)
    options.add_argument("--model", required=True, type=Path, help="folder of a trained model")
    options.add_argument("--tokens", required=True, type=Path, help="folder of tokens whose eval split is scored")
    options.add_argument("--pairs", type=Path, help="folder of the pairs behind the tokens: where they come from")
    options.add_argument("--output", required=True, type=Path, help="folder to write scores and metrics to")
    options.add_argument("--shards", type=Path, help="folder to keep scores in (a hidden one beside --output)")
    options.add_argument(
        "--shares", nargs="*", default=[], type=Path, help="what score_benchmark.py wrote for each job"
    )
    options.add_argument("--batch-tokens", type=int, default=8192, help="most tokens computed at once")
    options.add_argument("--gpus", type=int, default=0)
    options.add_argument("--processes", type=int, default=0, help="that hold the model, as of score.py")
    args = options.start(argv)
    if reason := leave_out(args.settings, args.model, args.output):
        log.info("not evaluated: %s", reason)
        return 0
    with reserved_gpus(args.gpus):
        runtime.prepare(args.gpus, args.settings.threads)
        from rewardline.evaluation.evaluate import evaluate  # only now, as torch reads the environment

        shards = args.shards or args.output.with_name(f".{args.output.name}.parts")
        places = (args.model, args.tokens, args.pairs, args.output, shards)
        evaluate(args.settings, *places, args.batch_tokens, args.shares, args.processes)
    return 0


if __name__ == "__main__":
    run(main)

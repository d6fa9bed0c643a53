"""Score every pair of a benchmark, or of a mixture's eval split, with a trained model.

    python scripts/evaluate.py --settings '{"run": "first", "benchmark": "eval", ...}' \\
        --model results/models/first --tokens results/tokens/main/opt-350m --pairs results/pairs/main \\
        --output results/evals/first/eval

Killed at any time, the same command goes on after the last part that it has scored, to the same scores bit for bit.
Until all is done, scores of finished parts are kept beside the output, in a folder keyed by all that they depend on.
"""

import argparse
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from rewardline.core import runtime
from rewardline.core.cli import log, parser, run, settings_argument, start_logging
from rewardline.core.errors import UserError
from rewardline.core.files import publish, read_json, write_json
from rewardline.core.gpus import own_gpus
from rewardline.core.hashing import file_sha256
from rewardline.evaluation.published import sections_of
from rewardline.evaluation.score_pairs import scored_comparisons, write_scores
from rewardline.evaluation.scores import read_scores

Json = dict[str, Any]


def published(arithmetic: str | None, scores: Path, tokens: Path, pairs: Path | None) -> Json | None:
    """The figures of a published benchmark by its own arithmetic, and what was left out of it; null for others."""
    if arithmetic is None:
        return None
    left_out = Counter(read_json(tokens / "manifest.json")["dropped"])
    if pairs is not None:
        found = read_json(pairs / "stats.json")
        left_out.update(Counter(found["rejects"]) + Counter(found["pair_rejects"]))
    return sections_of(scores, arithmetic, left_out)


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = parser(__doc__)
    options.add_argument("--settings", required=True, help="settings as JSON, or @FILE")
    options.add_argument("--model", required=True, type=Path, help="folder of a trained model")
    options.add_argument("--tokens", required=True, type=Path, help="folder of tokens whose eval split is scored")
    options.add_argument("--pairs", type=Path, help="folder of the pairs behind the tokens: where they come from")
    options.add_argument("--output", required=True, type=Path, help="folder to leave scores and metrics in")
    options.add_argument("--batch-tokens", type=int, default=8192, help="most tokens computed at once")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--gpus", type=int, default=0)
    args = options.parse_args(argv)
    start_logging(args.log)
    with own_gpus(args.gpus):
        evaluate(args)
    return 0


def evaluate(args: argparse.Namespace) -> None:
    """Score, measure, and leave both."""
    runtime.prepare(args.gpus, args.threads)
    from rewardline.evaluation.metrics.summarize import summarize

    settings = settings_argument(args.settings)
    trust, arithmetic = settings.pop("trust_remote_code", False), settings.pop("arithmetic", None)
    label = f"{settings['run']}: {settings['benchmark']}"
    made = read_json(args.model / "run.json")
    if file_sha256(args.model / "model.safetensors") != made["weights_sha256"]:
        raise UserError(f"{args.model}/model.safetensors is not what was trained; delete {args.model} and run again")
    kept = args.output.with_name(f".{args.output.name}.parts")
    with publish(args.output) as out:
        scored = scored_comparisons(
            args.model,
            made["weights_sha256"],
            args.tokens,
            kept,
            batch_tokens=args.batch_tokens,
            trust=trust,
            label=label,
        )
        write_scores(scored, out / "scores.parquet", args.pairs)
        normalization = made.get("normalization")
        scale = normalization["std"] if normalization else 1.0
        metrics = summarize(read_scores(out / "scores.parquet"), scale)
        metrics["sections"] = published(arithmetic, out / "scores.parquet", args.tokens, args.pairs)
        write_json(out / "metrics.json", {**settings, **metrics, "normalization": normalization})
    shutil.rmtree(kept, ignore_errors=True)
    log.info("accuracy %.4f on %d pairs", metrics["accuracy"], metrics["n"])


if __name__ == "__main__":
    run(main)

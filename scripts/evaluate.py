"""Score every pair of a benchmark, or of a mixture's eval split, with a trained model.

    python scripts/evaluate.py --settings '{"run": "first", "benchmark": "eval", ...}' \\
        --model results/models/first --tokens results/tokens/main/opt-350m --output results/evals/first/eval
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rewardline import distributed
from rewardline.artifacts import file_sha256, publish, read_json, settings_argument, write_json
from rewardline.cli import UserError, log, parser, progress, run, start_logging
from rewardline.machine import own_gpus
from rewardline.score_table import SCHEMA, read_scores, score_rows

Json = dict[str, Any]
ROWS_AT_ONCE = 4096


def scored_pairs(model_folder: Path, tokens: Path, batch_tokens: int, trust: bool, label: str) -> Iterator[Json]:
    """The rows of scores.parquet, in the order of the tokens."""
    import torch

    from rewardline.reward_model import RewardModel, load_reward_model
    from rewardline.scoring import score_comparisons
    from rewardline.shards import TokenDataset

    data = TokenDataset(tokens, "eval")
    if not data.pairs:
        raise UserError(f"{tokens}: has no pairs to evaluate; its benchmark or eval split is empty")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaded = load_reward_model(model_folder, trust_remote_code=trust, dtype="auto")
    model = RewardModel(loaded, max_length=data.manifest["max_length"]).to(device)
    log.info("%d pairs of %s, %s batches, on %s", data.pairs, tokens, model.batching, device)
    comparisons = (data[index] for index in range(len(data)))
    scored = score_comparisons(
        model, comparisons, device=device, pad_id=loaded.config.pad_token_id, batch_tokens=batch_tokens
    )
    with progress(label, total=data.pairs, unit="pair") as bar:
        for number, (comparison, scores) in enumerate(scored):
            yield from score_rows(comparison, number, scores)
            bar.update(len(comparison.pairs))


def write_scores(rows: Iterator[Json], path: Path) -> None:
    """Write rows as they come."""
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        waiting: list[Json] = []
        for row in rows:
            waiting.append(row)
            if len(waiting) == ROWS_AT_ONCE:
                writer.write_table(pa.Table.from_pylist(waiting, schema=SCHEMA))
                waiting = []
        writer.write_table(pa.Table.from_pylist(waiting, schema=SCHEMA))


def published(arithmetic: str | None, scores: Path, tokens: Path, stats: Path | None) -> Json | None:
    """The figures of a published benchmark by its own arithmetic, and what was left out of it; null for others."""
    if arithmetic is None:
        return None
    import pandas as pd

    from rewardline.published import COLUMNS, sections

    left_out = Counter(read_json(tokens / "manifest.json")["dropped"])
    if stats is not None:
        found = read_json(stats)
        left_out.update(Counter(found["rejects"]) + Counter(found["pair_rejects"]))
    return sections(pd.read_parquet(scores, columns=list(COLUMNS)), arithmetic, dict(sorted(left_out.items())))


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = parser(__doc__)
    options.add_argument("--settings", required=True, help="settings as JSON, or @FILE")
    options.add_argument("--model", required=True, type=Path, help="folder of a trained model")
    options.add_argument("--tokens", required=True, type=Path, help="folder of tokens whose eval split is scored")
    options.add_argument("--stats", type=Path, help="stats.json of a published benchmark: what was left out of it")
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
    distributed.prepare(args.gpus, args.threads)
    from rewardline.metrics import summarize

    settings = settings_argument(args.settings)
    trust, arithmetic = settings.pop("trust_remote_code", False), settings.pop("arithmetic", None)
    label = f"{settings['run']}: {settings['benchmark']}"
    made = read_json(args.model / "run.json")
    if file_sha256(args.model / "model.safetensors") != made["weights_sha256"]:
        raise UserError(f"{args.model}/model.safetensors is not what was trained; delete {args.model} and run again")
    with publish(args.output) as out:
        write_scores(scored_pairs(args.model, args.tokens, args.batch_tokens, trust, label), out / "scores.parquet")
        normalization = made.get("normalization")
        scale = normalization["std"] if normalization else 1.0
        metrics = summarize(read_scores(out / "scores.parquet"), scale)
        metrics["sections"] = published(arithmetic, out / "scores.parquet", args.tokens, args.stats)
        write_json(out / "metrics.json", {**settings, **metrics, "normalization": normalization})
    log.info("accuracy %.4f on %d pairs", metrics["accuracy"], metrics["n"])


if __name__ == "__main__":
    run(main)

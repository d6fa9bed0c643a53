"""Evaluate an ensemble of runs on a benchmark, from the scores of its members.

    python scripts/evaluate_ensemble.py --settings '{"run": "committee", "combine": "mean", ...}' \\
        --members results/evals/first/eval results/evals/second/eval --output results/evals/committee/eval
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from rewardline.core.cli import log, parser, run, settings_argument, start_logging
from rewardline.core.files import publish, read_json, write_json
from rewardline.evaluation.ensembles import combine, log_odds_scale, rows
from rewardline.evaluation.metrics.summarize import summarize
from rewardline.evaluation.published import sections_of
from rewardline.evaluation.scores import SCHEMA, read_scores


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = parser(__doc__)
    options.add_argument("--settings", required=True, help="settings as JSON, or @FILE")
    options.add_argument("--members", required=True, type=Path, nargs="+", help="folders of the members' evaluations")
    options.add_argument("--output", required=True, type=Path, help="folder to leave scores and metrics in")
    args = options.parse_args(argv)
    start_logging(args.log)
    settings = settings_argument(args.settings)
    arithmetic = settings.pop("arithmetic", None)
    members = dict(zip(settings["ensemble"], args.members, strict=True))
    scores = {name: folder / "scores.parquet" for name, folder in members.items()}
    found: list[dict[str, Any]] = [read_json(folder / "metrics.json") for folder in members.values()]
    combined = combine(scores, settings["combine"], settings["variance_weight"])
    with publish(args.output) as out:
        with pq.ParquetWriter(out / "scores.parquet", SCHEMA, compression="zstd") as writer:
            for table in rows(next(iter(scores.values())), combined):
                writer.write_table(table)
        metrics = summarize(read_scores(out / "scores.parquet"), log_odds_scale(combined.standards, found))
        if arithmetic is not None:
            left_out: Counter[str] = Counter()
            for one in found:
                left_out |= Counter(one["sections"]["left_out"])  # the most that a member left out for a reason
            metrics["sections"] = sections_of(out / "scores.parquet", arithmetic, left_out)
        standards = {name: {"mean": mean, "std": std} for name, (mean, std) in combined.standards.items()}
        write_json(out / "metrics.json", {**settings, **metrics, "standards": standards, "unscored": combined.unscored})
    log.info("accuracy %.4f on %d pairs, %d not scored by all", metrics["accuracy"], metrics["n"], combined.unscored)
    return 0


if __name__ == "__main__":
    run(main)

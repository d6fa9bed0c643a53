"""Choose the cells of a sweep that are trained on after a rung of successive halving.

Example:
  python scripts/halve.py --settings '{"sweep": "s", "step": 200, "keep": 1, "cells": {"s-lr=1e-05": [...], ...}}' \\
      --results results/rungs/s/0 --output results/rungs/s/0.json
"""

from pathlib import Path

from rewardline.core.artifacts import write_sealed
from rewardline.core.cli import StageParser, log, run
from rewardline.training.halving import HalvingSettings, choose_cells


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, HalvingSettings)
    options.add_argument("--results", type=Path, required=True, help="folder with the result of each run, RUN.json")
    options.add_argument("--output", type=Path, required=True, help="the cells with their accuracies to write, JSON")
    args = options.start(argv)
    rung = choose_cells(args.settings, args.results)
    write_sealed(args.output, rung.as_json(), depth=1)
    log.info("%s", rung.sentence())
    return 0


if __name__ == "__main__":
    run(main)

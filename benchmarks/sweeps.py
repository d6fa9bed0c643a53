"""Whether a sweep of the demo that is killed again and again ends as one that was not disturbed, byte for byte.

    python benchmarks/sweeps.py                 12 cells: two rates, two losses and three seeds
    python benchmarks/sweeps.py --halving       the same with successive halving
    python benchmarks/sweeps.py --steps 40      shorter training runs

Both run in new copies of the project. All processes of one of them are killed with SIGKILL (`kill -9`) at random
moments, and the same command is given again. Prints how many files were compared, and which of them differ.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from support.project import Project, sweep_results


def configuration(steps: int | None, halving: bool) -> dict[str, Any]:
    """The sweep; `steps` bounds those of each run."""
    grid: dict[str, Any] = {"training.learning_rate": [2e-3, 8e-3], "training.loss": ["pairwise", "kwise"]}
    if halving:
        grid["halving"] = {"factor": 2, "min_steps": (steps or 200) // 4}
    training = {"pairs_per_step": 32, "warmup": 0.1, "checkpoint_every": 5, "max_steps": steps}
    run = {"mixture": "demo", "model": "tiny", "seeds": [0, 1, 2], "training": training}
    return {"runs": {"s": {**run, "grid": grid}}, "select": {"from": "s", "as": "best"}}


def main() -> int:
    """Run both; 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--halving", action="store_true")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    chance, outcomes, seconds = random.Random(args.seed), [], 0.0
    with tempfile.TemporaryDirectory() as scratch:
        for name, most in {"undisturbed": 0, "killed": args.kills}.items():
            project = Project(Path(scratch) / name)
            overlay = project.overlay(configuration(args.steps, args.halving))
            arguments, kills = ["--cores", "all", "--configfile", str(overlay)], 0
            begin = time.monotonic()
            for _ in range(most):
                process = project.start(*arguments)
                time.sleep(chance.uniform(0.2, 1.8) * seconds / (most + 1))
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    kills += 1
                process.wait()
            project.run(*arguments, timeout=7200)
            seconds = time.monotonic() - begin
            print(f"{name}: {seconds:.0f} s, killed {kills} times", flush=True)
            outcomes.append(sweep_results(project))
    expected, found = outcomes
    different = sorted(file for file in expected.keys() | found.keys() if expected.get(file) != found.get(file))
    print(f"{len(expected)} files, of which {len(different)} differ", *different, sep="\n")
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main())

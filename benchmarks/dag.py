"""How long snakemake takes to plan a sharded mixture, and in how much memory, by the number of shards.

    python benchmarks/dag.py [--shards 100 300 1000 3000 10000]

Each size is a dry-run of the whole pipeline: a data set in that many parts and a mixture in that many shards, so three
jobs a shard. Prints a line of JSON for each size: jobs, seconds, seconds of a core, and MB of memory at the most.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def overlay(shards: int) -> dict[str, object]:
    """The default configuration, in that many shards."""
    data = {"demo": {"pairs": 100 * shards, "seed": 1}, "shards": shards}
    return {"datasets": {"demo": data}, "mixtures": {"demo": {"shards": shards}}}


def plan(shards: int, folder: Path) -> dict[str, float]:
    """Plan that many shards: jobs, seconds, and MB of memory at the most."""
    (folder / "overlay.yaml").write_text(yaml.safe_dump(overlay(shards)))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]
    command += ["--dry-run", "--quiet", "all", "--configfile", "overlay.yaml"]
    begin = time.monotonic()
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit((folder / "said").read_text())
    return {
        "shards": shards,
        "jobs": 3 * shards,
        "seconds": round(time.monotonic() - begin, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "mb": round(usage.ru_maxrss / 1024),
    }


def main() -> int:
    """Run the benchmark."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--shards", nargs="+", type=int, default=[100, 300, 1000, 3000, 10000])
    args = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="dag-") as folder:
        (Path(folder) / "config").symlink_to(ROOT / "config")
        for shards in args.shards:
            print(json.dumps(plan(shards, Path(folder))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

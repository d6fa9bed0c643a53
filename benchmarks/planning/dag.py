"""Time and memory that Snakemake needs to plan a mixture, by its number of shards.

    python benchmarks/planning/dag.py [--shards 100 300 1000 3000 10000]

Each size is a dry-run of the complete pipeline with a dataset in that many parts and a mixture in that many shards, so
three jobs per shard. Prints a line of JSON for each size: jobs, seconds, CPU seconds, and peak memory in MB.
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

ROOT = Path(__file__).parents[2]


def overlay(shards: int) -> dict[str, object]:
    """Changes to the default configuration: this number of shards."""
    data = {"demo": {"pairs": 100 * shards, "seed": 1}, "shards": shards}
    return {"datasets": {"demo": data}, "mixtures": {"demo": {"shards": shards}}}


def plan(shards: int, folder: Path) -> dict[str, float]:
    """Plan this number of shards; returns jobs, seconds, CPU seconds and peak memory in MB."""
    (folder / "overlay.yaml").write_text(yaml.safe_dump(overlay(shards)))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]
    command += ["--dry-run", "--quiet", "all", "--configfile", "overlay.yaml"]
    begin = time.monotonic()
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit((folder / "output").read_text())
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

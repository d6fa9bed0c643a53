"""The benchmark for a GPU runs on the CPU with tiny shapes, so that it works the first time that it is run on one."""

import json
import sys
from pathlib import Path

from support.paths import ROOT
from support.processes import forks


def test_the_benchmark_runs_and_writes_its_tables(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--output", str(tmp_path), "--dry-run"]
    done = forks.run(command)
    assert done.returncode == 0, done.stdout
    results = json.loads((tmp_path / "gpu.json").read_text())
    parts = results["parts"]
    assert not results["left_out"]
    assert [len(rows) for rows in parts.values()][:5] == [4, 2, 3, 2, 2]
    for row in parts["Packed rows against padded ones"]:
        limit = 1e-5 if row["precision"] == "float32" else 0.05
        assert row["relative difference of the gradient"] < limit
    assert [(row["bit-equal"], row["largest difference of a weight"]) for row in parts["Resume"]] == [(True, 0.0)] * 2
    assert all(row["problem"] == "none" and row["graphs"] < 12 for row in parts["Compiled layers"])
    assert all(row["real tokens/s"] > 0 for name in ("Training", "Scoring") for row in parts[name])
    assert (tmp_path / "gpu.md").read_text().count("\n## ") == len(parts) == 6

import subprocess
import sys
from pathlib import Path

from support.paths import ROOT


def test_the_benchmark_of_training_measures_this_project(tmp_path: Path) -> None:
    """All but the peers, which have an environment of their own, and take minutes."""
    sizes = ["--pairs", "8", "--pairs-per-step", "2", "--warm", "1", "--rounds", "1", "--threads", "1"]
    program = [sys.executable, str(ROOT / "benchmarks" / "train.py"), "--no-peers", "--work", str(tmp_path), *sizes]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "8 pairs in 4 steps" in done.stdout
    row = next(line for line in done.stdout.splitlines() if line.startswith("| rewardline"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    rate, first_step, memory = float(cells[1].replace(",", "")), float(cells[5]), float(cells[6])
    assert rate > 0
    assert first_step > 0
    assert 0.1 < memory < 10
    assert cells[2] == cells[4] == "1.00"
    assert cells[7] == "0%"

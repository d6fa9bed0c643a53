"""What four processes send each other in a step, against the volumes of ZeRO (Rajbhandari et al. 2020, 1910.02054)."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from support.training_runs import train

PROCESSES = 4
UNITS = {"B": 1, "KB": 2**10, "MB": 2**20}
MESSAGE = re.compile(r"comm op: (\w+) .* msg size: ([\d.]+) ?(B|KB|MB) ")
LOGGED: dict[str, Any] = {"comms_logger": {"enabled": True, "verbose": True}, "log_level": "info"}


def sent(folder: Path, tokens: Path, base: Path, **options: Any) -> tuple[float, float]:
    """How often all gradients are summed over processes, and all weights gathered, by the bytes of the messages."""
    train(folder, tokens, base, "--processes", str(PROCESSES), eval_every=0, checkpoint_every=0, **options)
    size = 4 * json.loads((folder / "out" / "run.json").read_text())["parameters"]
    found = MESSAGE.findall((folder / "log").read_text())
    sums = {"reduce": 0.0, "gather": 0.0}
    for kind, number, unit in found:
        for name in sums:
            sums[name] += (name in kind) * float(number) * UNITS[unit] / size
    # A process gathers with its own part.
    return sums["reduce"], PROCESSES * sums["gather"]


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "reductions", "gathers"), [(0, 1, 0), (1, 1, 1), (2, 1, 1), (3, 1, 2)])
def test_a_step_sends_what_zero_needs(
    tmp_path: Path, tokens: Path, base: Path, stage: int, reductions: int, gathers: int
) -> None:
    """Gradients once; weights once where each process changes a part of them, and with ZeRO-3 in each pass."""
    own: dict[str, Any] = {"zero_optimization": {"stage3_param_persistence_threshold": 0}} if stage == 3 else {}
    options = {"zero_stage": stage, "tokens_per_micro_batch": 10_000, "deepspeed": {**LOGGED, **own}}
    few, more = (sent(tmp_path / str(steps), tokens, base, max_steps=steps, **options) for steps in (1, 3))
    assert [(last - first) / 2 for first, last in zip(few, more, strict=True)] == pytest.approx(
        [reductions, gathers], rel=0.05, abs=0.01
    )

"""What `fail_below` asks for: a message that says what was found where it does not hold."""

import json
from pathlib import Path

import pytest

import gate
from rewardline.core.errors import UserError
from rewardline.evaluation.gate import GateFile


def metrics(folder: Path, benchmark: str, accuracy: float) -> str:
    """A `metrics.json` with what the gate reads of it."""
    value = {"run": "r", "mixture": "m", "model": "x", "seed": 0, "benchmark": benchmark, "n": 50, "accuracy": accuracy}
    value |= {"accuracy_low": accuracy - 0.1, "accuracy_high": accuracy + 0.05}
    path = folder / f"{benchmark}.json"
    path.write_text(json.dumps(value))
    return str(path)


def test_an_eliminated_run_is_not_checked_and_one_that_diverged_fails(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    arguments = ["--settings", json.dumps({"r": {"eval": 0.1}}), "--metrics", str(path)]
    arguments += ["--output", str(tmp_path / "gate.json")]
    value = {"run": "r", "mixture": "m", "model": "x", "seed": 0, "benchmark": "eval"}
    path.write_text(json.dumps({**value, "n": 50, "accuracy": 0.05, "eliminated_at": 20}))
    assert gate.main(arguments) == 0
    assert json.loads((tmp_path / "gate.json").read_text())["verdicts"] == []
    path.write_text(json.dumps({**value, "n": 0, "accuracy": None, "diverged": "the loss is not finite at step 3"}))
    with pytest.raises(UserError, match=r"r on eval: no accuracy, as its training has diverged \(the loss is not"):
        gate.main(arguments)


def test_a_limit_that_is_not_met_is_named_with_what_was_found(tmp_path: Path) -> None:
    places = ["--metrics", metrics(tmp_path, "eval", 0.75), metrics(tmp_path, "probes", 0.9)]
    places += ["--output", str(tmp_path / "gate.json")]
    with pytest.raises(UserError) as failure:
        gate.main(["--settings", json.dumps({"r": {"eval": 0.95, "probes": 0.9}}), *places])
    said = "r on eval: accuracy 75.0% (95% interval 65.0% to 80.0%, 50 pairs), below 95.0%\n"
    assert said in str(failure.value)
    assert "probes" not in str(failure.value)
    assert not (tmp_path / "gate.json").exists()
    with pytest.raises(UserError, match="more pairs may change the outcome"):
        gate.main(["--settings", json.dumps({"r": {"eval": 0.78}}), *places])
    assert gate.main(["--settings", json.dumps({"r": {"eval": 0.75, "probes": 0.5}}), *places]) == 0
    found = json.loads((tmp_path / "gate.json").read_text())["verdicts"]
    assert [(one["benchmark"], one["limit"], one["passed"]) for one in found] == [
        ("eval", 0.75, True),
        ("probes", 0.5, True),
    ]
    assert GateFile.read(tmp_path / "gate.json").as_json() == {"verdicts": found}

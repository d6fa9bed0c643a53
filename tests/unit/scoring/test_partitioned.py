"""A model that several processes hold together: score.py, score_rows.py and evaluate.py give the scores of one."""

import json
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import download
from rewardline.core.errors import UserError
from rewardline.core.hashing import file_sha256
from rewardline.scoring import partitioned

from support.paths import SCRIPTS
from support.processes import forks
from support.reward_models import reward_model
from support.tokens import random_comparison, write_tokens
from support.training_runs import ENVIRONMENT

PROGRAMS = f"""
import json, multiprocessing, sys, time
from pathlib import Path

sys.path.insert(0, "{SCRIPTS}")


def main():
    import evaluate, score, score_rows

    place = Path(sys.argv[1])
    settings = {{"run": "r", "name": "r", "mixture": "m", "model": "x", "seed": 1, "benchmark": "eval"}}
    for count in ("1", "2"):
        out, model = place / count, ["--processes", count, "--model", str(place / "model")]
        out.mkdir()
        rows = ["--input", str(place / "rows.jsonl"), "--output", str(out / "scored.jsonl"), "--threads", "1"]
        assert score.main([*model, *rows]) == 0
        data = ["--data", str(place / "data" / "manifest.json"), "--parts", str(out / "parts")]
        data += ["--output", str(out / "shard")]
        assert score_rows.main(["--settings", json.dumps({{"name": "c", "shard": 0, "shards": 1}}), *model, *data]) == 0
        tokens = ["--tokens", str(place / "tokens"), "--output", str(out / "eval"), "--batch-tokens", "128"]
        assert evaluate.main(["--settings", json.dumps(settings), *model, *tokens]) == 0
    (other,) = multiprocessing.active_children()
    other.kill()
    time.sleep(200)  # as in a collective operation that waits for the other


if __name__ == "__main__":  # which the other process imports
    main()
"""


def scores(folder: Path) -> list[list[float]]:
    """Those that each of the programs has written."""
    rows = [json.loads(line) for line in (folder / "scored.jsonl").read_text().splitlines()]
    (shard,) = (folder / "shard").glob("*.parquet")
    pairs = pq.read_table(folder / "eval" / "scores.parquet").to_pydict()
    of_rows = [row["scores"] for row in rows], pq.read_table(shard)["scores"].to_pylist()
    return [*(list(chain(*lists)) for lists in of_rows), pairs["chosen_score"] + pairs["rejected_score"]]


def test_scores_are_those_of_one_process(base_models: Callable[..., Path], tmp_path: Path) -> None:
    reward_model(base_models("llama"), tmp_path / "model")
    weights = file_sha256(tmp_path / "model" / "model.safetensors")
    facts = {"weights_sha256": weights, "tokenization": {"template": "plain", "max_length": 96}}
    (tmp_path / "model" / "run.json").write_text(json.dumps(facts))
    rows = [{"prompt": f"How many are {k} and {k}?", "answers": ["No", f"They are {2 * k}."]} for k in range(30)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = json.dumps({"files": [str(tmp_path / "rows.jsonl")]})
    assert download.main(["--name", "c", "--settings", settings, "--output", str(tmp_path / "data")]) == 0
    rng = np.random.default_rng(0)
    comparisons = [random_comparison(rng, int(rng.integers(1, 20)), [5, 9]) for _ in range(40)]
    write_tokens(tmp_path / "tokens", comparisons[:1], comparisons)
    program = tmp_path / "programs.py"
    program.write_text(PROGRAMS)
    done = forks.run([sys.executable, str(program), str(tmp_path)], env=ENVIRONMENT, timeout=600)
    assert done.stdout.count("partitioned over 2 processes (ZeRO-3)") == 3, done.stdout
    one, two = (scores(tmp_path / count) for count in "12")
    assert [len(part) for part in one] == [60, 60, 80]
    for part, other in zip(one, two, strict=True):
        np.testing.assert_allclose(other, part, rtol=1e-6, atol=2e-6)
    assert done.returncode == 1
    assert "a process that held a part of the model ended with code -9; was there too little memory?" in done.stdout


def folder_of(place: Path, size: int = 1000) -> Path:
    """A model of so many bytes in bf16, in two files."""
    (place / "config.json").write_text('{"dtype": "bfloat16"}')
    for number in range(2):
        (place / f"model-{number}.safetensors").write_bytes(b"0" * (size // 2))
    return place


def machine(monkeypatch: pytest.MonkeyPatch, gpus: int, memory: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=memory))


@pytest.mark.parametrize(
    ("gpus", "memory", "dtype", "requested", "processes"),
    [
        (0, 0, "auto", 0, 1), (0, 0, "auto", 3, 3), (1, 1000, "auto", 0, 1), (4, 1250, "auto", 0, 1),
        (4, 1249, "auto", 0, 4), (4, 1250, "fp32", 0, 4), (4, 1249, "auto", 1, 1), (4, 9999, "auto", 2, 2),
    ],
)  # fmt: skip
def test_all_gpus_hold_what_is_too_large_for_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpus: int, memory: int, dtype: str, requested: int, processes: int
) -> None:
    machine(monkeypatch, gpus, memory)
    assert partitioned.processes_for(folder_of(tmp_path), dtype, requested) == processes


def test_what_cannot_be_partitioned_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine(monkeypatch, 2, 499)
    with pytest.raises(UserError, match=r"its weights take 0 GiB, and 2 GPU\(s\) have 0 GiB each; use more: set the"):
        partitioned.processes_for(folder_of(tmp_path), "auto", 0)
    with pytest.raises(UserError, match="--processes 3: each needs a GPU, and 2 are visible"):
        partitioned.processes_for(tmp_path, "auto", 3)
    for path in tmp_path.glob("*.safetensors"):
        path.unlink()
    with pytest.raises(UserError, match=r"--processes 2: .* has no safetensors"):
        partitioned.processes_for(tmp_path, "auto", 2)

"""Evaluations that are run again: no part is scored twice, and the end is the same.

After a kill, with damaged or foreign parts, and after an edit of the code.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rewardline.core.errors import UserError
from rewardline.core.hashing import file_sha256
from rewardline.evaluation.score_pairs import PairScoring, collected_comparisons, score_share, scored_comparisons
from rewardline.model.loading import load_base, save_reward_model
from rewardline.tokens.tokenizer import load_tokenizer

from support.paths import ROOT
from support.processes.forks import Fork, Program
from support.tokens import random_comparison, write_tokens
from support.training_runs import ENVIRONMENT


def write_model(folder: Path, base: Path, seed: int) -> None:
    tokenizer = load_tokenizer(base)
    save_reward_model(load_base(base, tokenizer, seed=seed), tokenizer, folder)
    facts = {"weights_sha256": file_sha256(folder / "model.safetensors")}
    (folder / "run.json").write_text(json.dumps(facts))


@pytest.fixture
def work(tmp_path: Path, base_models: Callable[..., Path]) -> Path:
    """A folder with a model and tokens of 1,200 comparisons, which make about 40 parts."""
    write_model(tmp_path / "model", base_models("llama"), seed=1)
    rng = np.random.default_rng(0)
    shapes = [
        (int(rng.integers(1, 20)), [int(n) for n in rng.integers(1, 12, rng.integers(2, 4))]) for _ in range(1200)
    ]
    rows = [random_comparison(rng, prefix, tails) for prefix, tails in shapes]
    write_tokens(tmp_path / "tokens", rows[:1], rows)
    return tmp_path


def start(work: Path, output: str, scripts: Path = ROOT / "scripts", **more: str) -> Program:
    settings = {"run": "r", "name": "r", "mixture": "m", "model": "x", "seed": 1, "benchmark": "eval"}
    places = {"--model": work / "model", "--tokens": work / "tokens", "--output": work / output}
    options = [
        str(part) for option in {**places, "--batch-tokens": 64, "--log": work / "log"}.items() for part in option
    ]
    program = [sys.executable, str(scripts / "evaluate.py"), "--settings", json.dumps(settings)]
    if more:  # read when Python starts
        return subprocess.Popen([*program, *options], env={**ENVIRONMENT, **more})
    return Fork([*program, *options], env=ENVIRONMENT)


def finish(work: Path, output: str, scripts: Path = ROOT / "scripts", **more: str) -> str:
    """Evaluate to the end; the log."""
    assert start(work, output, scripts, **more).wait() == 0, (work / "log").read_text()
    assert len({path.parent for path in parts(work, output)}) == 1
    return (work / "log").read_text()


def parts(work: Path, output: str) -> list[Path]:
    return sorted(work.glob(f".{output}.parts/*/*.scores"))


def killed(work: Path, output: str, after: int) -> list[Path]:
    """Kill an evaluation once some parts are finished; these parts."""
    process = start(work, output)
    deadline = time.monotonic() + 120
    while len(parts(work, output)) < after and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (work / output).exists()
    return parts(work, output)


def test_after_a_kill_the_same_command_resumes_to_bit_equal_scores(work: Path) -> None:
    found = killed(work, "out", 5)
    assert len(found) >= 5
    kept = {path: path.stat().st_mtime_ns for path in found}
    found[2].write_bytes(found[2].read_bytes()[:-40])
    found[1].write_bytes(found[0].read_bytes())  # whole, but another part's
    foreign = work / ".out.parts" / "another-key"
    foreign.mkdir()
    for path in kept:
        (foreign / path.name).write_bytes(b"\0" * 4 * 50)
    log = finish(work, "out")
    assert "1 parts are finished" in log  # before the first that is missing
    assert log.count("is damaged; its part is scored again") == 2
    finish(work, "whole")
    assert pq.read_table(work / "out" / "scores.parquet").equals(pq.read_table(work / "whole" / "scores.parquet"))


def test_parts_of_other_weights_are_not_used(work: Path, base_models: Callable[..., Path]) -> None:
    assert killed(work, "out", 2)
    write_model(work / "model", base_models("llama"), seed=2)
    assert "0 parts are finished" in finish(work, "out")


def test_an_edit_scores_again_only_what_depends_on_it(work: Path) -> None:
    """Where nothing is to be scored, torch is not even imported."""
    scripts = shutil.copytree(ROOT / "scripts", work / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    (work / "without" / "torch").mkdir(parents=True)
    (work / "without" / "torch" / "__init__.py").write_text('raise ImportError("torch is imported")')
    without_torch = {"PYTHONPATH": os.pathsep.join([str(work / "without"), ENVIRONMENT.get("PYTHONPATH", "")])}

    def edit(*modules: str) -> None:
        for module in modules:
            with (scripts / "rewardline" / module).open("a") as stream:
                stream.write("# edited\n")
        for name in ("scores.parquet", "metrics.json"):  # as Snakemake does before a job
            (work / "out" / name).unlink(missing_ok=True)

    assert "0 parts are finished" in finish(work, "out", scripts)
    scores, metrics = (work / "out" / "scores.parquet").read_bytes(), (work / "out" / "metrics.json").read_bytes()
    edit("core/progress.py", "evaluation/metrics/calibration.py", "report/summary.py", "training/loop.py")
    assert "nothing that they depend on has changed" in finish(work, "out", scripts, **without_torch)
    assert (work / "out" / "scores.parquet").read_bytes() == scores
    assert (work / "out" / "metrics.json").read_bytes() == metrics
    for module in ("model/reward_model.py", "model/packing/layout.py"):
        edit(module)
        assert start(work, "out", scripts, **without_torch).wait() == 1, module
        assert "torch is imported" in (work / "log").read_text()
        shutil.copy(ROOT / "scripts" / "rewardline" / module, scripts / "rewardline" / module)
    edit("scoring/batch_scorer.py")
    assert "0 parts are finished" in finish(work, "out", scripts)
    assert (work / "out" / "scores.parquet").read_bytes() == scores


def test_several_jobs_give_the_scores_of_one_bit_for_bit(work: Path) -> None:
    """One of them is stopped and resumes; a part that is damaged later is found, and its job scores it again."""
    weights = json.loads((work / "model" / "run.json").read_text())["weights_sha256"]
    tokens, shards = work / "tokens", work / "shards"
    job = PairScoring(work / "model", weights, tokens, shards, 64, False, 1, "r: eval")
    whole = list(scored_comparisons(dataclasses.replace(job, shards=work / "whole")))
    started = scored_comparisons(job, (1, 3))
    next(started)
    (kept,) = shards.glob("*/*.scores")
    date = kept.stat().st_mtime_ns
    del started
    shares = [shards / f"{number}.json" for number in range(3)]
    for number, share in enumerate(shares):
        score_share(job, (number, 3), share)
    assert kept.stat().st_mtime_ns == date
    damaged = sorted(shards.glob("*/*.scores"))[-1]
    damaged.write_bytes(damaged.read_bytes()[:-40])
    with pytest.raises(UserError, match=f"{damaged} is damaged"):
        list(collected_comparisons(tokens, shards, shares))
    assert [share.exists() for share in shares] == [True, True, False]
    score_share(job, (2, 3), shares[2])
    collected = list(collected_comparisons(tokens, shards, shares))
    assert [one.prompt_id for one, _ in collected] == [one.prompt_id for one, _ in whole]
    assert [scores.tobytes() for _, scores in collected] == [scores.tobytes() for _, scores in whole]

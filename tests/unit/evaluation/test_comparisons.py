"""Runs with planted differences, and pairs with planted wrong labels."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import compare
from rewardline.core.errors import UserError
from rewardline.evaluation.comparisons import ComparisonsFile
from rewardline.evaluation.labels.suspects import read_suspects
from rewardline.evaluation.leaderboards import over_seeds
from rewardline.evaluation.metrics.intervals import mean_interval
from rewardline.evaluation.metrics.labels import wrong_labels
from rewardline.report.summary import noise

from support.pairs import pair_rows, write_pairs
from support.score_tables import stored, table
from support.seeds import compared, seeds_of_recipes

Json = dict[str, Any]


class Folder:
    """Evaluations of runs on the same pairs, as the stages leave them."""

    def __init__(self, root: Path, prompts: int, benchmark: str = "eval") -> None:
        self.root, self.benchmark = root, benchmark
        self.pairs = pair_rows(prompts)
        self.table = table(np.random.default_rng(0), prompts)
        self.table["pair_id"] = [row["pair_id"] for row in self.pairs]
        self.table["prompt_id"] = [row["prompt_id"] for row in self.pairs]
        write_pairs(root / "pairs" / ("m" if benchmark == "eval" else benchmark), [], self.pairs)

    def run(self, run: str, margins: Any, seed: int = 0, name: str | None = None, without: int = 0) -> None:
        """An evaluation with these score differences; the last `without` pairs have no score."""
        folder = self.root / "evals" / run / self.benchmark
        folder.mkdir(parents=True)
        scores = self.table.assign(chosen_score=margins, rejected_score=0.0).iloc[: len(margins) - without]
        scores["correct"] = (scores["chosen_score"] > 0) + 0.5 * (scores["chosen_score"] == 0)
        stored(scores, folder)
        value = {"run": run, "name": name or run, "mixture": "m", "model": "x", "seed": seed}
        value |= {"benchmark": self.benchmark, "n": len(scores), "accuracy": float(scores["correct"].mean())}
        (folder / "metrics.json").write_text(json.dumps(value))

    def compare(self) -> tuple[Json, list[Json]]:
        metrics, scores = (map(str, self.root.glob(f"evals/*/*/{name}")) for name in ("metrics.json", "scores.parquet"))
        output, suspects = self.root / "comparisons.json", self.root / "suspects.parquet"
        pairs = [str(path / "eval") for path in (self.root / "pairs").iterdir()]
        stats = map(str, self.root.glob("pairs/*/stats.json"))
        inputs = ["--metrics", *metrics, "--scores", *scores, "--pairs", *pairs, "--stats", *stats]
        assert compare.main([*inputs, f"--output={output}", f"--suspects={suspects}"]) == 0
        (board,) = json.loads(output.read_text())["boards"]
        return board, pq.read_table(suspects).to_pylist()


def test_a_difference_is_that_of_the_common_pairs(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    good, bad = rng.normal(1.5, 1, 400), rng.normal(0.2, 1, 400)
    folder = Folder(tmp_path, 400, "bench")
    folder.run("bad", bad, without=100)
    folder.run("good", good)
    board, _ = folder.compare()
    assert (board["benchmark"], board["mixture"]) == ("bench", None)
    assert ComparisonsFile.read(tmp_path / "comparisons.json").as_json() == {"boards": [board], "curves": []}
    (one,) = board["differences"]
    assert (one["first"], one["second"], one["n"]) == ("good", "bad", 300)
    assert one["difference"] == pytest.approx((good[:300] > 0).mean() - (bad[:300] > 0).mean())
    assert 0 < one["low"] < one["difference"] < one["high"]
    assert not one["within_noise"]
    assert board["families"][0] == {
        "name": "good",
        "runs": ["good"],
        "mean": pytest.approx((good > 0).mean()),
        "std": None,
        "low": None,
        "high": None,
    }


def test_a_pair_that_a_benchmark_repeats_counts_as_often(tmp_path: Path) -> None:
    folder = Folder(tmp_path, 40, "bench")
    folder.table = folder.table.iloc[[*range(40), *[0] * 20]]
    first, second = np.full(60, 0.5), np.full(60, 0.5)
    first[[0, *range(40, 60)]], second[[0, *range(40, 60)]] = 0.1, -5
    folder.run("a", first)
    folder.run("b", second)
    board, suspects = folder.compare()
    (one,) = board["differences"]
    assert (one["n"], one["difference"]) == (60, pytest.approx(21 / 60))
    assert [row["pair_id"] for row in suspects] == [folder.pairs[0]["pair_id"]]


def test_equal_runs_and_noise_are_within_noise(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    folder = Folder(tmp_path, 200)
    same = rng.normal(0.5, 1, 200)
    folder.run("a", same)
    folder.run("b", same)
    folder.run("noise", rng.normal(0.5, 1, 200))
    board, _ = folder.compare()
    assert board["mixture"] == "m"
    assert len(board["differences"]) == 3
    assert all(one["within_noise"] for one in board["differences"])
    twins = next(one for one in board["differences"] if {one["first"], one["second"]} == {"a", "b"})
    assert twins["difference"] == 0
    assert 0 < twins["high"] < 0.05


def test_seeds_are_one_run_whose_intervals_hold_their_spread(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    folder = Folder(tmp_path, 300)
    base = rng.normal(0.5, 1, 300)
    for seed, shift in enumerate((-0.3, 0.0, 0.5)):
        folder.run(f"x-seed{seed}", base + shift, seed=seed, name="x")
    folder.run("y", base - 0.1)
    board, _ = folder.compare()
    families = {one["name"]: one for one in board["families"]}
    rates = [float((base + shift > 0).mean()) for shift in (-0.3, 0.0, 0.5)]
    error = 4.303 * np.std(rates, ddof=1) / math.sqrt(3)
    assert families["x"]["mean"] == pytest.approx(np.mean(rates))
    assert families["x"]["std"] == pytest.approx(np.std(rates, ddof=1))
    assert families["x"]["low"] < np.mean(rates) - error
    assert families["x"]["high"] == pytest.approx(min(1.0, np.mean(rates) + error), abs=0.05)
    (difference,) = board["differences"]
    assert {difference["first"], difference["second"]} == {"x", "y"}, "seeds are not compared with each other"
    assert difference["compares"] == "recipes"
    assert abs(difference["difference"]) == pytest.approx(abs(np.mean(rates) - (base > 0.1).mean()))
    assert difference["high"] - difference["low"] > 2 * 4.303 * np.std(rates, ddof=1)
    assert difference["within_noise"]


def test_with_one_seed_each_weights_are_compared(tmp_path: Path) -> None:
    folder = Folder(tmp_path, 100)
    folder.run("a", np.ones(100))
    folder.run("b", -np.ones(100))
    board, _ = folder.compare()
    (difference,) = board["differences"]
    assert (difference["compares"], difference["within_noise"]) == ("weights", False)
    (said,) = [line for line in noise(ComparisonsFile.model_validate({"boards": [board]})) if "seed" in line]
    assert said == "runs with one seed each are compared as these weights; recipes need several seeds to be told apart"


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
@pytest.mark.parametrize(("prompts", "accuracy"), [(100, 0.8), (850, 0.82), (300, 0.95)])
def test_the_interval_of_several_seeds_covers_other_prompts_and_seeds(
    seeds: int, prompts: int, accuracy: float
) -> None:
    rng = np.random.default_rng(seeds)
    hits = []
    for _ in range(300):
        correct = seeds_of_recipes(rng, 1, seeds, prompts, accuracy)[0]
        bounds = mean_interval(correct.mean(axis=0), np.arange(prompts))
        low, high = over_seeds(correct.mean(axis=1).tolist(), *bounds)
        hits.append(low <= accuracy <= high)
    if seeds > 1:
        assert np.mean(hits) >= 0.93
    else:
        assert np.mean(hits) < 0.93, "one seed says nothing about others: its interval is that of these weights"


@pytest.mark.parametrize(("recipes", "seeds"), [(2, 1), (2, 2), (2, 5), (5, 3), (20, 2), (20, 5)])
def test_equal_runs_are_seldom_said_to_differ(recipes: int, seeds: int) -> None:
    """At most 5% false alarms among all differences together; with one seed each, of runs with equal skill."""
    rng = np.random.default_rng(recipes + seeds)
    prompts, alarms = 200, []
    for _ in range({2: 300, 5: 100, 20: 20}[recipes]):
        correct = seeds_of_recipes(rng, recipes, seeds, prompts, 0.8)
        if seeds == 1:
            correct = np.stack([rng.permuted(correct[0], axis=1) for _ in range(recipes)])
        alarms.append(any(not one.within_noise for one in compared(correct).differences))
    assert np.mean(alarms) <= 0.05


def test_a_clear_difference_of_recipes_is_found() -> None:
    rng = np.random.default_rng(0)
    good, bad = seeds_of_recipes(rng, 1, 3, 500, 0.85), seeds_of_recipes(rng, 1, 3, 500, 0.6)
    assert not compared(np.concatenate([good, bad])).differences[0].within_noise


def test_differences_of_noise_cover_zero_as_often_as_they_claim() -> None:
    from rewardline.evaluation.metrics.intervals import difference_interval

    rng = np.random.default_rng(4)
    hits = []
    for _ in range(300):
        first, second = (rng.random((2, 50)) < 0.6).astype(np.float64)
        low, high = difference_interval(first - second, np.arange(50))
        hits.append(low <= 0 <= high)
    assert 0.92 <= np.mean(hits) <= 0.99


def test_wrong_labels_are_found_with_their_texts(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    folder = Folder(tmp_path, 300)
    wrong = rng.choice(300, 10, replace=False)
    for run in range(3):
        margins = np.abs(rng.normal(1, 0.5, 300)) * (run + 1)
        margins[wrong] *= -1
        margins[(wrong[0] + 1 + run) % 300] = -5.0  # of one run alone
        folder.run(f"r{run}", margins)
    _, suspects = folder.compare()
    assert {row["pair_id"] for row in suspects} == {folder.pairs[k]["pair_id"] for k in wrong}
    for row in suspects:
        pair = next(pair for pair in folder.pairs if pair["pair_id"] == row["pair_id"])
        assert row["runs"] == row["against"] == 3
        assert {key: row[key] for key in ("prompt", "chosen", "rejected", "file", "row", "subset")} == {
            key: pair[key] for key in ("prompt", "chosen", "rejected", "file", "row", "subset")
        }
    assert [row["margin_mean"] for row in suspects] == sorted(row["margin_mean"] for row in suspects)
    probabilities = [row["probability"] for row in suspects]
    assert probabilities == sorted(probabilities, reverse=True)
    path = tmp_path / "suspects.parquet"
    assert [asdict(row) for row in read_suspects(path)] == suspects
    pq.write_table(pq.read_table(path).drop_columns(["against"]), path)
    with pytest.raises(UserError, match=r"suspects\.parquet is damaged \(it has changed .*snakemake"):
        read_suspects(path)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.1, 0.2])
def test_probabilities_of_wrong_labels_say_how_many_are_wrong(share: float) -> None:
    """Precision and recall, as expected from the probabilities, of models that are right as often as they are sure."""
    rng, pairs = np.random.default_rng(7), 20_000
    sizes = np.abs(rng.normal(0, 1, pairs))
    right, wrong = rng.random(pairs) < 1 / (1 + np.exp(-4 * sizes)), rng.random(pairs) < share
    probability, estimated = wrong_labels(np.where(right ^ wrong, sizes, -sizes))
    assert abs(estimated - share) < 0.01
    listed = probability >= 0.5
    if share:
        recall = probability[listed].sum() / (estimated * pairs)
        assert probability[listed].mean() == pytest.approx(wrong[listed].mean(), abs=0.04)
        assert recall == pytest.approx(wrong[listed].sum() / wrong.sum(), abs=0.08)
    else:
        assert not listed.any()


def test_many_runs_are_bounded_and_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    folder = Folder(tmp_path, 40)
    for run in range(24):
        folder.run(f"r{run:02}", rng.normal(run / 10, 1, 40))
    board, _ = folder.compare()
    assert len(board["differences"]) == 20 * 19 / 2
    assert len(board["families"]) == 24
    assert len(board["left_out"]) == 4
    worst = sorted(board["families"], key=lambda one: one["mean"])[:4]
    assert max(one["mean"] for one in worst) <= min(
        one["mean"] for one in board["families"] if one["name"] not in board["left_out"]
    )


def test_a_pair_that_is_gone_is_said(tmp_path: Path) -> None:
    folder = Folder(tmp_path, 20)
    folder.run("r", -np.ones(20))
    folder.table["pair_id"] = "unknown"
    (tmp_path / "pairs" / "m" / "eval" / "part-00000.parquet").unlink()
    with pytest.raises(UserError, match="lacks a pair that was scored; delete"):
        folder.compare()

"""The choice of the best run: a planted winner is found, equal runs are called equal, and the figure told is honest."""

import json
from pathlib import Path

import numpy as np
import pytest

import select_model
from rewardline.core.errors import UserError
from rewardline.evaluation.choices import ChosenRun
from rewardline.evaluation.leaderboards import entries
from rewardline.evaluation.selection import choice_between
from rewardline.evaluation.settings import SelectSettings

from support.results_folder import Results
from support.score_tables import stored, table
from support.seeds import scored, seeds_of_recipes

SETTINGS = SelectSettings(name="best", benchmark="eval", share=0.5)


def choice(correct: "np.typing.NDArray[np.bool_]") -> ChosenRun:
    results, preferences = scored(correct)
    return choice_between(SETTINGS, entries(results), preferences)


@pytest.mark.parametrize(("recipes", "seeds", "prompts"), [(12, 1, 400), (4, 3, 400), (3, 1, 120)])
def test_equal_runs_are_within_noise_and_the_figure_told_is_not_too_high(
    recipes: int, seeds: int, prompts: int
) -> None:
    rng = np.random.default_rng([recipes, seeds])
    sweeps, alarms, optimistic, honest = 120, 0, 0.0, 0.0
    for _ in range(sweeps):
        if seeds == 1:  # equal weights up to which prompts they get wrong: nothing is said about other seeds
            difficulty = rng.normal(0.8, 1, prompts)
            correct = difficulty + 0.7 * rng.normal(size=(recipes, 1, prompts)) > 0
        else:
            correct = seeds_of_recipes(rng, recipes, seeds, prompts, 0.75)
        found = choice(correct)
        alarms += len(found.within_noise) < recipes - 1
        mean = correct.mean()
        optimistic += (found.chosen_on.accuracy - mean) / sweeps
        honest += (found.reported_on.accuracy - mean) / sweeps
    assert alarms / sweeps <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / sweeps)
    if seeds == 1:
        assert optimistic > 0.005 and abs(honest) < 0.5 * optimistic


def test_equal_settings_whose_seeds_scatter_unlike_each_other_are_within_noise() -> None:
    rng = np.random.default_rng(3)
    sweeps, alarms, scatter = 200, 0, np.array([0.03, 0.03, 0.03, 0.3])[:, None, None]
    for _ in range(sweeps):
        skill = 0.8 * np.sqrt(1.25 + scatter**2) + scatter * rng.normal(size=(4, 2, 1)) - rng.normal(size=400)
        alarms += len(choice(skill + 0.5 * rng.normal(size=(4, 2, 400)) > 0).within_noise) < 3
    assert alarms / sweeps <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / sweeps)


def test_a_planted_winner_is_found_and_stands_out() -> None:
    rng = np.random.default_rng(5)
    found = stands_out = 0
    for _ in range(40):
        skill = np.array([0.5] * 11 + [1.4])[:, None, None] + 0.1 * rng.normal(size=(12, 3, 1))
        correct = skill + rng.normal(size=800) + 0.5 * rng.normal(size=(12, 3, 800)) > 0
        one = choice(correct)
        found += one.best == "r11"
        stands_out += one.best == "r11" and not one.within_noise
        assert one.run in ("r11-seed0", "r11-seed1", "r11-seed2") or one.best != "r11"
    assert found == 40 and stands_out >= 36


def test_runs_with_equal_scores_are_a_tie_that_the_name_decides() -> None:
    found = choice(np.repeat(np.random.default_rng(0).random((1, 1, 200)) > 0.3, 3, axis=0))
    assert found.best == "r0-seed0" and found.within_noise == ["r1-seed0", "r2-seed0"]


def test_of_a_single_run_the_best_seed_is_chosen() -> None:
    correct = np.random.default_rng(0).random((1, 3, 200)) < np.array([0.6, 0.9, 0.7])[:, None]
    found = choice(correct)
    assert (found.best, found.run, found.differences) == ("r0", "r0-seed1", [])
    assert found.sentences()[0] == "r0-seed1 is the best seed of r0 on the held-out split of m."


def run(root: Path, scores: dict[str, Path]) -> int:
    metrics = [str(root / "evals" / name / "eval" / "metrics.json") for name in scores]
    return select_model.main(
        [
            *(
                "--settings",
                json.dumps(SETTINGS.as_json()),
                "--metrics",
                *metrics,
                "--scores",
                *map(str, scores.values()),
            ),
            *("--models", *(str(root / "models" / name / "run.json") for name in scores)),
            *("--output", str(root / "models" / "best")),
        ]
    )


def test_the_chosen_model_is_a_folder_whose_card_has_the_reason(tmp_path: Path) -> None:
    results, scores = Results(tmp_path), {}
    for name, kind in (("good", "perfect"), ("bad", "noise")):
        results.eval(name)
        results.model(name)
        (tmp_path / "models" / name / "model.safetensors").write_bytes(name.encode())
        (tmp_path / "models" / name / "README.md").write_text(f"# {name}\n")
        folder = tmp_path / "evals" / name / "eval"
        scores[name] = stored(table(np.random.default_rng(1), 200, scores=kind), folder)
    assert run(tmp_path, scores) == 0
    best = tmp_path / "models" / "best"
    assert (best / "model.safetensors").samefile(tmp_path / "models" / "good" / "model.safetensors")
    assert json.loads((best / "run.json").read_text())["run"] == "good"
    found = ChosenRun.read(best / "selection.json")
    assert (found.run, found.within_noise) == ("good", [])
    assert found.chosen_on.n + found.reported_on.n == 200 and found.chosen_on.accuracy == 1
    card = (best / "README.md").read_text()
    assert card.startswith("# good\n") and all(sentence in card for sentence in found.sentences())
    assert (tmp_path / "models" / "good" / "README.md").read_text() == "# good\n", "the model itself stays as it is"


def test_what_halving_eliminated_is_not_chosen_however_good_it_is(tmp_path: Path) -> None:
    results, scores = Results(tmp_path), {}
    for name, kind, step in (("early", "perfect", 9), ("late", "noise", None)):
        results.eval(name)
        results.model(name, eliminated_at=step)
        (tmp_path / "models" / name / "README.md").write_text(f"# {name}\n")
        folder = tmp_path / "evals" / name / "eval"
        scores[name] = stored(table(np.random.default_rng(1), 200, scores=kind), folder)
    assert run(tmp_path, scores) == 0
    found = ChosenRun.read(tmp_path / "models" / "best" / "selection.json")
    assert (found.run, found.eliminated, found.differences) == ("late", ["early"], [])
    assert "late is the only run left on the held-out split" in found.sentences()[0]
    assert "eliminated 1 before the end of its training" in found.sentences()[0]
    with pytest.raises(UserError, match="halving has eliminated all runs"):
        run(tmp_path, {"early": scores["early"]})


def test_a_setting_of_which_a_seed_diverged_is_not_chosen_and_named(tmp_path: Path) -> None:
    results, scores = Results(tmp_path), {}
    for name, seed, kind in (("a", 0, "perfect"), ("a", 1, "noise"), ("b", 0, "noise"), ("b", 1, "noise")):
        run_id = f"{name}-seed{seed}"
        value = results.eval(run_id, seed=seed)
        reason = "the loss is not finite at step 3" if run_id == "a-seed1" else None
        results.model(run_id, seed=seed, diverged=reason)
        (tmp_path / "models" / run_id / "README.md").write_text("#\n")
        folder = tmp_path / "evals" / run_id / "eval"
        scores[run_id] = stored(table(np.random.default_rng(seed), 200, scores=kind), folder)
        if reason:
            gone = {key: value[key] for key in ("run", "mixture", "model", "seed", "benchmark")}
            (folder / "metrics.json").write_text(json.dumps({**gone, "n": 0, "accuracy": None, "diverged": reason}))
    assert run(tmp_path, scores) == 0
    found = ChosenRun.read(tmp_path / "models" / "best" / "selection.json")
    assert (found.best, found.differences, found.eliminated) == ("b", [], [])
    assert found.diverged == {"a-seed1": "the loss is not finite at step 3"}
    assert "as training has diverged: a-seed1 (the loss is not finite at step 3)." in found.sentences()[0]
    with pytest.raises(UserError, match=r"no run is left, as the training of a-seed1 .* has diverged; leave out"):
        run(tmp_path, {name: path for name, path in scores.items() if name.startswith("a")})


def test_runs_without_common_pairs_are_refused(tmp_path: Path) -> None:
    results, scores = Results(tmp_path), {}
    for name in ("a", "b"):
        results.eval(name)
        results.model(name)
        rows = table(np.random.default_rng(1), 50)
        scores[name] = stored(rows.assign(pair_id=name + rows["pair_id"]), tmp_path / "evals" / name / "eval")
    with pytest.raises(UserError, match="evaluated on the same data"):
        run(tmp_path, scores)

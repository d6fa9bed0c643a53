"""Mixtures with further training pairs: answers of other prompts, and hacks, as rejected answers."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

import augment_pairs
from rewardline.data.pairs.probes import PROBES
from rewardline.data.pairs.settings import ProbeName
from rewardline.data.parquet import read_rows
from rewardline.data.turns import unpack
from rewardline.workflow.config import Config
from rewardline.workflow.resolve import ConfigError, resolve
from rewardline.workflow.settings import augment_settings

from support.data_stages import build

Json = dict[str, Any]
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of two a prompt, of which one answer is a single word, and one a call of a tool."""
    folder = tmp_path_factory.mktemp("source")
    rows: list[Json] = [
        {"prompt": f"Question {k * 7919}?", "chosen": f"A good answer to {k}, {j}.", "rejected": f"Bad {k} {j}."}
        for k in range(300)
        for j in range(2)
    ]
    rows += [
        {"prompt": "A word?", "chosen": "Word", "rejected": "No."},
        {"prompt": "Call it.", "chosen": [CALL], "rejected": [{"role": "assistant", "content": "I will not."}]},
    ]
    build(folder, {"d": rows}, eval_fraction=0.2)
    return folder / "pairs" / "m"


def augmented(source: Path, out: Path, **settings: Any) -> tuple[dict[str, list[Json]], Json]:
    places = ["--pairs", str(source), "--prompts", str(source.parents[1] / "prompts")]
    places += ["--shard", str(out / "shard"), "--output", str(out / "pairs")]
    own = json.dumps({"augment": "m", **settings})
    assert augment_pairs.main(["--name", "robust", "--settings", own, *places]) == 0
    found = {split: list(read_rows(out / "pairs" / split)) for split in ("train", "eval")}
    assert found == {split: list(read_rows(out / "shard" / split)) for split in found}
    return found, json.loads((out / "pairs" / "stats.json").read_text())


def said(row: Json, side: str) -> str:
    pair = unpack(row["prompt"], row["chosen"], row["rejected"], row["native"])
    return str(getattr(pair, side))


def test_a_stated_share_of_training_pairs_is_added_and_nothing_else_changes(source: Path, tmp_path: Path) -> None:
    before = {split: list(read_rows(source / split)) for split in ("train", "eval")}
    shares = {"repeated": 0.2, "shortened": 1.0}
    found, stats = augmented(source, tmp_path, other_prompts=0.5, hacks=shares)
    assert found["eval"] == before["eval"]
    assert [row for row in found["train"] if row["dataset"] == "d"] == before["train"]
    added = [row for row in found["train"] if row["dataset"] == "robust"]
    number = len(before["train"])
    counts, account = Counter(row["subset"] for row in added), stats["by_dataset"]["robust"]
    assert counts["other_prompts"] == pytest.approx(0.5 * number, abs=4 * (0.25 * number) ** 0.5)
    assert counts["repeated"] == pytest.approx(0.2 * number, abs=4 * (0.16 * number) ** 0.5)
    assert counts["shortened"] >= number - 2
    assert account["rows_in"] == account["rows_used"] + sum(account["rejects"].values())
    assert (account["rows_used"], account["pairs_out"]) == (len(added), len(added))
    rejected = list(read_rows(tmp_path / "pairs" / "rejects.parquet"))
    assert len([row for row in rejected if row["dataset"] == "robust"]) == sum(account["rejects"].values())
    assert stats["train"] == number + len(added)
    originals = {(json.dumps(row["prompt"]), said(row, "chosen")) for row in before["train"]}
    held_out = {said(row, side) for row in before["eval"] for side in ("chosen", "rejected")}
    chosen_of: dict[str, set[str]] = {}
    for row in before["train"]:
        chosen_of.setdefault(said(row, "chosen"), set()).add(json.dumps(row["prompt"]))
    for row in added:
        prompt, chosen, rejected_text = json.dumps(row["prompt"]), said(row, "chosen"), said(row, "rejected")
        assert (prompt, chosen) in originals
        if row["subset"] == "other_prompts":
            assert prompt not in chosen_of[rejected_text]
            assert rejected_text not in held_out
        elif row["subset"] == "repeated":
            assert rejected_text == " ".join([chosen] * 3)
    ids = [row["pair_id"] for row in found["train"]]
    assert len(set(ids)) == len(ids)


def test_which_pairs_are_added_does_not_depend_on_other_shares(source: Path, tmp_path: Path) -> None:
    def ids(folder: str, **settings: Any) -> set[str]:
        found, _ = augmented(source, tmp_path / folder, **settings)
        return {row["pair_id"] for row in found["train"]}

    small, large = (ids(str(share), hacks={"padded": share}) for share in (0.1, 0.4))
    both = ids("both", hacks={"padded": 0.1, "thanks": 0.3}, other_prompts=0.2)
    assert small < large and small < both


def test_answers_of_other_prompts_are_chosen_ones_and_never_rated_ones(tmp_path: Path) -> None:
    pairs = [{"prompt": f"Is {k * 7919} prime?", "chosen": f"Chosen {k}.", "rejected": f"Bad {k}."} for k in range(60)]
    prompts = [pair["prompt"] if k % 2 else f"And is {k * 104729} odd?" for k, pair in enumerate(pairs)]
    rated = [{"prompt": prompt, "answer": f"Rated {k}.", "rating": k % 2} for k, prompt in enumerate(prompts)]
    objective = {"objective": {"type": "binary"}}
    shapes = {"r": {"format": "rated"}}
    build(tmp_path, {"d": pairs, "r": rated}, shapes, training=objective, eval_fraction=0.1)
    before = list(read_rows(tmp_path / "pairs" / "m" / "train"))
    found, _ = augmented(tmp_path / "pairs" / "m", tmp_path / "out", other_prompts=1.0)
    assert [row for row in found["train"] if row["dataset"] != "robust"] == before
    texts = [said(row, "rejected") for row in found["train"] if row["dataset"] == "robust"]
    assert len(texts) > 40 and all(text.startswith("Chosen ") for text in texts)


def test_an_answer_never_comes_from_a_prompt_that_is_nearly_the_same(tmp_path: Path) -> None:
    asked = {
        "bridge": "Which two brothers built the old bridge of this small town in the north, and did they ever agree",
        "bread": "My bread never rises although the yeast is fresh, what could be wrong with flour, water or the oven",
        "verse": "Write four lines of verse about a lighthouse keeper whose cat is afraid of fog and thunder at night",
    }
    rows = [
        {"prompt": f"{question}{end}", "chosen": f"{kind}: {k}.", "rejected": f"Bad {kind} {k}."}
        for kind, question in asked.items()
        for k, end in enumerate(["", ".", "!", " again", " please", " now", ", quickly"])
    ]
    distinct = [{"prompt": f"{k * 7919} + 1?", "chosen": f"sum: {k}.", "rejected": f"Bad {k}."} for k in range(40)]
    stats = build(tmp_path, {"d": rows + distinct}, eval_fraction=0.01)
    assert stats["similar_prompts"]["groups"] == 3  # of seven prompts each
    found, _ = augmented(tmp_path / "pairs" / "m", tmp_path / "out", other_prompts=1.0)
    added = [row for row in found["train"] if row["dataset"] == "robust"]
    kinds = [[said(row, side).partition(":")[0] for side in ("chosen", "rejected")] for row in added]
    assert len([chosen for chosen, _ in kinds if chosen != "sum"]) >= 14
    assert all(chosen != rejected or chosen == "sum" for chosen, rejected in kinds)


def test_probes_have_the_names_that_settings_know() -> None:
    assert set(PROBES) == set(get_args(ProbeName))


@pytest.fixture
def config() -> Json:
    return {
        "datasets": {"d": {"files": ["a.jsonl"]}},
        "mixtures": {"m": {"datasets": {"d": 1.0}, "seed": 7}, "c": {"augment": "m", "other_prompts": 0.1}},
        "models": {"x": {"path": "p", "max_length": 64}},
        "runs": {"r": {"mixture": "c", "model": "x"}},
    }


def test_a_mixture_has_all_else_of_the_one_that_it_augments(config: Json) -> None:
    found: Config = resolve(config)
    assert found.mixtures["c"].seed == 7 and found.source_of("c") == "m"
    assert augment_settings(found, "c").as_json() == {"augment": "m", "other_prompts": 0.1, "hacks": {}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["mixtures"]["c"].update(augment="n"), "mixtures.c.augment: 'n' is not defined"),
        (
            lambda c: c["mixtures"].update(e={"augment": "c", "hacks": {"empty": 0.1}}),
            "mixtures.e.augment: c has",
        ),
        (lambda c: c["mixtures"]["c"].update(seed=3), "mixtures.c.seed: the mixture has this of m; remove it"),
        (lambda c: c["mixtures"]["c"].update(other_prompts=0), "mixtures.c.augment: adds nothing"),
        (lambda c: c["mixtures"]["c"].update(hacks={"rude": 0.1}), "mixtures.c.hacks.rude: 'rude' is not allowed"),
        (lambda c: c["mixtures"]["c"].update(hacks={"empty": 2}), "mixtures.c.hacks.empty: 2 is not allowed"),
        (
            lambda c: c["mixtures"]["m"].update(other_prompts=0.1),
            "mixtures.m.other_prompts: has an effect with",
        ),
        (lambda c: c["datasets"].update(c={"files": ["b.jsonl"]}), "mixtures.c: a dataset has the name"),
        (
            lambda c: c.update(audits={"a": {"mixture": "c", "run": "r"}}),
            "audits.a.mixture: c is made of another",
        ),
        (
            lambda c: c.update(audits={"a": {"mixture": "m", "run": "r"}}) or c["mixtures"]["c"].update(audit="a"),
            "mixtures.c: has audit and augment",
        ),
    ],
)
def test_mistakes_are_named(config: Json, change: Callable[[Json], None], message: str) -> None:
    change(config)
    with pytest.raises(ConfigError) as error:
        resolve(config)
    assert message in str(error.value)

import tempfile
import time
from collections.abc import Callable
from itertools import groupby, permutations, product
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rewardline.core.artifacts import write_manifest
from rewardline.data.pairs.candidates import CandidateWriter, pair_id, pair_of
from rewardline.data.pairs.cleaning import Cleaned, clean, clean_shard
from rewardline.data.pairs.grouping import group_prompts
from rewardline.data.pairs.identity import Hashes, unit_interval_hash
from rewardline.data.pairs.manifests import PairCounts
from rewardline.data.pairs.outcomes import RowOutcomes
from rewardline.data.pairs.outcomes import total as total_of_rows
from rewardline.data.pairs.prompt_groups import PromptGroups
from rewardline.data.pairs.settings import CleanSettings, GroupSettings
from rewardline.data.parquet import read_rows, read_typed_rows
from rewardline.data.schema import Candidate, Message, Pair

from support.pairs import candidate, candidates_manifest

LONG = "the ship left the harbour early in the morning and came back with a heavy load of fish before noon"


def settings(**changes: object) -> CleanSettings:
    defaults = {"weights": {"d": 1.0, "e": 1.0}, "seed": 1, "near_duplicates": None, "keep_all": False}
    return CleanSettings.model_validate({**defaults, **changes})


def cleaned(
    pairs: list[Candidate], in_benchmark: set[int] | None = None, held_out: float = 0.3, **options: Any
) -> Cleaned:
    """Clean prompt by prompt, as if no prompts were similar."""
    rules = settings(**options)

    def find(prompt_id: int, _: Callable[[], Hashes]) -> str | None:
        return "it is in t" if prompt_id in (in_benchmark or set()) else None

    result = Cleaned()
    for prompt_id in sorted({pair.prompt_id for pair in pairs}):
        own = [pair for pair in pairs if pair.prompt_id == prompt_id]
        one = clean(own, unit_interval_hash("split 1", prompt_id) < held_out, rules, {}, find)
        result.train += one.train
        result.eval += one.eval
        result.rejects += one.rejects
    return result


def reasons(result: Cleaned) -> list[str]:
    return sorted(reason for _, reason, _ in result.rejects)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("xyz"), st.sampled_from("uvw")), max_size=30))
def test_every_pair_is_kept_or_rejected_and_no_prompt_is_on_both_sides(rows: list[tuple[str, str, str]]) -> None:
    pairs = [candidate(p, c, r, row=k) for k, (p, c, r) in enumerate(rows)]
    result = cleaned(pairs, near_duplicates=0.8)
    assert len(result.train) + len(result.eval) + len(result.rejects) == len(pairs)
    assert not {p.prompt_id for p in result.train} & {p.prompt_id for p in result.eval}
    kept = [pair_id(p) for p in result.train + result.eval]
    assert len(kept) == len(set(kept))


def test_split_does_not_move_when_data_is_added() -> None:
    few = [candidate(f"prompt {k}", "a", "b", row=k) for k in range(50)]
    more = few + [candidate(f"other {k}", "a", "b", row=100 + k) for k in range(200)]
    before, after = cleaned(few), cleaned(more)
    assert before.eval
    assert {p.prompt_id for p in before.eval} <= {p.prompt_id for p in after.eval}
    assert {p.prompt_id for p in before.train} <= {p.prompt_id for p in after.train}


def test_duplicates_keep_the_first_and_name_it() -> None:
    result = cleaned([candidate("p", "a", "b", row=7), candidate("p", "a", "b", "e", row=9)])
    assert reasons(result) == ["duplicate"]
    assert "d f:7" in result.rejects[0][2]


def test_contradictions_are_left_out_entirely() -> None:
    result = cleaned([candidate("p", "a", "b"), candidate("p", "b", "a", row=2), candidate("p", "a", "c", row=3)])
    assert reasons(result) == ["contradiction", "contradiction"]
    assert [(p.chosen, p.rejected) for p in result.train + result.eval] == [("a", "c")]


def test_equal_but_for_case_and_punctuation_is_equal() -> None:
    pairs = [candidate("Which?", "Yes it is.", "no"), candidate("which", "yes, it is", "No!", row=2)]
    assert reasons(cleaned(pairs)) == ["duplicate"]
    pairs.append(candidate("WHICH", "NO", "Yes it is", row=3))
    assert reasons(cleaned(pairs)) == ["contradiction", "contradiction", "duplicate"]
    code = [candidate("p", "f(a, b)", "f(a b)"), candidate("p", "f(a b)", "f(a, b)", row=2)]
    assert reasons(cleaned(code)) == ["contradiction"] * 2
    assert not cleaned(code[:1]).rejects


def test_the_dataset_with_the_larger_weight_keeps_its_copy_whatever_its_name() -> None:
    rows = [(f"prompt {k}", "a", "b") for k in range(200)]
    pairs = [candidate(*row, dataset, k) for dataset in ("d", "e") for k, row in enumerate(rows)]
    for weights in ({"d": 0.01, "e": 1.0}, {"d": 1.0, "e": 0.01}):
        result = cleaned(pairs, held_out=0.0, weights=weights)
        assert len(result.train) == 200
        assert set(reasons(result)) == {"duplicate"}


def test_a_tie_contradicts_nothing_and_repeats_a_tie_alone() -> None:
    tie = candidate("p", "no", "yes")._replace(confidence=0.5)
    pairs = [tie, candidate("p", "yes", "no", row=2), tie._replace(chosen="yes", rejected="no", row=3)]
    result = cleaned(pairs, held_out=0.0, near_duplicates=0.8)
    assert reasons(result) == ["duplicate"]
    assert {pair.row for pair in result.train} == {1, 2}
    assert reasons(cleaned(pairs, held_out=1.0)) == ["duplicate", "tie"]


def test_nearly_equal_pairs_that_prefer_the_other_answer_contradict_each_other() -> None:
    pairs = [candidate("p", LONG, "it sank"), candidate("p", "It sank!", LONG + " they say", row=2)]
    assert reasons(cleaned(pairs, near_duplicates=0.8)) == ["contradiction"] * 2


def test_the_system_message_is_part_of_the_prompt() -> None:
    def asked(system: str, row: int) -> Candidate:
        prompt = [Message(role="system", content=system), Message(role="user", content=LONG)]
        return candidate(prompt, "yes", "no", row=row)

    other = [asked("Answer in French.", 1), asked("You are a pirate.", 2)]
    assert not clean(other, False, settings(near_duplicates=0.8), {}, lambda *_: None).rejects


def test_equal_pairs_are_found_however_many_pairs_a_prompt_has() -> None:
    pairs = [candidate("p", f"{LONG} number {k}", f"reply {k}", row=k) for k in range(2500)]
    again = [pair._replace(chosen=pair.chosen.upper(), row=9000 + pair.row) for pair in pairs[:50]]
    assert reasons(cleaned(pairs + again)) == ["duplicate"] * 50


def test_nearly_equal_pairs_keep_the_first() -> None:
    pairs = [
        candidate("p", LONG, "no"),
        candidate("p", LONG + " they say", "No.", row=2),
        candidate("p", LONG.replace("noon", "midday"), "no", row=3),
        candidate("p", LONG.split("and", maxsplit=1)[0], "no", row=4),
        candidate("p", "no", "something else", row=5),
    ]
    result = cleaned(pairs, near_duplicates=0.8)
    assert [pair.row for pair, _, _ in result.rejects] == [2, 3]
    assert reasons(result) == ["near_duplicate"] * 2
    assert len(cleaned(pairs).rejects) == 0, "without near_duplicates only equal pairs are left out"


def test_pairs_about_a_small_difference_stay() -> None:
    """A chosen answer with several slightly damaged copies of it: each pair says something else."""
    damaged = [LONG.replace(word, "wrong") for word in ("harbour", "heavy", "noon")]
    result = cleaned([candidate("p", LONG, text, row=k) for k, text in enumerate(damaged)], near_duplicates=0.8)
    assert not result.rejects


def test_nearly_equal_prompts_are_one_group_whose_pairs_are_compared() -> None:
    pairs = [candidate(LONG, "yes", "no"), candidate(LONG + " please", "Yes!", "No.", row=2)]
    assert pairs[0].prompt_id != pairs[1].prompt_id
    result = clean(pairs, False, settings(near_duplicates=0.8), {}, lambda *_: None)
    assert reasons(result) == ["near_duplicate"]
    other = [candidate(LONG, "yes", "no"), candidate("and now something entirely different", "yes", "no", row=2)]
    assert not clean(other, False, settings(near_duplicates=0.8), {}, lambda *_: None).rejects, (
        "linked through others only"
    )


def test_training_pairs_of_a_benchmark_are_left_out_and_eval_pairs_stay() -> None:
    pairs = [candidate(f"p{k}", "a", "b", row=k) for k in range(40)]
    result = cleaned(pairs, {p.prompt_id for p in pairs})
    assert not result.train
    assert result.eval
    assert set(reasons(result)) == {"in_benchmark"}


def test_prompts_that_differ_in_case_alone_do_not_alternate() -> None:
    pairs = [
        candidate(prompt, f"good {k}", f"bad {k}", dataset, k)
        for k, (prompt, dataset) in enumerate(product(("What is it?", "what IS it"), ("d", "e")))
    ]
    kept = cleaned(pairs, held_out=0.0, weights={"d": 1.0, "e": 2.0}).train
    assert len(kept) == 4
    assert [len(list(group)) for _, group in groupby(pair.prompt for pair in kept)] == [2, 2]


def test_weight_below_one_samples_training_prompts_only() -> None:
    pairs = [candidate(f"p{k}", "a", "b", row=k) for k in range(2000)]
    everything, half = cleaned(pairs), cleaned(pairs, weights={"d": 0.5})
    assert len(half.eval) == len(everything.eval)
    assert 0.45 < len(half.train) / len(everything.train) < 0.55


def test_result_does_not_depend_on_the_order_of_rows() -> None:
    pairs = [candidate("p", "a", "b"), candidate("p", "a", "b", row=2), candidate("q", "c", "d", row=3)]
    results = [cleaned(list(order)) for order in permutations(pairs)]
    assert all(result == results[0] for result in results)


def test_a_prompt_with_thousands_of_pairs_is_cleaned_in_seconds() -> None:
    """Work must not grow with the square of the pairs of a prompt."""
    words = LONG.split()
    pairs = [candidate("p", f"{LONG} {k} {words[k % 20]}", f"answer {k} is none", row=k) for k in range(4000)]
    started = time.process_time()
    result = cleaned(pairs, near_duplicates=0.8)
    assert len(result.train) + len(result.eval) + len(result.rejects) == 4000
    assert time.process_time() - started < 20


ROWS = st.lists(
    st.tuples(
        st.integers(0, 12),
        st.sampled_from("xyz"),
        st.sampled_from("uvwx"),
        st.booleans(),
        st.sampled_from([1.0, 1.0, 0.5]),
        st.sampled_from([1, 1, 2]),
    ),
    max_size=40,
)


@hypothesis_settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, weight=st.sampled_from([0.5, 1.0, 3.0]), shards=st.sampled_from([1, 3]))
def test_a_shard_holds_what_cleaning_its_groups_gives(
    tmp_path: Path, rows: list[tuple[int, str, str, bool, float, int]], weight: float, shards: int
) -> None:
    """The shards are written in columns; here group by group."""
    pairs = [
        candidate(f"{LONG} {chosen * 3} {number}", chosen, rejected, "d" if of_d else "e", 2 * row, count)._replace(
            margin=0.5, confidence=confidence
        )
        for row, (number, chosen, rejected, of_d, confidence, count) in enumerate(rows)
    ]
    rules = settings(weights={"d": weight, "e": 1.0}, near_duplicates=0.8)
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    manifests = []
    for dataset in ("d", "e"):
        (folder / dataset).mkdir()
        writer = CandidateWriter(folder / dataset, 0, 0)
        own = [pair for pair in pairs if pair.dataset == dataset]
        for pair in own:
            writer.add(pair)
        writer.close()
        manifests.append(candidates_manifest(folder / dataset, len(own), writer.characters))
    shared = GroupSettings(
        caps={}, eval_fraction=0.3, seed=1, max_reject_fraction=1, near_duplicates=0.8, decontamination=None
    )
    (folder / "prompts").mkdir()
    write_manifest(folder / "prompts", group_prompts("m", shared, manifests, [], folder / "prompts"))
    groups = PromptGroups.load(folder / "prompts")
    expected: dict[str, list[Pair]] = {"train": [], "eval": []}
    rejected = []
    outcomes = RowOutcomes(["d", "e"])
    pairs.sort(key=lambda pair: (groups.group_of(pair.prompt_id), pair.order))
    for group, members in groupby(pairs, key=lambda pair: groups.group_of(pair.prompt_id)):
        held_out = bool(groups.are_held_out(np.array([group], dtype=np.uint64))[0])
        result = clean(list(members), held_out, rules, {}, lambda *_: None)
        expected["train"] += [pair_of(pair, rules.weights[pair.dataset]) for pair in result.train]
        expected["eval"] += [pair_of(pair, 1.0) for pair in result.eval]
        rejected += [(row, reason, detail) for pair, reason, detail in result.rejects for _, row in pair.sources]
        for pair in result.train + result.eval:
            outcomes.add(pair)
        for pair, reason, _ in result.rejects:
            outcomes.add(pair, reason)
    outcomes.save(folder / "rows.npy")
    found: dict[str, list[Pair]] = {"train": [], "eval": []}
    reasons_found = []
    total = PairCounts()
    for shard in range(shards):
        out = folder / f"out-{shard}"
        own_rules = rules.replace(shard=shard, shards=shards)
        manifest = clean_shard(own_rules, folder / "prompts" / "manifest.json", manifests, out)
        total += manifest.statistics
        for split, of_split in found.items():
            of_split += read_typed_rows(out / split, Pair)
        reasons_found += [(row["row"], row["reason"], row["detail"]) for row in read_rows(out / "rejects.parquet")]
    assert found == expected
    assert reasons_found == rejected
    notes = [folder / f"out-{shard}" / "rows.npy" for shard in range(shards)]
    assert total_of_rows(notes, ["d", "e"]) == total_of_rows([folder / "rows.npy"], ["d", "e"])
    counted = PairCounts()
    for split, of_split in expected.items():
        counted.add(of_split, split)
    assert total == counted

from itertools import permutations
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from rewardline.artifacts import canonical
from rewardline.pairs import Candidate, Cleaned, Source, clean, normalize, position, prompt_identity
from rewardline.spill import Spill, read_bucket


def candidate(prompt: str, chosen: str, rejected: str, dataset: str = "d", row: int = 1) -> Candidate:
    turns = [{"role": "user", "content": prompt}]
    return Candidate(
        Source(dataset, "f", row), prompt_identity(turns), canonical(turns), chosen, rejected, None, 1.0, "s"
    )


def cleaned(pairs: list[Candidate], **options: object) -> Cleaned:
    settings = {"seed": 1, "eval_below": 0.3, "weights": {"d": 1.0, "e": 1.0}, "benchmark_prompts": set(), **options}
    return clean(pairs, **settings)  # type: ignore[arg-type]


def reasons(result: Cleaned) -> list[str]:
    return sorted(reason for _, reason, _ in result.rejects)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("xyz"), st.sampled_from("uvw")), max_size=30))
def test_every_pair_is_kept_or_rejected_and_no_prompt_is_on_both_sides(rows: list[tuple[str, str, str]]) -> None:
    pairs = [candidate(p, c, r, row=k) for k, (p, c, r) in enumerate(rows)]
    result = cleaned(pairs)
    assert len(result.train) + len(result.eval) + len(result.rejects) == len(pairs)
    assert not {p.prompt_id for p in result.train} & {p.prompt_id for p in result.eval}
    kept = [p.pair_id for p in result.train + result.eval]
    assert len(kept) == len(set(kept))


def test_split_does_not_move_when_data_is_added() -> None:
    few = [candidate(f"prompt {k}", "a", "b", row=k) for k in range(50)]
    more = few + [candidate(f"other {k}", "a", "b", row=100 + k) for k in range(200)]
    before, after = cleaned(few), cleaned(more)
    assert {p.prompt_id for p in before.eval} <= {p.prompt_id for p in after.eval}
    assert {p.prompt_id for p in before.train} <= {p.prompt_id for p in after.train}


def test_prompts_that_differ_in_case_and_punctuation_stand_on_one_side() -> None:
    variants = ["What is TEA?", "what is tea", "What  is tea!!", "\uff57hat is tea"]
    assert len({candidate(text, "a", "b").prompt_id for text in variants}) == 1
    assert candidate("What is coffee?", "a", "b").prompt_id != candidate("What is tea?", "a", "b").prompt_id


def test_prompts_of_punctuation_alone_stay_apart() -> None:
    assert normalize("???") != normalize("!!!")


def test_roles_belong_to_the_prompt() -> None:
    one = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    two = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    assert prompt_identity(one) != prompt_identity(two)


def test_duplicates_keep_the_first_and_name_it() -> None:
    result = cleaned([candidate("p", "a", "b", row=7), candidate("p", "a", "b", "e", row=9)])
    assert reasons(result) == ["duplicate"]
    assert "d f:7" in result.rejects[0][2]


def test_contradictions_go_entirely() -> None:
    result = cleaned([candidate("p", "a", "b"), candidate("p", "b", "a", row=2), candidate("p", "a", "c", row=3)])
    assert reasons(result) == ["contradiction", "contradiction"]
    assert [(p.chosen, p.rejected) for p in result.train + result.eval] == [("a", "c")]


def test_training_pairs_of_a_benchmark_go_and_eval_pairs_stay() -> None:
    pairs = [candidate(f"p{k}", "a", "b", row=k) for k in range(40)]
    result = cleaned(pairs, benchmark_prompts={p.prompt_id for p in pairs})
    assert not result.train
    assert result.eval
    assert set(reasons(result)) == {"in_benchmark"}


def test_weight_below_one_samples_training_prompts_only() -> None:
    pairs = [candidate(f"p{k}", "a", "b", row=k) for k in range(2000)]
    whole, half = cleaned(pairs), cleaned(pairs, weights={"d": 0.5})
    assert len(half.eval) == len(whole.eval)
    assert 0.45 < len(half.train) / len(whole.train) < 0.55


def test_result_does_not_depend_on_the_order_of_rows() -> None:
    pairs = [candidate("p", "a", "b"), candidate("p", "a", "b", row=2), candidate("q", "c", "d", row=3)]
    results = [cleaned(list(order)) for order in permutations(pairs)]
    assert all(result == results[0] for result in results)


def test_position_is_uniform_enough() -> None:
    places = [position("seed", str(k)) for k in range(4000)]
    assert 0.47 < sum(place < 0.5 for place in places) / 4000 < 0.53


def test_buckets_give_back_everything_in_order_of_prompt(tmp_path: Path) -> None:
    pairs = [candidate(f"p{k}", "a", "b", row=k) for k in range(3000)]
    spill = Spill(tmp_path / "spill", rows=3000, rows_per_bucket=700)
    for pair in pairs:
        spill.add(pair)
    buckets = [read_bucket(path) for path in spill.buckets()]
    assert len(buckets) == 5
    assert sorted((p for b in buckets for p in b), key=lambda p: p.source.row) == pairs
    highest = [max(p.prompt_id for p in b) for b in buckets]
    lowest = [min(p.prompt_id for p in b) for b in buckets]
    assert all(high < low for high, low in zip(highest, lowest[1:], strict=False))

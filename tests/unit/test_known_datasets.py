"""Each public data set of the table, by rows in its shape: what comes out, and what must not."""

from pathlib import Path
from typing import Any

import pytest

from rewardline import config
from rewardline.formats import GROUPED, OPTIONS, Pair, Reject, check, converter, grouping
from rewardline.formats_groups import GroupReject

Row = dict[str, Any]
ROOT = Path(__file__).parents[2]
SCHEMA = config.load_schema(ROOT / "config" / "schema.yaml")
KNOWN = config.load_known(ROOT / "config" / "datasets.yaml")
DIALOGUE = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Q\n\nAssistant:"


def said(*texts: str) -> list[Row]:
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]


def entry(hub: str, **keys: Any) -> Row:
    """An entry of the configuration with this hub data set, as the stages see it."""
    chosen: Row = {
        "datasets": {"d": {"hub": hub, "revision": "main", **keys}, "other": {"demo": {}}},
        "mixtures": {"m": {"datasets": {"d": 1.0}}},
        "models": {"x": {"path": "owner/name"}},
        "runs": {"r": {"mixture": "m", "model": "x"}},
    }
    result: Row = config.resolve(chosen, SCHEMA, KNOWN)["datasets"]["d"]
    return result


def pairs_of(hub: str, rows: list[Row], **keys: Any) -> tuple[list[Pair], list[str]]:
    """The pairs of rows, and the reasons why rows or pairs are left out."""
    shape = entry(hub, **keys)
    options = {name: shape[name] for name in OPTIONS}
    found: list[Pair] = []
    left: list[str] = []
    if shape["format"] in GROUPED:
        group = grouping(shape["format"], shape["fields"], **options)
        groups: dict[str, list[Row]] = {}
        for row in rows:
            groups.setdefault(group.key(row), []).append(row)
        for members in groups.values():
            try:
                pairs = group.convert(members)
            except GroupReject as reject:
                left += [each.reason for each in reject.unused.values()]
            else:
                found += pairs
                left += [each.reason for each in pairs.unused.values()]
        return found, left
    convert = converter(shape["format"], shape["fields"], **options)
    for row in rows:
        try:
            found += convert(row)
        except Reject as reject:
            left.append(reject.reason)
    return found, left


def steer(text: str, helpfulness: int, verbosity: int) -> Row:
    return {
        "prompt": "Q",
        "response": text,
        "helpfulness": helpfulness,
        "correctness": 3,
        "coherence": 4,
        "complexity": 2,
        "verbosity": verbosity,
    }


def completion(text: str, score: float) -> Row:
    rating = {"Rating": str(int(score)), "Rationale": "..."}
    return {
        "annotations": {"helpfulness": rating, "honesty": rating},
        "custom_system_prompt": "Be helpful.",
        "model": "m",
        "principle": "helpfulness",
        "response": text,
        "critique": "Good.",
        "overall_score": score,
        "fine-grained_score": score,
    }


def compared(one: float, two: float) -> Row:
    return {
        "question": {"dataset": "eli5", "id": "1", "full_text": "Q"},
        "quotes_0": {"title": [], "extract": []},
        "answer_0": "A",
        "tokens_0": {"prefix": [], "completion": []},
        "score_0": one,
        "quotes_1": {"title": [], "extract": []},
        "answer_1": "B",
        "tokens_1": {"prefix": [], "completion": []},
        "score_1": two,
    }


def shp(labels: int, one: int, two: int) -> Row:
    return {
        "post_id": "p",
        "domain": "askacademia_train",
        "upvote_ratio": 0.99,
        "history": "Q",
        "human_ref_A": "A",
        "human_ref_B": "B",
        "labels": labels,
        "score_A": one,
        "score_B": two,
        "score_ratio": max(one, two) / min(one, two),
        "seconds_difference": 9.0,
    }


def tldr(choice: int, post: str | None = "Q") -> Row:
    summaries = [{"text": text, "policy": "sup", "note": None} for text in (" A", " B")]
    info = {"id": "1", "post": post, "title": "T", "subreddit": "s", "site": None, "article": None}
    return {"info": info, "summaries": summaries, "choice": choice, "worker": "w", "batch": "b", "extra": {}}


def oasst(name: str, parent: str | None, text: str, rank: float | None) -> Row:
    return {
        "message_id": name,
        "parent_id": parent,
        "user_id": "u",
        "text": text,
        "role": "prompter" if parent is None else "assistant",
        "lang": "en",
        "review_count": 3,
        "review_result": True,
        "deleted": False,
        "rank": rank,
        "synthetic": False,
        "message_tree_id": "t",
        "tree_state": "ready_for_export",
        "labels": {"name": ["quality"], "value": [0.7], "count": [3]},
    }


BARE = {"prompt": "Q", "chosen": "A", "rejected": "B"}
WHOLE = {"chosen": said("Q", "A"), "rejected": said("Q", "B")}
STATIC = {"prompt": DIALOGUE, "response": " A", "chosen": " A", "rejected": " B"}
ARENA = {"conversation_a": said("Q", "A"), "conversation_b": said("Q", "B"), "model_a": "m", "model_b": "n", "turn": 1}
LMSYS = {"id": 1, "model_a": "m", "model_b": "n", "prompt": '["Q"]', "response_a": '["A"]', "response_b": '["B"]'}
# By data set: rows, the pairs (chosen, rejected, margin) that they give, and why others are left out.
SHAPES: dict[str, tuple[list[Row], list[tuple[str, str, float | None]], list[str]]] = {
    "Dahoas/rm-static": ([STATIC, STATIC | {"rejected": " A"}], [("A", "B", None)], ["identical"]),
    "Dahoas/full-hh-rlhf": ([STATIC, STATIC | {"rejected": ""}], [("A", "B", None)], ["empty_answer"]),
    "Dahoas/synthetic-instruct-gptj-pairwise": ([BARE], [("A", "B", None)], []),
    "yitingxie/rlhf-reward-datasets": (
        [{"prompt": "Human: Hi\n\nAssistant: Hello.\n\nHuman: Q\n\nAssistant:", "chosen": " A", "rejected": " B"}],
        [("A", "B", None)],
        [],
    ),
    "openai/webgpt_comparisons": (
        [compared(0.5, -0.5), compared(-1, 1), compared(0, 0)],
        [("A", "B", 1.0), ("B", "A", 2.0)],
        ["tie"],
    ),
    "stanfordnlp/SHP": ([shp(1, 8, 2), shp(0, 2, 3)], [("A", "B", 4.0), ("B", "A", 1.5)], []),
    "Anthropic/hh-rlhf": (
        [{"chosen": DIALOGUE + " A", "rejected": DIALOGUE + " B"}, {"chosen": DIALOGUE, "rejected": DIALOGUE + " B"}],
        [("A", "B", None)],
        ["empty_answer"],
    ),
    "Skywork/Skywork-Reward-Preference-80K-v0.1": ([WHOLE | {"source": "magpie"}], [("A", "B", None)], []),
    "Skywork/Skywork-Reward-Preference-80K-v0.2": ([WHOLE | {"source": "magpie"}], [("A", "B", None)], []),
    "HuggingFaceH4/ultrafeedback_binarized": (
        [
            WHOLE
            | {"prompt": "Q", "prompt_id": "1", "messages": said("Q", "A"), "score_chosen": 8, "score_rejected": low}
            for low in (6.5, 8.0)
        ],
        [("A", "B", 1.5)],
        ["small_margin"],
    ),
    "argilla/ultrafeedback-binarized-preferences-cleaned": (
        [WHOLE | {"source": "s", "prompt": "Q", "chosen-rating": 5, "chosen-model": "m", "rejected-rating": 3.5}],
        [("A", "B", 1.5)],
        [],
    ),
    "allenai/llama-3.1-tulu-3-8b-preference-mixture": (
        [WHOLE | {"id": "1", "source": "s", "prompt": "Q", "chosen_rating": 5}],
        [("A", "B", None)],
        [],
    ),
    "argilla/Capybara-Preferences": (
        [WHOLE | {"source": "s", "rating_chosen": 5, "rating_rejected": 4, "chosen_model": "m", "rejected_model": "n"}],
        [("A", "B", 1.0)],
        [],
    ),
    "Intel/orca_dpo_pairs": (
        [{"system": "", "question": "Q", "chosen": "A", "rejected": "B"}],
        [("A", "B", None)],
        [],
    ),
    "lvwerra/stack-exchange-paired": (
        [{"qid": 1, "question": "Q", "date": "2020", "metadata": [], "response_j": "A", "response_k": "B"}],
        [("A", "B", None)],
        [],
    ),
    "openbmb/UltraInteract_pair": (
        [
            {"task": "Coding", "dataset": "d", "trajectory": [{"from": "user", "value": "Q"}], "id": "1"}
            | {"chosen": "A", "rejected": "B", "parent_id": "0"}
        ],
        [("A", "B", None)],
        [],
    ),
    "xinlai/Math-Step-DPO-10K": (
        [
            {"prompt": "Q", "initial_reason_steps": "First,", "chosen": "so 4", "rejected": "so 5", "answer": "4"}
            | {"full_chosen": "First, so 4", "full_rejected": "First, so 5"}
        ],
        [("First, so 4", "First, so 5", None)],
        [],
    ),
    "nvidia/HelpSteer3": (
        [
            {"domain": "code", "language": "python", "context": said("Q"), "response1": "A", "response2": "B"}
            | {"overall_preference": value, "individual_preference": []}
            for value in (-3, 1, 0)
        ],
        [("A", "B", 3.0), ("B", "A", 1.0)],
        ["tie"],
    ),
    "nvidia/HelpSteer2#preference": (
        [
            {"split": "train", "prompt": "Q", "response_1": "A", "response_2": "B", "preference_strength": value}
            | {"preference_statement": "...", "preference_elaboration": "..."}
            for value in (2, -1, 0)
        ],
        [("B", "A", 2.0), ("A", "B", 1.0)],
        ["tie"],
    ),
    "PKU-Alignment/PKU-SafeRLHF": (
        [
            {"prompt": "Q", "response_0": "A", "response_1": "B", "is_response_0_safe": True}
            | {"better_response_id": better, "safer_response_id": 0}
            for better in (0, 1)
        ],
        [("A", "B", None), ("B", "A", None)],
        [],
    ),
    "openai/summarize_from_feedback": (
        [tldr(0), tldr(1), tldr(0, None)],
        [("A", "B", None), ("B", "A", None)],
        ["not_text"],
    ),
    "lmsys/chatbot_arena_conversations": (
        [ARENA | {"winner": winner} for winner in ("model_a", "model_b", "tie", "tie (bothbad)")],
        [("A", "B", None), ("B", "A", None)],
        ["tie", "tie"],
    ),
    "lmsys/lmsys-arena-human-preference-55k": (
        [
            LMSYS | {"winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0},
            LMSYS | {"winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0},
            LMSYS | {"winner_model_a": 0, "winner_model_b": 0, "winner_tie": 1},
            LMSYS | {"winner_model_a": 0, "winner_model_b": 0, "winner_tie": 0},
            LMSYS
            | {"prompt": '["Q", "R"]', "response_a": '["A", "C"]', "response_b": '["B", "D"]'}
            | {"winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0},
        ],
        [("A", "B", None), ("B", "A", None)],
        ["tie", "bad_preference", "several_turns"],
    ),
    "tatsu-lab/alpaca_farm": (
        [
            {
                "instruction": "Q",
                "input": "",
                "output_1": "A",
                "output_2": "B",
                "preference": value,
                "raw_preference": 1,
            }
            for value in (1, 2, 0)
        ],
        [("A", "B", None), ("B", "A", None)],
        ["tie"],
    ),
    "openbmb/UltraFeedback": (
        [
            {"source": "flan", "instruction": "Q", "models": ["m", "n", "o"], "correct_answers": ["None"]}
            | {
                "incorrect_answers": ["None"],
                "completions": [completion("A", 4), completion("B", 2), completion("C", 4)],
            },
        ],
        [("A", "B", 2.0), ("C", "B", 2.0)],
        [],
    ),
    "berkeley-nest/Nectar": (
        [
            {"prompt": DIALOGUE, "turns": 2, "num_responses": 3, "source": ["s"], "good_natured": True}
            | {
                "answers": [
                    {"answer": text, "model": "m", "rank": rank} for text, rank in zip("BAC", (2, 1, 3), strict=True)
                ]
            }
        ],
        [("A", "B", None), ("A", "C", None), ("B", "C", None)],
        [],
    ),
    "HuggingFaceH4/stack-exchange-preferences": (
        [
            {"qid": 1, "question": "Q", "date": "2020", "metadata": []}
            | {
                "answers": [
                    {"answer_id": n, "author": "a", "author_id": 5, "pm_score": n, "selected": False, "text": text}
                    for n, text in enumerate("BA")
                ]
            }
        ],
        [("A", "B", 1.0)],
        [],
    ),
    "nvidia/HelpSteer2": ([steer("A", 3, 1), steer("B", 3, 2)], [("A", "B", 0.4)], []),
    "nvidia/HelpSteer": (
        [steer("A", 3, 1), steer("B", 1, 2), steer("C", 3, 0)],
        [("A", "B", 2.0), ("C", "B", 2.0)],
        [],
    ),
    "PKU-Alignment/BeaverTails": (
        [
            {"prompt": prompt, "response": text, "category": {"violence": False}, "is_safe": safe}
            for prompt, text, safe in [("Q", "A", True), ("Q", "B", False), ("R", "A", True)]
        ],
        [("A", "B", None)],
        ["one_sided"],
    ),
    "OpenAssistant/oasst1": (
        [oasst("q", None, "Q", None), oasst("b", "q", "B", 1.0), oasst("a", "q", "A", 0.0), oasst("c", "q", "C", None)],
        [("A", "B", None)],
        ["no_rank"],
    ),
    "OpenAssistant/oasst2": (
        [oasst("q", None, "Q", None), oasst("b", "q", "B", 1.0), oasst("a", "q", "A", 0.0)],
        [("A", "B", None)],
        [],
    ),
    "allenai/reward-bench": (
        [BARE | {"chosen_model": "m", "rejected_model": "n", "subset": "alpacaeval-easy", "id": 1}],
        [("A", "B", None)],
        [],
    ),
    "allenai/reward-bench-2": (
        [{"prompt": "Q", "chosen": ["A"], "rejected": ["B", "C", "D"], "subset": "Ties", "id": "1", "num_correct": 1}],
        [("A", "B", None), ("A", "C", None), ("A", "D", None)],
        [],
    ),
    "THU-KEG/RM-Bench": (
        [{"id": 1, "prompt": "Q", "chosen": ["A", "C"], "rejected": ["B", "D"], "domain": "chat"}],
        [("A", "B", None), ("A", "D", None), ("C", "B", None), ("C", "D", None)],
        [],
    ),
    "ScalerLab/JudgeBench": (
        [
            {"pair_id": "1", "original_id": "2", "source": "mmlu", "question": "Q", "response_model": "m"}
            | {"response_A": "A", "response_B": "B", "label": label}
            for label in ("A>B", "B>A")
        ],
        [("A", "B", None), ("B", "A", None)],
        [],
    ),
}


@pytest.mark.parametrize("hub", KNOWN)
def test_rows_of_a_known_data_set(hub: str) -> None:
    rows, expected, left = SHAPES[hub]
    found, reasons = pairs_of(hub, rows)
    assert sorted(reasons) == sorted(left)
    assert sorted((pair.chosen, pair.rejected) for pair in found) == sorted(item[:2] for item in expected)
    for pair in found:
        margin = next(item[2] for item in expected if item[:2] == (pair.chosen, pair.rejected))
        assert pair.margin == (margin if margin is None else pytest.approx(margin))
        assert pair.prompt[-1] == {"role": "user", "content": "Q"}


def test_every_entry_is_sound() -> None:
    for hub, keys in KNOWN.items():
        shape = entry(hub)
        check(shape["format"], shape["fields"], **{name: shape[name] for name in OPTIONS})
        assert "#" not in shape["hub"] and shape["format"] != "auto" and "revision" not in keys


def test_an_entrys_own_keys_win() -> None:
    assert entry("stanfordnlp/SHP")["fields"] == {"prompt": "history", "margin": "score_ratio", "subset": "domain"}
    own = entry("stanfordnlp/SHP", fields={"odds": "score_ratio"}, min_margin=2, split="test")
    assert own["fields"]["odds"] == "score_ratio" and own["fields"]["prompt"] == "history"
    assert (own["min_margin"], own["split"]) == (2, "test")
    (pair,), left = pairs_of(
        "stanfordnlp/SHP", [shp(1, 8, 2), shp(0, 2, 3)], fields={"odds": "score_ratio"}, min_margin=2
    )
    assert (pair.chosen, pair.confidence, pair.margin, left) == ("A", 0.8, 4.0, ["small_margin"])
    other = entry("nvidia/HelpSteer2#preference", format="auto")
    assert (other["hub"], other["data_dir"], other["fields"], other["values"]) == (
        "nvidia/HelpSteer2",
        "preference",
        {},
        {},
    )
    ties, left = pairs_of("openai/webgpt_comparisons", [compared(0, 0)], ties="keep")
    assert [pair.confidence for pair in ties] == [0.5] and not left
    assert entry("HuggingFaceH4/ultrafeedback_binarized", min_margin=None)["min_margin"] is None
    assert entry("owner/unknown")["format"] == "auto"


def test_a_join_names_a_data_set() -> None:
    with pytest.raises(config.ConfigError, match=r"datasets\.d\.join\.a\.dataset: 'othr' is not defined; did you mean"):
        entry("owner/name", join={"a": {"dataset": "othr", "key": "id"}})
    with pytest.raises(config.ConfigError, match="key"):
        entry("owner/name", join={"a": {"dataset": "other"}})
    assert entry("owner/name", join={"a": {"dataset": "other", "key": "id"}})["join"]["a"]["value"] is None

"""Rows in the shapes of public preference datasets."""

from typing import Any

Row = dict[str, Any]
DIALOGUE = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Q\n\nAssistant:"


def user(text: str) -> Row:
    return {"role": "user", "content": text}


def assistant(text: str) -> Row:
    return {"role": "assistant", "content": text}


def talk(*texts: str) -> list[Row]:
    return [(user, assistant)[n % 2](text) for n, text in enumerate(texts)]


def shared(*texts: str) -> list[Row]:
    return [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]


def parts(*texts: str) -> list[Row]:
    return [{**turn, "content": [{"type": "text", "text": turn["content"], "image": None}]} for turn in talk(*texts)]


BARE = {"chosen": "A", "rejected": "B"}
WHOLE = {"chosen": talk("Q", "A"), "rejected": talk("Q", "B")}
# What it is; a row; its format; prompt and answers of the pairs.
CERTAIN: list[tuple[str, Row, str, list[tuple[str, str, str]]]] = [
    (
        "HH-RLHF",
        {"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: B"},
        "transcript",
        [],
    ),
    ("rm-static", {"prompt": "\n\nHuman: Q\n\nAssistant:", "response": " A"} | BARE, "pairs", []),
    ("orca_dpo_pairs", {"system": "", "question": "Q"} | BARE, "pairs", []),
    (
        "distilabel orca",
        {"system": "", "input": "Q", "generations": ["B", "A"], "order": ["rejected", "chosen"], "rating": [9, 8]}
        | {"labelling_prompt": [user("Judge.")], "rationale": "...", "status": "unchanged", "in_gsm8k_train": False}
        | BARE,
        "pairs",
        [],
    ),
    ("stack-exchange-paired", {"qid": 5, "question": "Q", "response_j": "A", "response_k": "B"}, "pairs", []),
    ("code preferences", {"input": "Q", "accepted": "A", "rejected": "B"}, "pairs", []),
    ("chosen_response", {"instruction": "Q", "chosen_response": "A", "rejected_response": "B"}, "pairs", []),
    (
        "RewardBench",
        {"prompt": "Q", "chosen_model": "m", "rejected_model": "n", "subset": "s", "id": 1} | BARE,
        "pairs",
        [],
    ),
    ("dialogue sets", {"prompt": "Q", "question": "Q", "id": 1} | BARE, "pairs", []),
    ("UltraInteract", {"trajectory": shared("Q"), "id": "1", "parent_id": "0"} | BARE, "pairs", []),
    ("PKU single", {"prompt": {"text": "Q"}} | BARE, "pairs", []),
    ("Skywork", {"source": "s"} | WHOLE, "messages", []),
    ("ORPO mixtures", {"source": "s", "prompt": "Q", "question": ""} | WHOLE, "messages", []),
    (
        "Magpie DPO",
        {"uuid": "1", "instruction": "Q", "responses": ["A", "B"], "task_category": "x"} | WHOLE,
        "messages",
        [],
    ),
    (
        "Snorkel",
        {"prompt": "Q", "all_generated_responses": ["A", "B"], "all_rm_scores": [1.0, 0.5]} | WHOLE,
        "messages",
        [],
    ),
    ("UltraFeedback binarised", {"prompt": "Q", "messages": talk("Q", "A"), "score_chosen": 8} | WHOLE, "messages", []),
    (
        "lists of one message",
        {"prompt": [user("Q")], "chosen": [assistant("A")], "rejected": [assistant("B")]},
        "messages",
        [],
    ),
    (
        "ShareGPT",
        {
            "conversations": shared("Q"),
            "chosen": {"from": "gpt", "value": "A"},
            "rejected": {"from": "gpt", "value": "B"},
        },
        "messages",
        [],
    ),
    ("content parts", {"chosen": parts("Q", "A"), "rejected": parts("Q", "B")}, "messages", []),
    (
        "arena",
        {"conversation_a": talk("Q", "A"), "conversation_b": talk("Q", "B"), "winner": "model_a"},
        "preference",
        [],
    ),
    (
        "arena with parts",
        {"model_a": "m", "model_b": "n", "winner": "model_b"}
        | {"conversation_a": parts("Q", "B"), "conversation_b": parts("Q", "A"), "full_conversation": []},
        "preference",
        [],
    ),
    (
        "arena, winner by name",
        {"model_a": "m-1", "model_b": "n-2", "winner": "n-2", "prompt": "Q", "response_a": "B", "response_b": "A"},
        "preference",
        [],
    ),
    (
        "arena, one-hot",
        {"id": 1, "model_a": "m", "model_b": "n", "prompt": '["Q"]', "response_a": '["A"]', "response_b": '["B"]'}
        | {"winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0},
        "preference",
        [],
    ),
    (
        "Unified-Feedback",
        {"conv_A": shared("Q", "A"), "conv_B": shared("Q", "B"), "conv_A_rating": 2.0, "conv_B_rating": 1.0},
        "preference",
        [],
    ),
    (
        "AlpacaFarm",
        {"instruction": "Q", "input": "", "output_1": "B", "output_2": "A", "preference": 2, "annotator": 5},
        "preference",
        [],
    ),
    (
        "AlpacaEval",
        {"instruction": "Q", "output_1": "A", "output_2": "B", "generator_1": "m", "preference": 1.25},
        "preference",
        [],
    ),
    (
        "JudgeBench",
        {"pair_id": "1", "source": "mmlu", "question": "Q", "response_model": "m"}
        | {"response_A": "B", "response_B": "A", "label": "B>A"},
        "preference",
        [],
    ),
    ("PKU-SafeRLHF", {"prompt": "Q", "response_0": "B", "response_1": "A", "better_response_id": 1}, "preference", []),
    (
        "SHP",
        {"history": "Q", "human_ref_A": "A", "human_ref_B": "B", "labels": 1, "score_ratio": 2.0},
        "preference",
        [],
    ),
    (
        "HelpSteer2",
        {"prompt": "Q", "response_1": "A", "response_2": "B", "preference_strength": -2, "preference_statement": "..."},
        "preference",
        [],
    ),
    (
        "HelpSteer3",
        {"context": talk("Q"), "response1": "A", "response2": "B", "overall_preference": -3},
        "preference",
        [],
    ),
    (
        "WebGPT",
        {"question": {"dataset": "eli5", "id": "1", "full_text": "Q"}, "answer_0": "B", "answer_1": "A"}
        | {"score_0": -0.5, "score_1": 0.5, "quotes_0": {}, "quotes_1": {}},
        "preference",
        [],
    ),
    ("label by name", {"prompt": "Q", "response_1": "B", "response_2": "A", "label": "response_2"}, "preference", []),
    ("choice by number", {"prompt": "Q", "response_0": "A", "response_1": "B", "choice": 0}, "preference", []),
    (
        "OpenAI's preferences",
        {"input": {"messages": talk("Q"), "tools": [], "parallel_tool_calls": True}}
        | {"preferred_output": [assistant("A")], "non_preferred_output": [assistant("B")]},
        "messages",
        [],
    ),
    ("one answer rejected", {"messages": talk("Q", "A"), "rejected_response": "B"}, "messages", []),
    ("messages as prompt", {"messages": talk("Q"), "id": 1} | BARE, "pairs", []),
    ("many rejected", {"input": "Q", "accepted": "A", "rejected": ["B", "C"]}, "good_bad", [("Q", "A", "C")]),
    (
        "left and right",
        {"instruction": "Q", "input": "", "left_answer": "B", "right_answer": "A", "result": "right", "worker_id": "w"},
        "preference",
        [],
    ),
    (
        "transcripts",
        {
            "response1": "\n\nHuman: Q\n\nAssistant: B",
            "response2": "\n\nHuman: Q\n\nAssistant: A",
            "winner": "response2",
        },
        "preference",
        [],
    ),
    ("CValues", {"prompt": "Q", "pos_resp": "A", "pos_type": "x", "neg_resp": "B", "neg_type": "y"}, "pairs", []),
    (
        "turns with a text",
        {"context": [{"role": "human", "text": "Q"}]}
        | {"chosen": {"role": "assistant", "text": "A"}, "rejected": {"role": "assistant", "text": "B"}},
        "messages",
        [],
    ),
    ("judges' words", {"prompt": "Q", "response_a": "B", "response_b": "A", "winner": "[[B]]"}, "preference", []),
    (
        "votes",
        {"prompt": "Q", "answer_1": "A", "answer_2": "B", "votes": ["answer_1", "answer_1", "answer_2"]},
        "votes",
        [],
    ),
    (
        "stack-exchange-preferences",
        {"qid": 5, "question": "Q"}
        | {"answers": [{"pm_score": n, "text": text, "author": "x", "selected": True} for n, text in enumerate("BA")]},
        "ranked",
        [],
    ),
    (
        "Nectar",
        {"prompt": "\n\nHuman: Q\n\nAssistant: ", "turns": 1}
        | {"answers": [{"answer": "B", "model": "m", "rank": 2.0}, {"answer": "A", "model": "n", "rank": 1.0}]},
        "ranked",
        [],
    ),
    ("distilabel", {"instruction": "Q", "generations": ["B", "A"], "ratings": [1.0, 4.0]}, "ranked", []),
    (
        "GPT-4-LLM",
        {
            "user_input": "Q",
            "responses_and_scores": [{"response": "A", "source": "m", "score": 8}, {"response": "B", "score": 2}],
        },
        "ranked",
        [],
    ),
    (
        "lists in an object",
        {"question": "Q", "answers": {"text": ["A", "B"], "score": [7, 3], "a_id": ["x", "y"]}},
        "ranked",
        [],
    ),
    (
        "RewardBench 2",
        {"prompt": "Q", "chosen": ["A"], "rejected": ["B", "C"], "num_correct": 1},
        "good_bad",
        [("Q", "A", "C")],
    ),
    (
        "TruthfulQA",
        {"question": "Q", "best_answer": "A", "correct_answers": ["A"], "incorrect_answers": ["B"]},
        "good_bad",
        [],
    ),
    (
        "OASST",
        {"message_tree_id": "1", "tree_state": "ready"}
        | {
            "prompt": {"role": "prompter", "text": "Q"}
            | {
                "replies": [
                    {"role": "assistant", "text": text, "rank": rank, "replies": []} for rank, text in enumerate("AB")
                ]
            }
        },
        "tree",
        [],
    ),
    (
        "a Q of the user",
        {
            "prompt": "Q",
            "chosen": {"content": "A", "role": "assistant"},
            "rejected": {"role": "assistant", "content": "B"},
        },
        "messages",
        [],
    ),
]


GROUPS: list[tuple[str, list[Row], str]] = [
    ("TRL KTO", [{"prompt": "Q", "completion": text, "label": text == "A"} for text in "AB"], "labelled"),
    ("KTO chats", [{"messages": talk("Q", text), "label": text == "A"} for text in "AB"], "labelled"),
    ("KTO ShareGPT", [{"conversations": shared("Q", text), "kto_tag": text == "A"} for text in "AB"], "labelled"),
    ("signs", [{"prompt": "Q", "response": text, "label": 1 if text == "A" else -1} for text in "AB"], "labelled"),
    (
        "thumbs",
        [{"question": "Q", "answer": text, "thumbs": "up" if text == "A" else "down"} for text in "AB"],
        "labelled",
    ),
    (
        "OASST messages",
        [
            {"message_id": name, "parent_id": parent, "message_tree_id": "t", "role": role, "text": text, "rank": rank}
            for name, parent, role, text, rank in [
                ("1", None, "prompter", "Q", None),
                ("2", "1", "assistant", "B", 1.0),
                ("3", "1", "assistant", "A", 0.0),
            ]
        ],
        "tree_messages",
    ),
]


CHECKED = ("MMLU-Pro", "MATH", "GPQA", "MBPP-Plus", "IFEval")
CHECKED_ANSWERS: tuple[list[Row], list[tuple[str, str, float | None]], list[str]] = (
    [
        {
            "question_id": "1",
            "question": "q",
            "choices": ["x", "y"],
            "answer": "x",
            "model_name": "m",
            "mean_score": 0.5,
        }
        | {"prompt": "Q", "response_1": "A", "response_2": "B", "response_3": "C", "scores": [True, False, True]}
    ],
    [("A", "B", 1.0), ("C", "B", 1.0)],
    [],
)


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


def tldr(choice: int, post: str | None = "Q", split: str = "train") -> Row:
    summaries = [{"text": text, "policy": "sup", "note": None} for text in (" A", " B")]
    info = {"id": "1", "post": post, "title": "T", "subreddit": "s", "site": None, "article": None}
    return {"info": info, "summaries": summaries, "choice": choice, "worker": "w", "split": split, "extra": {}}


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


STATIC = {"prompt": DIALOGUE, "response": " A", "chosen": " A", "rejected": " B"}
ARENA = {"conversation_a": talk("Q", "A"), "conversation_b": talk("Q", "B"), "model_a": "m", "model_b": "n", "turn": 1}
LMSYS = {"id": 1, "model_a": "m", "model_b": "n", "prompt": '["Q"]', "response_a": '["A"]', "response_b": '["B"]'}
# By dataset: rows, the pairs (chosen, rejected, margin) that they give, and why others are left out.
SHAPES: dict[str, tuple[list[Row], list[tuple[str, str, float | None]], list[str]]] = {
    "Dahoas/rm-static": ([STATIC, STATIC | {"rejected": " A"}], [("A", "B", None)], ["identical"]),
    "Dahoas/full-hh-rlhf": ([STATIC, STATIC | {"rejected": ""}], [("A", "B", None)], ["empty_answer"]),
    "Dahoas/synthetic-instruct-gptj-pairwise": ([{"prompt": "Q"} | BARE], [("A", "B", None)], []),
    "yitingxie/rlhf-reward-datasets": (
        [
            {"prompt": "\n\nHuman: Q\n\n", "chosen": "Assistant: A", "rejected": "Assistant: B"},
            {"prompt": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Q\n\n"}
            | {"chosen": "Assistant: C", "rejected": "Assistant: D"},
        ],
        [("A", "B", None), ("C", "D", None)],
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
            | {"prompt": "Q", "prompt_id": "1", "messages": talk("Q", "A"), "score_chosen": 8, "score_rejected": low}
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
            {"domain": "code", "language": "python", "context": talk("Q"), "response1": "A", "response2": "B"}
            | {"overall_preference": value, "individual_preference": []}
            for value in (-3, 1, 0)
        ],
        [("A", "B", 3.0), ("B", "A", 1.0)],
        ["tie"],
    ),
    "nvidia/HelpSteer2#preference": (
        [
            {"split": split, "prompt": "Q", "response_1": "A", "response_2": "B", "preference_strength": value}
            | {"preference_statement": "...", "preference_elaboration": "..."}
            for value, split in ((2, "train"), (-1, "train"), (0, "train"), (3, "validation"))
        ],
        [("B", "A", 2.0), ("A", "B", 1.0)],
        ["tie", "filtered"],
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
        [tldr(0), tldr(1), tldr(0, None), tldr(1, "Q", "valid1")],
        [("A", "B", None), ("B", "A", None)],
        ["not_text", "filtered"],
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
        [
            ("A", "B", None),
            ("B", "A", None),
            ("A\n\nHuman: R\n\nAssistant: C", "B\n\nHuman: R\n\nAssistant: D", None),
        ],
        ["tie", "bad_preference"],
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
        [{"prompt": "Q"} | BARE | {"chosen_model": "m", "rejected_model": "n", "subset": "alpacaeval-easy", "id": 1}],
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
    "lmarena-ai/PPE-Human-Preference-V1": (
        [
            {"question_id": "1", "model_a": "m", "model_b": "n", "winner": winner, "language": "English"}
            | {"prompt": "Q", "response_1": "A", "response_2": "B", "is_code": False}
            for winner in ("model_b", "tie (bothbad)")
        ],
        [("B", "A", None)],
        ["tie"],
    ),
    **dict.fromkeys((f"lmarena-ai/PPE-{name}-Best-of-K" for name in CHECKED), CHECKED_ANSWERS),
    "CohereLabsCommunity/multilingual-reward-bench": (
        [{"id": 1, "language": "deu_Latn", "prompt": "Q", "source": "hep-go", "category": "Reasoning"} | BARE],
        [("A", "B", None)],
        [],
    ),
    "nvidia/HelpSteer2#attributes": ([steer("A", 3, 1), steer("B", 3, 2)], [("B", "A", 1.0)], []),
}

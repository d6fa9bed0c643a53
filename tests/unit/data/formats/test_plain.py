"""The one step in which plain rows are read gives what the readers of their format give."""

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardline.data.conversation import Reject
from rewardline.data.formats.drafts import RowPairs
from rewardline.data.formats.fields import Fields
from rewardline.data.formats.plain import FORMATS, PlainReader
from rewardline.data.formats.registry import converter
from rewardline.data.formats.settings import FormatSettings
from rewardline.data.sources.rows import INVALID_TEXT

from support.paths import SHARED_DATA

PIECES = st.sampled_from([
    *("What?", "Yes.", "No", " ", "\n", "\n\n", "\t", "    code", "é", "\u3000", "\0", "\ud800", INVALID_TEXT),
    *("Human:", "\n\nHuman: ", "Assistant:", "\n\nAssistant: ", "System: ", "\n\nSystem: ", "<s>", "<", ">"),
    *("[INST] a [/INST] b", "[{'role':"),
    *("<|im_start|>user\na<|im_end|>", "<|im_end|>", "</s>", "<extra_id_1>Assistant\n", "<b>bold</b>", "[", '["a"]'),
])  # fmt: skip
TEXTS = st.lists(PIECES, max_size=4).map("".join)
ODD: st.SearchStrategy[Any] = st.sampled_from([None, 3, True, [], {}, ["a", "b"], {"text": "a"}, [{"role": "user"}]])
ROLES = st.sampled_from(["user", "assistant", "system", "tool", "gpt", "human", " User", "nobody"])
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": ROLES, "content": TEXTS | ODD})
    | st.fixed_dictionaries({"from": ROLES, "value": TEXTS})
    | st.fixed_dictionaries(
        {"role": ROLES, "content": TEXTS}, optional={"name": TEXTS, "thinking": TEXTS, "from": ROLES}
    ),
    max_size=4,
)
EXTRA = st.sampled_from([
    *("margin", "system", "subset", "chosen_model", "rejected_source", "tools", "weight", "item", "history", "input"),
    *("messages", "question", "instruction", "id", "score_chosen", "better", "winner", "loser", "confidence"),
])  # fmt: skip
SCORES: st.SearchStrategy[Any] = st.sampled_from(
    [1, 2, 2, 4.5, 0.1 + 0.2, 0.3, -1, 10**400, 1.7e308, -1.7e308, float("nan"), "4", "4/5", [1, 3]]
)
BESIDE_SCORES = st.sampled_from([
    *("preference", "winner", "label", "votes", "votes_a", "winner_model_a", "winner_tie", "model_a", "source_b"),
    *("response_c", "answer_a", "answer_b", "rating_a", "rating_b", "confidence", "chosen", "rejected"),
])  # fmt: skip
SETTINGS: list[dict[str, Any]] = [{}, {}, {"min_margin": 1}, {"max_pairs": 1}, {"ties": "keep"}]


@st.composite
def rows(draw: st.DrawFn) -> dict[str, Any]:
    """Rows of which many are plain, and most others nearly so."""
    kind = draw(st.sampled_from(["texts", "messages", "transcripts", "mixed"]))
    if kind == "messages":
        start = draw(MESSAGES) or [{"role": "user", "content": "Why?"}]
        sides: list[Any] = [[*start, {"role": "assistant", "content": draw(TEXTS)}] for _ in "ab"]
    elif kind == "transcripts":
        start_text = draw(st.sampled_from(["", "\n\nHuman: "])) + draw(TEXTS)
        sides = [f"{start_text}\n\nAssistant: {draw(TEXTS)}" for _ in "ab"]
    else:
        sides = [draw(TEXTS if kind == "texts" else TEXTS | MESSAGES | ODD) for _ in "ab"]
    row = {draw(st.sampled_from(["prompt", "question"])): draw(TEXTS | MESSAGES | ODD)} if draw(st.booleans()) else {}
    row |= {draw(st.sampled_from(["chosen", "chosen", "preferred"])): sides[0], "rejected": sides[1]}
    row |= draw(st.dictionaries(EXTRA, TEXTS | ODD, max_size=1)) if draw(st.booleans()) else {}
    return row


@st.composite
def scored_rows(draw: st.DrawFn) -> dict[str, Any]:
    """Rows of two answers with a score each, and what may come beside them."""
    one, two = draw(st.sampled_from([("_a", "_b"), ("_1", "_2"), ("_0", "_1")]))
    row: dict[str, Any] = {draw(st.sampled_from(["prompt", "question", "instruction"])): draw(TEXTS | MESSAGES)}
    row |= {f"response{end}": draw(TEXTS | MESSAGES | ODD) for end in (one, two)}
    row |= {f"{draw(st.sampled_from(['score', 'score', 'rating']))}{end}": draw(SCORES | ODD) for end in (one, two)}
    row |= draw(st.dictionaries(BESIDE_SCORES | EXTRA, TEXTS | SCORES | ODD, max_size=2)) if draw(st.booleans()) else {}
    return row


def outcome(format_name: str, row: Any, options: dict[str, Any], positions: bool) -> Any:
    try:
        found = converter(FormatSettings(format=format_name, **options), positions)(row)
    except Reject as reject:
        return reject.reason, reject.detail
    assert isinstance(found, RowPairs)
    return list(found), found.rows, found.skipped, found.unused, found.changed


def as_if_nothing_was_plain(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PlainReader, "read", lambda *_: None)
    patch.setattr(Fields, "has_attributes", lambda *_: True)


@settings(deadline=None, max_examples=400)
@given(row=rows() | ODD, name=st.sampled_from(FORMATS), options=st.sampled_from(SETTINGS), positions=st.booleans())
def test_a_plain_row_gives_what_its_format_gives(row: Any, name: str, options: dict[str, Any], positions: bool) -> None:
    found = outcome(name, row, options, positions)
    with pytest.MonkeyPatch.context() as patch:
        as_if_nothing_was_plain(patch)
        assert outcome(name, row, options, positions) == found


@settings(deadline=None, max_examples=400)
@given(row=scored_rows(), options=st.sampled_from(SETTINGS), positions=st.booleans())
def test_a_plain_row_with_scores_gives_what_its_format_gives(
    row: Any, options: dict[str, Any], positions: bool
) -> None:
    found = outcome("preference", row, options, positions)
    with pytest.MonkeyPatch.context() as patch:
        as_if_nothing_was_plain(patch)
        assert outcome("preference", row, options, positions) == found


def plain_rows() -> Iterator[tuple[str, dict[str, Any]]]:
    talk = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": " So. "}]
    turns = {"chosen": talk, "rejected": [talk[0], {"from": "gpt", "value": "No."}]}
    yield "pairs", {"id": 1, "prompt": " Wieso? ", "chosen": "Ja, é.", "rejected": "1 < 2"}
    yield "messages", turns
    yield "messages", {"prompt": "Why?", "messages": talk, **turns}
    yield "preference", {"prompt": "Why?", "response_a": "So.", "response_b": "No.", "score_a": 1, "score_b": 2.5}
    yield "transcript", {"chosen": "\n\nHuman: Why?\n\nAssistant: So.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."}


@pytest.mark.parametrize(("name", "row"), list(plain_rows()))
def test_usual_rows_are_plain(name: str, row: dict[str, Any]) -> None:
    reader = PlainReader.of(Fields(FormatSettings(format=name), ()), positions=False)
    assert reader is not None
    assert reader.read(row)


@pytest.mark.parametrize("folder", ["harmless-base", "helpful-online"])
def test_real_transcripts_are_plain_and_give_what_their_format_gives(folder: str) -> None:
    path = SHARED_DATA / "hh_rlhf_test" / folder / "test.jsonl.gz"
    if not path.exists():
        pytest.skip("the data is not here")
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        records = [json.loads(line) for line in stream][:400]
    found = [outcome("transcript", record, {}, False) for record in records]
    reader = PlainReader.of(Fields(FormatSettings(format="transcript"), ()), positions=False)
    assert reader is not None
    assert sum(reader.read(record) is not None for record in records) > 0.8 * len(records)
    with pytest.MonkeyPatch.context() as patch:
        as_if_nothing_was_plain(patch)
        assert [outcome("transcript", record, {}, False) for record in records] == found

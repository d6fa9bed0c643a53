from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rewardline.core.errors import UserError
from rewardline.data.conversation import Reject
from rewardline.data.formats.fields import Record
from rewardline.data.formats.joins import JoinCounts, JoinIndex, build_index, check_joins
from rewardline.data.formats.registry import converter, grouping
from rewardline.data.formats.settings import FormatSettings, JoinSettings
from rewardline.data.sources import readers

from support.paths import SHARED_DATA, load, load_all

Row = dict[str, Any]


def settings(joins: dict[str, dict[str, str]]) -> dict[str, JoinSettings]:
    return {path: JoinSettings.model_validate(join) for path, join in joins.items()}


def indexed(folder: Path, joins: dict[str, JoinSettings], **rows: list[Row]) -> JoinIndex:
    build_index(joins, rows, folder / "index.sqlite")
    return JoinIndex(joins, folder / "index.sqlite")


ANSWERS: list[Row] = [{"id": 1, "text": "A", "by": "m"}, {"id": "b", "text": "B", "by": "n"}, {"id": 3, "by": "n"}]


def test_ids_become_what_they_refer_to(tmp_path: Path) -> None:
    joins = settings(
        {
            "first": {"dataset": "answers", "key": "id", "value": "text"},
            "others[*].ref": {"dataset": "answers", "key": "id"},
        }
    )
    row: Row = {"first": "1", "others": [{"ref": "b", "score": 2}, {"ref": 1.0, "score": 1}], "x": 0}
    with indexed(tmp_path, joins, answers=ANSWERS) as found:
        assert found.join(row) == {
            "first": "A",
            "others": [{"ref": ANSWERS[1], "score": 2}, {"ref": ANSWERS[0], "score": 1}],
            "x": 0,
        }
        assert row["first"] == "1"
        changes: list[tuple[Row, str]] = [
            ({"first": 2}, "unknown_id"),
            ({"first": 3}, "unknown_id"),
            ({"first": None}, "unknown_id"),
            ({"first": True}, "unknown_id"),
            ({"first": "\ud83d"}, "unknown_id"),
            ({"others": 5}, "missing_field"),
            ({"others": [{}]}, "missing_field"),
        ]
        for change, reason in changes:
            with pytest.raises(Reject) as caught:
                found.join(row | change)
            assert caught.value.reason == reason
        with pytest.raises(Reject, match="not_object"):
            found.join([])  # type: ignore[arg-type]


def test_what_the_index_holds_is_counted(tmp_path: Path) -> None:
    joins = settings({"a": {"dataset": "answers", "key": "id", "value": "text"}})
    counts = build_index(joins, {"answers": [*ANSWERS, {"id": "1", "text": "A"}]}, tmp_path / "t.sqlite")
    assert counts == {"answers": JoinCounts(rows=4, unusable=1, repeated=1)}
    with pytest.raises(UserError, match=r"answers.* id '1' refers to more than one text.*Fix"):
        build_index(joins, {"answers": [*ANSWERS, {"id": 1, "text": "Z"}]}, tmp_path / "u.sqlite")


@pytest.mark.parametrize(("path", "key"), [("path", "x..y"), ("path", "x*"), ("a..b", "id")])
def test_a_wrong_path_of_a_join_is_named(path: str, key: str) -> None:
    with pytest.raises(UserError):
        check_joins({path: JoinSettings(dataset="a", key=key)})


def test_real_reviews_joined_to_questions_and_answers(tmp_path: Path) -> None:
    questions = load("vicuna_blog_eval/eval/table/question.jsonl")
    answers = load_all("vicuna_blog_eval/eval/table/answer/*.jsonl")
    reviews = load_all("vicuna_blog_eval/eval/table/review/*/*.jsonl")
    answer = {"dataset": "answers", "key": "answer_id", "value": "text"}
    joins = {
        "question_id": {"dataset": "questions", "key": "question_id", "value": "text"},
        "answer1_id": answer,
        "answer2_id": answer,
    }
    fields = {"prompt": "question_id", "answer_a": "answer1_id", "answer_b": "answer2_id"}
    convert = converter(
        FormatSettings(format="preference", fields=fields | {"score_a": "score[0]", "score_b": "score[1]"})
    )
    asked = {row["question_id"]: row["text"].strip() for row in questions}
    said = {row["answer_id"]: row["text"].strip() for row in answers}
    rejects: Counter[str] = Counter()
    expected: Counter[str] = Counter()
    with indexed(tmp_path, settings(joins), questions=questions, answers=answers) as found:
        for review in reviews:
            one, two = said.get(review["answer1_id"]), said.get(review["answer2_id"])
            lead = review["score"][0] - review["score"][1]
            if one is None or two is None:
                expected["unknown_id"] += 1
            elif not lead or one == two:
                expected["identical" if lead else "tie"] += 1
            elif not one or not two:
                expected["empty_answer"] += 1
            try:
                (pair,) = convert(found.join(review))
            except Reject as reject:
                rejects[reject.reason] += 1
                continue
            assert pair.prompt[0]["content"] == asked[review["question_id"]] and pair.margin == abs(lead)
            assert (pair.chosen, pair.rejected) == ((one, two) if lead > 0 else (two, one))
    assert len(reviews) == 1040 and rejects == expected and rejects["tie"] > 50


def test_real_votes_on_ids(tmp_path: Path) -> None:
    source = SHARED_DATA / "ukp_humour/data/pl-humor-full"
    if not source.exists():
        pytest.skip("ukp_humour is not here")
    texts = [row.value for row in readers.read(source / "item_scores.txt", columns=["id", "score", "text"])]
    votes = [row.value for row in readers.read(source / "pairs.csv", columns=["winner", "loser"])]
    assert len(texts) == 4030 and len(votes) == 113_638
    joins = {side: {"dataset": "texts", "key": "id", "value": "text"} for side in ("winner", "loser")}
    group = grouping(
        FormatSettings(format="votes", fields={"prompt": "=Which is funnier?", "chosen": "winner", "rejected": "loser"})
    )
    said = {row["id"]: str(row["text"]).strip() for row in texts if row}
    balance: Counter[tuple[str, str]] = Counter()
    total: Counter[tuple[str, str]] = Counter()
    rows: dict[str, list[Record]] = {}
    identical = 0
    with indexed(tmp_path, settings(joins), texts=[row for row in texts if row]) as found:
        for vote in votes[:20_000]:
            assert vote
            one, two = said[vote["winner"]], said[vote["loser"]]
            joined = found.join(vote)
            if one == two:
                identical += 1
                continue
            total[min(one, two), max(one, two)] += 1
            balance[min(one, two), max(one, two)] += 1 if one < two else -1
            rows.setdefault(group.key(joined), []).append(joined)
    assert len(rows) == len(total)
    ties = 0
    for members in rows.values():
        try:
            (pair,) = group.convert(members)
        except Reject as reject:
            assert reject.reason == "tie"
            ties += 1
            continue
        key = min(pair.chosen, pair.rejected), max(pair.chosen, pair.rejected)
        assert (balance[key] > 0) == (pair.chosen < pair.rejected)
        assert pair.confidence == pytest.approx(0.5 + abs(balance[key]) / total[key] / 2)
    assert ties == sum(not lead for lead in balance.values()) > 0

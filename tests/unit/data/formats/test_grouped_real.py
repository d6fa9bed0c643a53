"""Formats of several rows on real data; what must come out is counted from the data in another way."""

from collections import Counter, defaultdict
from itertools import combinations, product
from typing import Any

import pytest

from rewardline.data.conversation import Reject
from rewardline.data.formats.detect import choose
from rewardline.data.formats.drafts import RowPairs
from rewardline.data.formats.grouped import Grouping, GroupReject
from rewardline.data.formats.registry import converter, grouping
from rewardline.data.formats.settings import FormatSettings

from support.formats import detect
from support.paths import load

Row = dict[str, Any]


def convert_all(group: Grouping, rows: list[Row]) -> tuple[list[RowPairs], Counter[str]]:
    """The pairs of every group, and how many rows go unused by reason; every row is one or the other."""
    groups: dict[str, list[Row]] = defaultdict(list)
    results, unused, used = [], Counter[str](), 0
    for row in rows:
        try:
            groups[group.key(row)].append(row)
        except Reject as reject:
            unused[reject.reason] += 1
    for members in groups.values():
        try:
            pairs = group.convert(members)
        except GroupReject as reject:
            assert set(reject.unused) == set(range(len(members)))
            unused.update(each.reason for each in reject.unused.values())
            continue
        results.append(pairs)
        unused.update(each.reason for each in pairs.unused.values())
        used += len(members) - len(pairs.unused)
        assert len({row for rows in pairs.rows for row in rows}) == len(members) - len(pairs.unused)
    assert used + unused.total() == len(rows)
    return results, unused


def test_real_kto() -> None:
    rows = load("llamafactory_demo/data/kto_en_demo.json")
    assert all(detect(row) == "labelled" for row in rows)
    results, unused = convert_all(grouping(FormatSettings(format="labelled")), rows)
    prompts: dict[str, dict[bool, set[str]]] = defaultdict(lambda: {True: set(), False: set()})
    for row in rows:
        *start, last = row["messages"]
        prompts[repr([(turn["role"], turn["content"].strip()) for turn in start])][row["label"]].add(last["content"])
    both = {key: sides for key, sides in prompts.items() if sides[True] and sides[False]}
    expected = {
        (good.strip(), bad.strip()) for sides in both.values() for good, bad in product(sides[True], sides[False])
    }
    assert {(pair.chosen, pair.rejected) for pairs in results for pair in pairs} == expected
    assert unused == {
        "one_sided": sum(len(sides[True] | sides[False]) for key, sides in prompts.items() if key not in both)
    }
    assert len(rows) == 300 and len(expected) == len(both)


def test_real_message_trees() -> None:
    trees = load("oasst_en100/en_100_tree.jsonl.gz")
    expected: set[tuple[tuple[str, ...], str, str]] = set()
    messages: list[Row] = []

    def walk(node: Row, path: tuple[str, ...], tree: Row) -> None:
        messages.append({key: value for key, value in node.items() if key != "replies"})
        messages[-1] |= {"message_tree_id": tree["message_tree_id"], "parent_id": node.get("parent_id")}
        messages[-1].setdefault("rank", None)
        path = (*path, node["text"].strip())
        ranked = [(reply["rank"], reply["text"].strip()) for reply in node["replies"] if reply.get("rank") is not None]
        for (one, better), (two, worse) in combinations(sorted(ranked), 2):
            assert one != two
            expected.add((path, better, worse))
        for reply in node["replies"]:
            walk(reply, path, tree)

    for tree in trees:
        walk(tree["prompt"], (), tree)
    expected = {item for item in expected if item[1] != item[2]}
    for rows, name in ((trees, "tree"), (messages[:50], "tree_messages")):
        settings, _ = choose(rows, FormatSettings())
        assert settings and settings.format == name
    nested = [converter(FormatSettings(format="tree"))(tree) for tree in trees]
    flat, _ = convert_all(grouping(FormatSettings(format="tree_messages")), messages)
    assert len(trees) == 100 and len(messages) == 1167
    for results in (nested, flat):
        found = [
            (tuple(turn["content"] for turn in pair.prompt), pair.chosen, pair.rejected)
            for pairs in results
            for pair in pairs
        ]
        assert set(found) == expected and len(found) == len(expected)
    assert sum((Counter(pairs.skipped) for pairs in nested), Counter()) == {"no_rank": 6}


def test_real_votes() -> None:
    rows = load("ukp_convarg1/UKPConvArg1-full-votes.jsonl.gz")
    fields = {"prompt": "title", "answer_a": "a1", "answer_b": "a2", "preference": "votes", "subset": "stance"}
    assert all(detect(row, fields=fields) == "votes" for row in rows[:100])
    expected: dict[tuple[str, str, str], float] = defaultdict(float)
    total: Counter[tuple[str, str, str]] = Counter()
    for row in rows:
        lead = row["votes"].count("a1") - row["votes"].count("a2")
        one, two = row["a1"].strip(), row["a2"].strip()
        total[row["title"].strip(), *sorted((one, two))] += len(row["votes"])  # type: ignore[index]
        expected[row["title"].strip(), *sorted((one, two))] += lead if one < two else -lead  # type: ignore[index]
    identical = sum(row["a1"].strip() == row["a2"].strip() for row in rows)
    assert len(rows) == 16_927
    results, unused = convert_all(grouping(FormatSettings(format="votes", fields=fields)), rows)
    assert set(unused) == {"tie", "identical"} and unused["identical"] == identical == 15
    comparisons = {key: lead for key, lead in expected.items() if key[1] != key[2]}
    assert len(results) == sum(lead != 0 for lead in comparisons.values())
    for (pair,) in results:
        key = (pair.prompt[0]["content"], *sorted((pair.chosen, pair.rejected)))
        lead, count = expected[key], total[key]  # type: ignore[index]
        assert (lead > 0) == (pair.chosen < pair.rejected)
        assert pair.margin == pytest.approx(abs(lead) / count)
        assert pair.confidence == pytest.approx(0.5 + abs(lead) / count / 2)

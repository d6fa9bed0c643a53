"""Thousands of damaged rows of every shape: only pairs or a `Reject` come out, and every row is accounted for."""

import copy
import gc
import json
import random
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from math import isfinite
from typing import Any

import pytest

from rewardline.data.conversation import Reject
from rewardline.data.formats.detect import choose
from rewardline.data.formats.drafts import PreferencePair
from rewardline.data.formats.fields import SYNONYMS
from rewardline.data.formats.grouped import GroupReject
from rewardline.data.formats.registry import FORMATS, GROUPED, converter, grouping
from rewardline.data.formats.settings import FormatSettings

from support.formats import detect
from support.shapes import CERTAIN, GROUPS, SHAPES, Row

ROWS: list[Row] = [row for _, row, *_ in CERTAIN]
ROWS += [row for _, rows, _ in GROUPS for row in rows] + [row for rows, *_ in SHAPES.values() for row in rows]
NASTY: list[Any] = [
    None, True, False, 0, 1, -1, 0.5, 5, 1e308, -1e308, float("nan"), float("inf"), 10**400, "", " ", "\0", "\ud83d",
    "A", "B", "Q", "a", "tie", "1", "-1", "nan", "[", '["A"]', "Human: Q\n\nAssistant: A", [], {}, [[]], [{}], [None],
    ["A"], ["A", "B"], [1, 2], {"A": 1}, {"text": "A"}, {"role": "assistant", "content": "A"}, {"role": 5},
    {"from": "human"}, {"replies": []}, {"text": ["A"], "score": [1]},
    [{"role": "user", "content": [{"type": "image"}]}], "A" * 3000,
]  # fmt: skip
KEYS = sorted({key for keys in SYNONYMS.values() for key in keys} | {"response_a", "response_b", "score_a", "deleted"})
CHOICES: list[Row] = [
    {},
    {"ties": "keep", "pairing": "adjacent"},
    {"max_pairs": 1, "pairing": "best_worst"},
    {"min_margin": 1.0, "values": {"first": 1, "second": [0, "a"], "tie": "tie"}},
    {"values": {"signed": "second"}, "separator": "\n"},
    {"values": {"good": [1, "A"], "bad": 0}, "attributes": {"score": 1, "rank": -0.5}},
]


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from paths(item, (*path, key))


def damaged(row: Row, chance: random.Random) -> Any:
    result: Any = copy.deepcopy(row)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        path = chance.choice(list(paths(result)))
        if not path:
            if isinstance(result, dict) and chance.random() < 0.9:
                result[chance.choice(KEYS)] = copy.deepcopy(chance.choice(NASTY))
            else:
                result = copy.deepcopy(chance.choice(NASTY))
            continue
        parent = result
        for key in path[:-1]:
            parent = parent[key]
        kind = chance.random()
        if kind < 0.5:
            parent[path[-1]] = copy.deepcopy(chance.choice(NASTY))
        elif kind < 0.7:
            del parent[path[-1]]
        elif kind < 0.85:
            parent[path[-1]] = [parent[path[-1]]] * chance.choice([1, 2])
        elif isinstance(parent, dict):
            parent[chance.choice(KEYS)] = copy.deepcopy(parent[path[-1]])
    return result


def sound(pair: PreferencePair, ties: bool) -> None:
    assert pair.chosen == pair.chosen.strip() != pair.rejected == pair.rejected.strip()
    assert pair.chosen and pair.prompt and pair.prompt[-1]["role"] != "assistant"
    assert bool(pair.rejected) == (pair.ratings is None)
    assert all(isfinite(value) for _, value in pair.ratings or ())
    assert all(turn["content"] for turn in pair.prompt)
    assert pair.margin is None or 0 <= pair.margin < float("inf")
    assert 0 < pair.weight < float("inf")
    assert 0.5 < pair.confidence <= 1 or (ties and pair.confidence == 0.5)
    json.dumps([*pair.prompt, pair.chosen, pair.rejected, pair.subset], ensure_ascii=False).encode("utf-8")


def rejected(reject: Reject) -> None:
    assert reject.reason.isidentifier() and reject.reason.islower() and reject.detail
    assert "\0" not in reject.detail and len(reject.detail.encode("utf-8")) < 5000


@pytest.mark.parametrize("seed", range(4))
def test_damaged_rows_give_pairs_or_rejects(seed: int) -> None:
    chance = random.Random(seed)
    rows = [damaged(row, chance) for row in chance.choices(ROWS, k=1000)]
    outcomes = {"pairs": 0, "rejects": 0}
    for start in range(0, len(rows), 100):
        choose(rows[start : start + 100], FormatSettings())
    for options in chance.sample(CHOICES, 2):
        converters = [converter(FormatSettings(format=name, **options)) for name in FORMATS]
        for row in rows:
            found = detect(row, values=options.get("values"))
            assert {found} if isinstance(found, str) else set(found) <= {*FORMATS, *GROUPED}
            for convert in converters:
                try:
                    pairs = convert(row)
                except Reject as reject:
                    rejected(reject)
                    outcomes["rejects"] += 1
                else:
                    assert pairs and all(count > 0 for count in pairs.skipped.values())
                    for pair in pairs:
                        sound(pair, options.get("ties") == "keep")
                    outcomes["pairs"] += len(pairs)
    assert min(outcomes.values()) > 200


def test_rejected_rows_leave_no_cycles() -> None:
    """With which rows of any size would stay in memory until the garbage collector runs."""
    chance = random.Random(0)
    rows = [damaged(row, chance) for row in chance.choices(ROWS, k=100)]
    rejects = 0
    gc.collect()
    gc.disable()
    try:
        for name in FORMATS:
            convert = converter(FormatSettings(format=name))
            for row in rows:
                try:
                    convert(row)
                except Reject as reject:
                    rejects += 1
                    reject.with_traceback(None)  # as those do that keep it
        for name in GROUPED:
            with suppress(GroupReject):
                grouping(FormatSettings(format=name)).convert([{"prompt": "Q"}, {}])
        assert gc.collect() == 0
    finally:
        gc.enable()
    assert rejects > 100


@pytest.mark.parametrize("name", GROUPED)
@pytest.mark.parametrize("options", CHOICES, ids=str)
def test_no_row_of_a_damaged_group_is_lost(name: str, options: Row) -> None:
    chance = random.Random(f"groups of {name}")
    text = json.dumps(ROWS)
    copies = [text.replace('"Q"', f'"Q{n}"').replace('"t"', f'"t{n}"') for n in range(8)]
    rows = [row for copied in copies for row in json.loads(copied)]
    rows = [damaged(row, chance) if chance.random() < 0.5 else row for row in rows]
    chance.shuffle(rows)
    group = grouping(FormatSettings(format=name, **options))
    groups: dict[str, list[Any]] = defaultdict(list)
    keyless = used = unused = pairs_out = 0
    for row in rows:
        try:
            groups[group.key(row)].append(row)
        except Reject as reject:
            rejected(reject)
            keyless += 1
    for members in groups.values():
        try:
            pairs = group.convert(members)
        except GroupReject as reject:
            rejected(reject)
            assert set(reject.unused) == set(range(len(members)))
            unused += len(members)
            continue
        assert len(pairs) == len(pairs.rows)
        contributing = {index for rows_ in pairs.rows for index in rows_}
        assert contributing | pairs.unused.keys() == set(range(len(members))) and not contributing & pairs.unused.keys()
        for each in pairs.unused.values():
            rejected(each)
        for pair in pairs:
            sound(pair, options.get("ties") == "keep")
        used, unused, pairs_out = used + len(contributing), unused + len(pairs.unused), pairs_out + len(pairs)
        again = group.convert(members[::-1])
        assert list(again) == list(pairs) and again.skipped == pairs.skipped
    assert keyless + used + unused == len(rows)
    assert pairs_out or options

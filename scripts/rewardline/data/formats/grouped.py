"""Formats that need several rows at once: the rows of a group, which share a key, are converted together.

    labelled = grouping(FormatSettings(format="labelled"))
    groups = defaultdict(list)
    for row in rows: groups[labelled.key(row)].append(row)
    for group in groups.values(): pairs = labelled.convert(group)

The result does not depend on the order of a group's rows, but for the positions of a benchmark's answers.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, Generic, NamedTuple, TypeVar

from rewardline.data.conversation import Reject, describe_type, ends_with_answer, read_answer, read_messages
from rewardline.data.formats.chosen_rejected import SIDES
from rewardline.data.formats.drafts import (
    Collector,
    Draft,
    RowAttributes,
    RowPairs,
    Rows,
    read_subset,
    read_weight,
)
from rewardline.data.formats.fields import (
    Fields,
    Record,
    RowFields,
    decimal_sum,
    label_text,
    mean,
    read_ratings,
)
from rewardline.data.formats.prompts import (
    explicit_prompt,
    read_inputs,
    required_prompt,
    split_sides,
    with_system_prompt,
)
from rewardline.data.formats.ranked import lead_confidence, ranked_pairs, weighted_sum
from rewardline.data.formats.settings import FormatSettings
from rewardline.data.formats.two_answers import (
    BLANK,
    Preference,
    compared_answers,
    preference_label,
    read_preference,
    vote_counts,
)
from rewardline.data.schema import Message
from rewardline.data.turns import NO_INPUTS, TemplateInputs, answer_of

GOOD: Final = frozenset({
    "true", "good", "up", "thumbs_up", "thumbs up", "thumbsup", "👍", "+1", "1", "chosen", "preferred", "desirable",
    "desired", "like", "liked", "upvote", "accept", "accepted",
})  # fmt: skip
BAD: Final = frozenset({
    "false", "bad", "down", "thumbs_down", "thumbs down", "thumbsdown", "👎", "-1", "0", "rejected", "reject",
    "dispreferred", "undesirable", "undesired", "dislike", "disliked", "downvote",
})  # fmt: skip


T = TypeVar("T")


class GroupReject(Reject):
    """A group that gives no pair; `unused` has the reason for each of its rows."""

    def __init__(self, reject: Reject, unused: dict[int, Reject]) -> None:
        super().__init__(reject.reason, reject.detail)
        self.unused = unused


class Contribution(NamedTuple):
    """A draft and the rows of a group that it comes from; a `Reject` says why these rows give nothing."""

    draft: Draft | Reject
    rows: Rows
    attributes: RowAttributes = RowAttributes()


class GroupItem(NamedTuple, Generic[T]):
    """A row as a grouped format reads it: its content and the group that it belongs to.

    The items of a group are sorted by `order`, which is equal only for rows that are interchangeable.
    """

    key: str
    order: tuple[object, ...]
    content: T


class Grouping(NamedTuple):
    """How to group rows and convert the groups."""

    key: Callable[[Record], str]
    """The group that a row belongs to, 32 hex digits; raises `Reject` for a row that cannot be used."""
    convert: Callable[[Sequence[Record]], RowPairs]
    """The pairs of the rows of one group; raises `GroupReject` if there are none."""


def group_rows(
    read: Callable[[RowFields], GroupItem[T]],
    pair: Callable[[list[tuple[int, T]], FormatSettings], Iterator[Contribution]],
    fields: Fields,
    positions: bool,
) -> Grouping:
    """The grouping of a format.

    `read` reads a row, `pair` makes the drafts of the rows of a group in order, each with its index; `positions` as in
    `Collector`.
    """

    def key(record: Record) -> str:
        return read(fields.of(record)).key

    def convert(records: Sequence[Record]) -> RowPairs:
        unused: dict[int, Reject] = {}
        items: dict[int, GroupItem[T]] = {}
        for index, record in enumerate(records):
            try:
                items[index] = read(fields.of(record))
            except Reject as reject:
                unused[index] = reject.with_traceback(None)
        if len({item.key for item in items.values()}) > 1:
            raise ValueError("records of several groups")
        order = sorted(items, key=lambda index: items[index].order)
        collector = Collector(fields.settings, positions)
        try:
            for draft, rows, attributes in pair([(index, items[index].content) for index in order], fields.settings):
                collector.add(draft, attributes, rows)
        except Reject as reject:
            raise GroupReject(reject, unused | dict.fromkeys(order, reject)) from None
        pairs = collector.close()
        used = {row for rows in pairs.rows for row in rows}
        for index in order:
            if index not in used:
                unused[index] = collector.rejects.get(index) or Reject("no_pair", "it contributes to no pair")
        if not pairs:
            first = sorted(unused.values(), key=lambda reject: (reject.reason, reject.detail))[:1]
            rejects = [*collector.rejects.values(), *first, Reject("no_pair", "the group has no rows")]
            raise GroupReject(rejects[0], unused)
        pairs.unused = unused
        return pairs

    return Grouping(key, convert)


def _group_key(*parts: object, inputs: TemplateInputs) -> str:
    """A key of these JSON values, and of what a chat template gets besides them."""
    return group_key(*parts, *(inputs if inputs else ()))


def group_key(*parts: object) -> str:
    """A key of these JSON values."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True)
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).hexdigest()


class LabelledAnswer(NamedTuple):
    """An answer with a label or a score."""

    prompt: list[Message]
    text: str
    ratings: tuple[float, ...]
    """Its label or score, or the scores that several raters gave it."""
    is_scored: bool
    subset: str
    inputs: TemplateInputs = NO_INPUTS


def read_labelled(row: RowFields) -> GroupItem[LabelledAnswer]:
    """The answer of a row; the best come first in a group."""
    prompt, text = prompt_and_answer(row)
    prompt = with_system_prompt(prompt, row)
    ratings, is_scored = answer_ratings(row)
    group = row.required("group") if row.mapped("group") else None
    if group is not None and (isinstance(group, bool) or not isinstance(group, str | int)):
        raise Reject("bad_id", f"the group is {describe_type(group)}, not an id")
    inputs, _ = read_inputs(row)
    answer = LabelledAnswer(prompt, text, ratings, is_scored, read_subset(row), inputs)
    return GroupItem(
        _group_key(prompt, group, inputs=inputs), (-mean(ratings), ratings, text, answer.subset, is_scored), answer
    )


def pair_labelled(
    items: list[tuple[int, LabelledAnswer]], settings: FormatSettings, by_row: bool = False
) -> Iterator[Contribution]:
    """Each better answer with each worse one, by the mean of the labels or scores that rows give an answer.

    `by_row`: every row is an answer of its own, whatever its text.
    """
    rows: dict[tuple[str, int], list[int]] = defaultdict(list)
    ratings: dict[tuple[str, int], list[float]] = defaultdict(list)
    subsets: dict[tuple[str, int], str] = {}
    for index, item in items:
        key = item.text, index if by_row else 0
        rows[key].append(index)
        ratings[key] += item.ratings
        subsets.setdefault(key, item.subset)
    answers, numbers = list(ratings), {key: n for n, key in enumerate(sorted(rows, key=lambda key: min(rows[key])))}
    is_scored = any(item.is_scored for _, item in items)
    levels = [mean(ratings[key]) for key in answers]
    if answers and len(set(levels)) == 1 and (not is_scored or len(answers) == 1):
        side = "one answer" if len(answers) == 1 else "answers of one label"
        all_rows = tuple(index for key in answers for index in rows[key])
        yield Contribution(Reject("one_sided", f"the prompt has only {side}"), all_rows)
        return
    prompt = items[0][1].prompt if items else []
    for better, worse, margin, confidence in ranked_pairs(levels, settings):
        if confidence is not None and not is_scored:
            continue  # answers of one label are no tie
        chosen, rejected = answers[better], answers[worse]
        confidence = lead_confidence(ratings[chosen], ratings[rejected]) if confidence is None else confidence
        draft = Draft(
            prompt,
            chosen[0],
            rejected[0],
            margin if is_scored else None,
            confidence,
            positions=(numbers[chosen], numbers[rejected], len(answers)),
            golds=(levels[better], levels[worse]),
        )
        attributes = RowAttributes(subset=subsets[chosen], inputs=items[0][1].inputs)
        yield Contribution(draft, (*rows[chosen], *rows[rejected]), attributes)


def group_labelled(fields: Fields, positions: bool) -> Grouping:
    """The grouping of `labelled`; in a benchmark that is scored by row (`positions`), equal answers stay apart."""
    return group_rows(read_labelled, partial(pair_labelled, by_row=positions), fields, positions)


def prompt_and_answer(row: RowFields) -> tuple[list[Message], str]:
    """The prompt and the answer of a row that has both, or a conversation that ends with the answer."""
    single = row.mapped("answer") or (row.present("answer") and row.present("prompt"))
    if not row.mapped("prompt") and ends_with_answer(row.record.get(row.key("prompt"))):
        single = False  # what may be the prompt is a conversation that holds the answer
    if row.mapped("conversation") or not single:
        turns = row.required("conversation")
        if not isinstance(turns, list):
            raise Reject("not_messages", f"the conversation is {describe_type(turns)}, not a list of messages")
        prompt = read_messages(turns, "the conversation")
        if len(prompt) < 2 or prompt[-1]["role"] != "assistant":
            raise Reject("no_answer", "the conversation does not end with an answer")
        text = answer_of([prompt.pop()])
    else:
        prompt, text = required_prompt(row), read_answer(row.required("answer"), "the answer")
    if not all(turn["content"] for turn in prompt):
        raise Reject("empty_prompt", "a turn of the prompt is empty")
    if not text:
        raise Reject("empty_answer", "the answer is empty")
    return prompt, text


def answer_ratings(row: RowFields) -> tuple[tuple[float, ...], bool]:
    """The label or the scores of an answer, and whether these are scores."""
    if row.settings.attributes:
        return (weighted_sum(row.record, row.settings.attributes, "the row"),), True
    scored = row.mapped("score") or not row.present("label")
    if scored and not row.mapped("label"):
        return read_ratings(row.required("score"), "the score"), True
    label = row.required("label")
    found = [_label_value(each, row) for each in (label if isinstance(label, list) else [label])]
    if values := [value for value in found if value is not None]:
        if len(values) == len(found):
            return tuple(values), False
    elif not row.settings.values:
        with suppress(Reject):
            return read_ratings(label, "the label"), True
    raise Reject("bad_label", f"is {label_text(label)[:50]!r} good or bad? set `values: {{good: ..., bad: ...}}`")


def _label_value(label: object, row: RowFields) -> float | None:
    """1 for a good label, 0 (or -1) for a bad one; None for another."""
    text = label_text(label)
    if row.settings.values:
        side = row.sides.get(text)
        return float(side == "good") if side in ("good", "bad") else None
    if text in GOOD:
        return 1.0
    return (-1.0 if text == "-1" else 0.0) if text in BAD else None


class Vote(NamedTuple):
    """What a row says about two answers, which are in alphabetical order."""

    prompt: list[Message]
    texts: tuple[str, str]
    first: float
    """How many votes the first text has; a tie is half a vote for each."""
    second: float
    subset: str
    inputs: TemplateInputs = NO_INPUTS


def read_vote(row: RowFields) -> GroupItem[Vote]:
    """The votes of a row: a label, a list of labels, or `chosen` and `rejected`."""
    weight = read_weight(row)
    if row.mapped("chosen") or all(row.present(name) for name in SIDES):
        sides = row.required(SIDES[0]), row.required(SIDES[1])
        prompt, (one, two) = split_sides(explicit_prompt(row, sides), sides, SIDES)
        first, second = weight, 0.0
    else:
        shared, names, answers, lead, _ = compared_answers(row)
        if len(answers) != 2:
            raise Reject("bad_preference", f"votes are on two answers, not on {len(answers)}")
        prompt, (one, two) = split_sides(shared, answers, names)
        first, second = _count_votes(row, (names[0], names[1]), lead, weight)
    prompt = with_system_prompt(prompt, row)
    if one == two:
        raise Reject("identical", "the two answers are the same text")
    if one > two:
        one, two, first, second = two, one, second, first
    inputs, _ = read_inputs(row)
    vote = Vote(prompt, (one, two), first, second, read_subset(row), inputs)
    return GroupItem(_group_key(prompt, one, two, inputs=inputs), (-first, second, vote.subset), vote)


def _count_votes(row: RowFields, names: tuple[str, str], lead: float | None, weight: float) -> tuple[float, float]:
    """How many votes a row has for each of two answers, each vote with the row's weight."""
    label = preference_label(row)
    if label is not None:
        labels, key = label if isinstance(label, list) else [label], row.key("preference")
        labels = [each for each in labels if label_text(each) not in BLANK or not isinstance(label, list)]
        winners = [read_preference(each, key, names, row).winner for each in labels]
    elif lead is not None:
        winners = [Preference.of_lead(lead).winner]
    elif counts := vote_counts(row):
        return weight * counts[0], weight * counts[1]
    else:
        raise Reject("no_preference", "the row has neither a vote nor a score for each answer")
    if not winners:
        raise Reject("no_preference", "the list of votes is empty")
    shares = [0.5 if winner is None else float(winner) for winner in winners]  # of the second answer
    return sum(weight * (1.0 - share) for share in shares), sum(weight * share for share in shares)


def pair_votes(items: list[tuple[int, Vote]], _settings: FormatSettings) -> Iterator[Contribution]:
    """One pair for all items: the majority's, with its share of the votes; the margin is the lead as a share."""
    if not items:
        return
    _, vote = items[0]
    first = decimal_sum((1, item.first) for _, item in items)
    second = decimal_sum((1, item.second) for _, item in items)
    share = first / (first + second)
    draft = Draft(vote.prompt, *vote.texts, 2 * share - 1, share)
    attributes = RowAttributes(subset=vote.subset, inputs=vote.inputs)
    yield Contribution(draft, tuple(sorted(index for index, _ in items)), attributes)

"""Formats that need several rows at once: the rows of a group, which share a key, are converted together.

    labelled = grouping("labelled")
    groups = defaultdict(list)
    for row in rows: groups[labelled.key(row)].append(row)
    for group in groups.values(): pairs = labelled.convert(group)

What comes out does not depend on the order of a group's rows.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple, Protocol

from rewardline.data.conversation import Message, Pair, Reject, answer, kind, messages
from rewardline.data.formats.chosen_rejected import SIDES, Draft, compare, explicit_prompt, is_answered, with_system
from rewardline.data.formats.drafts import Collector, Facts, Pairs, Rows, subset_of, weight_of
from rewardline.data.formats.fields import Fields, Record, number
from rewardline.data.formats.options import Options, code
from rewardline.data.formats.ranked import duels, weighted
from rewardline.data.formats.two_answers import contestants, label_of, verdict, votes_of

GOOD: Final = frozenset({
    "true", "good", "up", "thumbs_up", "thumbs up", "thumbsup", "👍", "+1", "1", "chosen", "preferred", "desirable",
    "desired", "like", "liked", "upvote", "accept", "accepted",
})  # fmt: skip
BAD: Final = frozenset({
    "false", "bad", "down", "thumbs_down", "thumbs down", "thumbsdown", "👎", "-1", "0", "rejected", "reject",
    "dispreferred", "undesirable", "undesired", "dislike", "disliked", "downvote",
})  # fmt: skip
Contribution = tuple[Draft | Reject, Facts, Rows]


class GroupPairs(Pairs):
    """The pairs of a group; each row of it contributes to a pair or is in `unused`."""

    def __init__(
        self,
        found: Iterable[Pair] = (),
        skipped: dict[str, int] | None = None,
        rows: list[Rows] | None = None,
        unused: dict[int, Reject] | None = None,
    ) -> None:
        super().__init__(found, skipped)
        self.rows: list[Rows] = rows or []
        """For each pair, the positions of the records that it comes from."""
        self.unused: dict[int, Reject] = unused or {}
        """By position: why a record contributes to no pair."""


class GroupReject(Reject):
    """A group that gives no pair; `unused` has the reason for each of its records."""

    def __init__(self, reject: Reject, unused: dict[int, Reject]) -> None:
        super().__init__(reject.reason, reject.detail)
        self.unused = unused


class Item(Protocol):
    """A record as a grouped format reads it."""

    @property
    def key(self) -> str: ...  # noqa: D102

    @property
    def order(self) -> tuple[Any, ...]:
        """By which the items of a group are sorted: equal only for records that may stand for each other."""


class Reader(Protocol):
    """A grouped format."""

    def item(self, record: Record, fields: Fields, options: Options) -> Item:
        """Read a record; raises `Reject`."""

    def drafts(self, items: list[tuple[int, Any]], options: Options) -> Iterator[Contribution]:
        """What sorted items, each with its record's position, give; a `Reject` says why records give nothing."""


class Grouping:
    """How to group rows and convert the groups."""

    def __init__(self, reader: Reader, fields: Fields, options: Options) -> None:
        self._reader, self._fields, self._options = reader, fields, options

    def key(self, record: Record) -> str:
        """The group that the row belongs to, 32 hex digits; raises `Reject` for a row that cannot be used."""
        return self._item(record).key

    def _item(self, record: Record) -> Item:
        if not isinstance(record, dict):
            raise Reject("not_object", "the row is not an object with named fields")
        return self._reader.item(record, self._fields, self._options)

    def convert(self, records: list[Record]) -> GroupPairs:
        """The pairs of the records of one group.

        Raises `GroupReject` if there are none.
        """
        unused: dict[int, Reject] = {}
        items: list[tuple[int, Item]] = []
        for place, record in enumerate(records):
            try:
                items.append((place, self._item(record)))
            except Reject as reject:
                unused[place] = reject
        if len({item.key for _, item in items}) > 1:
            raise ValueError("records of several groups")
        items.sort(key=lambda pair: pair[1].order)
        collector = Collector(self._options)
        try:
            for draft, facts, rows in self._reader.drafts(items, self._options):
                collector.add(draft, facts, rows)
        except Reject as reject:
            unused |= {place: reject for place, _ in items}
            raise GroupReject(reject, unused) from None
        found = collector.close()
        used = {row for _, rows in found for row in rows}
        for place, _ in items:
            if place not in used:
                unused[place] = collector.blame.get(place) or Reject("no_pair", "it has no part in any pair")
        if not found:
            rejects = sorted(unused.values(), key=lambda reject: (reject.reason, reject.detail))
            raise GroupReject(collector.first or (rejects or [Reject("no_pair", "the group has no rows")])[0], unused)
        skipped = collector.skipped
        return GroupPairs([pair for pair, _ in found], skipped, [rows for _, rows in found], unused)


def digest(*parts: Any) -> str:
    """A key of these JSON values."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True)
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).hexdigest()


class Labelled(NamedTuple):
    """An answer with a label or a score."""

    key: str
    prompt: list[Message]
    text: str
    value: float
    graded: bool
    subset: str

    @property
    def order(self) -> tuple[Any, ...]:
        """The best first."""
        return -self.value, self.text, self.subset, self.graded


class LabelledReader:
    """Single answers with a label or a score, grouped by prompt: every good one is better than every bad one."""

    def item(self, record: Record, fields: Fields, options: Options) -> Labelled:
        """The answer of a row."""
        shared, text = _answered(record, fields)
        shared = with_system(shared, record, fields)
        value, graded = _worth(record, fields, options)
        group = fields.required(record, "group") if fields.mapped("group") else None
        if group is not None and (isinstance(group, bool) or not isinstance(group, str | int)):
            raise Reject("bad_id", f"the group is {kind(group)}, not an id")
        return Labelled(digest(shared, group), shared, text, value, graded, subset_of(record, fields))

    def drafts(self, items: list[tuple[int, Labelled]], options: Options) -> Iterator[Contribution]:
        """The better over the worse; an answer that stands there with different labels takes no part."""
        rows: dict[str, list[int]] = defaultdict(list)
        values: dict[str, set[float]] = defaultdict(set)
        subsets: dict[str, str] = {}
        for place, item in items:
            rows[item.text].append(place)
            values[item.text].add(item.value)
            subsets.setdefault(item.text, item.subset)
        for text, found in values.items():
            if len(found) > 1:
                reject = Reject("contradiction", "the same answer to the same prompt has different labels")
                yield reject, Facts(), tuple(rows[text])
        texts = [text for text, found in values.items() if len(found) == 1]
        graded = any(item.graded for _, item in items)
        worths = [next(iter(values[text])) for text in texts]
        if texts and len(set(worths)) == 1 and (not graded or len(texts) == 1):
            side = "one answer" if len(texts) == 1 else "answers of one label"
            yield Reject("one_sided", f"the prompt has only {side}"), Facts(), _all(rows, texts)
            return
        prompt = items[0][1].prompt if items else []
        for duel in duels(worths, options):
            one, two = texts[duel.better], texts[duel.worse]
            if duel.tied and not graded:
                continue
            draft: Draft | Reject = Reject("tie", "the answers have the same score")
            if not duel.tied or options.ties == "keep":
                draft = Draft(prompt, one, two, duel.margin if graded else None, 0.5 if duel.tied else None)
            yield draft, Facts(subset=subsets[one]), (*rows[one], *rows[two])


def _all(rows: dict[str, list[int]], texts: list[str]) -> Rows:
    return tuple(place for text in texts for place in rows[text])


def _answered(record: Record, fields: Fields) -> tuple[list[Message], str]:
    """The prompt and the answer of a row that has both, or a conversation that ends with the answer."""
    single = fields.mapped("answer") or (fields.present(record, "answer") and fields.present(record, "prompt"))
    if not fields.mapped("prompt") and is_answered(record.get(fields.key(record, "prompt"))):
        single = False  # what may be the prompt is a conversation that holds the answer
    if fields.mapped("conversation") or not single:
        turns = fields.required(record, "conversation")
        if not isinstance(turns, list):
            raise Reject("not_messages", f"the conversation is {kind(turns)}, not a list of messages")
        shared = messages(turns, "the conversation")
        if len(shared) < 2 or shared[-1]["role"] != "assistant":
            raise Reject("no_answer", "the conversation does not end with an answer")
        text = shared.pop()["content"]
    else:
        fields.required(record, "prompt")
        shared = explicit_prompt(record, fields) or []
        text = answer(fields.required(record, "answer"), "the answer")
    if not all(turn["content"] for turn in shared):
        raise Reject("empty_prompt", "a turn of the prompt is empty")
    if not text:
        raise Reject("empty_answer", "the answer is empty")
    return shared, text


def _worth(record: Record, fields: Fields, options: Options) -> tuple[float, bool]:
    """How good an answer is said to be, and whether that is a score rather than a mere label."""
    if options.attributes:
        return weighted(record, options.attributes, "the row"), True
    scored = fields.mapped("score") or not fields.present(record, "label")
    if scored and not fields.mapped("label"):
        return number(fields.required(record, "score"), "the score"), True
    label = fields.required(record, "label")
    name = code(label)
    if options.values:
        if (side := options.sides.get(name)) in ("good", "bad"):
            return float(side == "good"), False
        raise Reject("bad_label", f"is {name[:50]!r} good or bad? set `values: {{good: ..., bad: ...}}`")
    if name in GOOD:
        return 1.0, False
    if name in BAD:
        return (-1.0 if name == "-1" else 0.0), False
    try:
        return number(label, "the label"), True
    except Reject:
        raise Reject("bad_label", f"is {name[:50]!r} good or bad? set `values: {{good: ..., bad: ...}}`") from None


class Vote(NamedTuple):
    """What a row says about two answers, which stand in alphabetical order."""

    key: str
    prompt: list[Message]
    texts: tuple[str, str]
    first: float
    """How many votes the first text has; a tie is half a vote for each."""
    second: float
    subset: str

    @property
    def order(self) -> tuple[Any, ...]:
        """Votes of the same outcome may stand for each other."""
        return -self.first, self.second, self.subset


class VotesReader:
    """Votes on the same two answers: one pair for the majority, with its share of the votes as confidence."""

    def item(self, record: Record, fields: Fields, options: Options) -> Vote:
        """The votes of a row: a label, a list of labels, or `chosen` and `rejected`."""
        weight = weight_of(record, fields)
        if fields.mapped("chosen") or all(fields.present(record, name) for name in SIDES):
            sides = [fields.required(record, name) for name in SIDES]
            shared, one, two = compare(explicit_prompt(record, fields, sides), sides[0], sides[1], SIDES)
            first, second = weight, 0.0
        else:
            prompt, names, answers, scores = contestants(record, fields)
            if len(answers) != 2:
                raise Reject("bad_preference", f"votes are on two answers, not on {len(answers)}")
            shared, one, two = compare(prompt, answers[0], answers[1], (names[0], names[1]))
            label = label_of(record, fields)
            counts = votes_of(record, fields) if label is None and None in scores else None
            if label is None and None in scores and counts is None:
                raise Reject("no_preference", "the row has neither a vote nor a score for each answer")
            labels = label if isinstance(label, list) else [label]
            first = second = 0.0
            if counts is not None:
                first, second, labels = weight * counts[0], weight * counts[1], []
            for value in labels:
                if label is None:
                    winner = None if scores[0] == scores[1] else int(scores[0] < scores[1])
                else:
                    key = fields.key(record, "preference")
                    winner, *_ = verdict(value, key, (names[0], names[1]), record, options)
                first += weight * (0.5 if winner is None else 1.0 - winner)
                second += weight * (0.5 if winner is None else winner)
            if first + second == 0:
                raise Reject("no_preference", "the list of votes is empty")
        shared = with_system(shared, record, fields)
        if one == two:
            raise Reject("identical", "the two answers are the same text")
        if one > two:
            one, two, first, second = two, one, second, first
        return Vote(digest(shared, one, two), shared, (one, two), first, second, subset_of(record, fields))

    def drafts(self, items: list[tuple[int, Vote]], _options: Options) -> Iterator[Contribution]:
        """One pair for all items; the margin is the lead as a share of the votes."""
        if not items:
            return
        _, vote = items[0]
        first, second = (sum(pair) for pair in zip(*((item.first, item.second) for _, item in items), strict=True))
        share = first / (first + second)
        draft = Draft(vote.prompt, *vote.texts, 2 * share - 1, share)
        yield draft, Facts(subset=vote.subset), tuple(sorted(place for place, _ in items))

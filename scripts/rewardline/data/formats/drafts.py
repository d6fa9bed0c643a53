"""Pairs of rows: the drafts that formats read, what a row says of all its pairs, and the checks that formats share."""

from collections.abc import Iterator, Sequence
from math import isfinite
from operator import itemgetter
from typing import NamedTuple

from rewardline.data.conversation import Reject, read_text
from rewardline.data.formats.fields import (
    RowFields,
    difference,
    is_empty,
    label_text,
    read_difference,
    read_number,
    without_error,
)
from rewardline.data.formats.prompts import read_inputs
from rewardline.data.formats.settings import FormatSettings
from rewardline.data.schema import AnswerPosition, Message
from rewardline.data.turns import NO_INPUTS, TemplateInputs, Trajectory, turns_of

Rows = tuple[int, ...]
"""Indices of rows in a group."""


class Draft(NamedTuple):
    """A pair before the checks that all formats share; its texts may still be empty."""

    prompt: list[Message]
    chosen: str
    rejected: str
    margin: float | None = None
    confidence: float | None = None
    """The probability that `chosen` is better, in [0, 1]; None: that of the row."""
    node: str = ""
    """Which of its prompts, in a row or group that has several."""
    sources: tuple[str, str] = ("", "")
    """Who wrote `chosen` and `rejected`; empty: as the row says for all its pairs."""
    positions: tuple[int, int, int] = (0, 0, 2)
    """Indices of `chosen` and `rejected` in the row, and how many answers it has; see `AnswerPosition`."""
    golds: tuple[float | None, float | None] = (None, None)
    """The scores that the data gives `chosen` and `rejected`."""
    ratings: tuple[tuple[str, float], ...] | None = None
    """Of a single answer, which is `chosen`: its ratings by name. There is no `rejected` then."""


Drafts = Iterator[Draft | Reject]
"""The drafts of a row; a `Reject` says why a pair that it could give is left out."""


class PreferencePair(NamedTuple):
    """A preference between two answers to one prompt, as a row states it.

    `margin` is how much better `chosen` is (in the dataset's own unit, never negative; None if unknown).
    `confidence` is the probability that it is better, in (0.5, 1]; 0.5 only for a tie that the user wants kept, whose
    texts are then in alphabetical order. `sources` are the model or person that wrote each, empty if unknown.
    """

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    margin: float | None = None
    weight: float = 1.0
    subset: str = ""
    confidence: float = 1.0
    sources: tuple[str, str] = ("", "")
    place: AnswerPosition | None = None
    inputs: TemplateInputs = NO_INPUTS
    ratings: tuple[tuple[str, float], ...] | None = None
    """Of a single answer, which is `chosen`, beside an empty `rejected`."""


class RowPairs(list[PreferencePair]):
    """The pairs of a row, or of a group of rows."""

    def __init__(
        self,
        pairs: Sequence[tuple[PreferencePair, Rows]] = (),
        skipped: dict[str, int] | None = None,
        unused: dict[int, Reject] | None = None,
    ) -> None:
        super().__init__([pair for pair, _ in pairs])
        self.rows = [rows for _, rows in pairs]
        """For each pair, the indices of the rows that it comes from."""
        self.skipped = skipped or {}
        """By reason, how many further pairs the row or the group could have given."""
        self.unused = unused or {}
        """By index: why a row contributes to no pair."""
        self.changed = ""
        """What the pairs lack that the row has."""


class RowAttributes(NamedTuple):
    """What a row says of all its pairs."""

    margin: float | None = None
    margin_counts: bool = False
    """Whether the margin replaces that of each draft."""
    weight: float = 1.0
    subset: str = ""
    confidence: float | None = None
    sources: tuple[str, str] = ("", "")
    """Who wrote the chosen and the rejected answer."""
    item: str = ""
    inputs: TemplateInputs = NO_INPUTS
    ignored: str = ""
    """What is there but cannot be read."""


class Collector:
    """Turns drafts into pairs; counts those that fail a check, by reason."""

    def __init__(self, settings: FormatSettings, positions: bool = False) -> None:
        """`positions`: pairs have their positions, and may repeat, for a benchmark that is scored by row."""
        self._settings, self._positions = settings, positions
        self._pairs: dict[tuple[str, str, str, Rows], tuple[PreferencePair, Rows]] = {}
        self._count: dict[str, int] = {}
        self.skipped: dict[str, int] = {}
        self.rejects: dict[int, Reject] = {}
        """By row of a group: why the first draft was left out to which it contributes."""

    def add(self, draft: Draft | Reject, attributes: RowAttributes, rows: Rows = (0,)) -> None:
        """Check a draft to which `rows` of a group contribute."""
        try:
            if isinstance(draft, Reject):
                raise draft
            pair, position = self._pair(draft, attributes)
            key = draft.node, pair.chosen, pair.rejected, position
            if key in self._pairs:
                raise Reject("duplicate", "the row gives the same pair twice")
            count = self._count.get(draft.node, 0)
            if self._settings.max_pairs is not None and count >= self._settings.max_pairs:
                raise Reject("max_pairs", f"there are more than {self._settings.max_pairs} pairs")
        except Reject as reject:
            # Its traceback holds this frame, and with it what holds the reject: a cycle, for each row.
            self._skip(reject.with_traceback(None), rows)
        else:
            self._pairs[key] = pair, rows
            self._count[draft.node] = count + 1

    def _skip(self, reject: Reject, rows: Rows) -> None:
        self.skipped[reject.reason] = self.skipped.get(reject.reason, 0) + 1
        for row in rows:
            self.rejects.setdefault(row, reject)

    def _pair(self, draft: Draft, attributes: RowAttributes) -> tuple[PreferencePair, Rows]:
        """The pair of a draft, and its position where that tells pairs apart."""
        if draft.ratings is not None:
            _check_prompt(draft.prompt, [draft.chosen])
            _check_answer("answer", draft.chosen)
            single = PreferencePair(
                tuple(draft.prompt), draft.chosen, "", weight=attributes.weight, subset=attributes.subset,
                sources=draft.sources, inputs=attributes.inputs, ratings=draft.ratings,
            )  # fmt: skip
            return single, (*draft.positions[:1], -1)
        margin = attributes.margin if draft.margin is None or attributes.margin_counts else draft.margin
        confidence = draft.confidence if draft.confidence is not None else attributes.confidence
        confidence = 1.0 if confidence is None else confidence
        sources = draft.sources if any(draft.sources) else attributes.sources
        texts = draft.chosen, draft.rejected
        sides = list(zip(texts, sources, draft.positions[:2], draft.golds, strict=True))
        if confidence < 0.5:
            sides, confidence = sides[::-1], 1.0 - confidence
            margin = margin if margin is None else -margin
        if confidence == 0.5:
            if self._settings.ties == "drop":
                raise Reject("tie", "the answers are tied")
            sides.sort(key=itemgetter(0))
            margin = margin if margin is None else 0.0
        (chosen, chosen_source, first, gold), (rejected, rejected_source, second, other_gold) = sides
        _check(draft.prompt, chosen, rejected, margin, self._settings.min_margin)
        place: AnswerPosition | None = None
        if self._positions:
            place = {
                "item": attributes.item,
                "chosen": first,
                "rejected": second,
                "answers": draft.positions[2],
                "chosen_gold": gold,
                "rejected_gold": other_gold,
            }
        pair = PreferencePair(
            tuple(draft.prompt),
            chosen,
            rejected,
            margin,
            attributes.weight,
            attributes.subset,
            confidence,
            (chosen_source, rejected_source),
            place,
            attributes.inputs,
        )
        return pair, (first, second) if self._positions else ()

    def close(self) -> RowPairs:
        """The pairs; those that contradict each other are left out."""
        for key in [key for key in self._pairs if (key[0], key[2], key[1], ()) in self._pairs]:
            _, rows = self._pairs.pop(key)
            self._skip(Reject("contradiction", "the row says of each of two answers that it is the better one"), rows)
        return RowPairs(list(self._pairs.values()), self.skipped)


def _check_prompt(prompt: list[Message], answers: Sequence[str]) -> None:
    if not prompt:
        raise Reject("empty_prompt", "the prompt is empty")
    for n, turn in enumerate(prompt, 1):
        if not turn["content"] and turn["role"] != "tool":
            raise Reject("empty_prompt", f"turn {n} of {len(prompt)} of the prompt is empty")
    if prompt[-1]["role"] == "assistant" and any(turns_of(answer)[0]["role"] == "assistant" for answer in answers):
        raise Reject(
            "prompt_ends_with_assistant", "the prompt ends with an assistant turn: what do the answers answer?"
        )


def _check_answer(name: str, answer: str) -> None:
    if answer and not isinstance(answer, Trajectory):
        return
    turns = turns_of(answer)
    for n, turn in enumerate(turns, 1):
        if not turn["content"] and turn["role"] != "tool":
            part = f"turn {n} of {len(turns)} of " if len(turns) > 1 else ""
            raise Reject("empty_answer", f"{part}the {name} is empty")


def _check(prompt: list[Message], chosen: str, rejected: str, margin: float | None, min_margin: float | None) -> None:
    _check_prompt(prompt, (chosen, rejected))
    for name, answer in (("chosen answer", chosen), ("rejected answer", rejected)):
        _check_answer(name, answer)
    if chosen == rejected:
        raise Reject("identical", "the chosen and the rejected answer are the same text")
    if margin is not None and not isfinite(margin):
        raise Reject("bad_number", "the margin is too large")
    if margin is not None and margin < 0:
        raise Reject("negative_margin", f"the margin is {margin:g}: by it, the rejected answer is the better one")
    if min_margin is not None and margin is None:
        raise Reject("no_margin", f"min_margin is {min_margin:g}, but the pair has no margin")
    if min_margin is not None and margin is not None and margin < min_margin:
        raise Reject("small_margin", f"the margin is {margin:g}; min_margin is {min_margin:g}")


def read_attributes(row: RowFields) -> RowAttributes:
    """What the row says of all its pairs; rejects a value of another type in a field that the user mapped."""
    if not row.has_attributes:
        return RowAttributes()
    value, mapped = row.optional("margin"), row.mapped("margin")
    margin, ignored = None, ""
    if mapped or not is_empty(value):
        try:
            margin = read_difference(value, "margin")
        except Reject:
            if mapped or isinstance(value, float):  # else it merely has that name
                raise
            ignored = "margin ignored, as it is not a number,"
    inputs, unread = read_inputs(row)
    if margin is None and row.mapped("chosen_score"):
        high, low = (read_number(row.required(name), name) for name in ("chosen_score", "rejected_score"))
        margin = without_error(difference(high, low))
    return RowAttributes(
        margin,
        mapped,
        read_weight(row),
        read_subset(row),
        read_confidence(row),
        (read_source(row, "chosen_source"), read_source(row, "rejected_source")),
        _read_item(row),
        inputs,
        ignored or unread,
    )


def read_weight(row: RowFields) -> float:
    """The row's weight, 1 where none is mapped."""
    if not row.mapped("weight"):
        return 1.0
    weight = read_number(row.required("weight"), "weight")
    if weight <= 0:
        raise Reject("bad_number", f"the weight is {weight:g} but must be above 0")
    return weight


def read_subset(row: RowFields) -> str:
    """The row's subset, empty if it names none; a number counts as text."""
    subset = row.optional("subset")
    if isinstance(subset, int | float) and not isinstance(subset, bool):
        return label_text(subset)
    named = isinstance(subset, str) or (row.mapped("subset") and subset is not None)
    return read_text(subset, "subset") if named else ""


def read_confidence(row: RowFields) -> float | None:
    """The probability that `chosen` is better, in [0, 1]: the row's `confidence`, or its `odds` r as r / (1 + r)."""
    if row.mapped("confidence"):
        confidence = read_number(row.required("confidence"), "confidence")
        if not 0 <= confidence <= 1:
            raise Reject("bad_number", f"the confidence is {confidence:g} but must be a share between 0 and 1")
        return _exact_tie(confidence)
    if row.mapped("odds"):
        odds = read_number(row.required("odds"), "odds")
        if odds < 0:
            raise Reject("bad_number", f"the odds are {odds:g} but must be 0 or more")
        return _exact_tie(odds / (1 + odds))
    return None


def _exact_tie(confidence: float) -> float:
    """A confidence, 0.5 where it differs from that only by a rounding error."""
    return confidence if without_error(confidence - 0.5) else 0.5


def read_source(row: RowFields, name: str) -> str:
    """Who wrote an answer, empty if the row does not say it."""
    if row.mapped(name):
        return source_name(row.optional(name))
    keys = name, name.replace("source", "model")  # the usual names
    return next((found for key in keys if (found := source_name(row.record.get(key)))), "")


def source_name(value: object) -> str:
    """The name of a model or person, empty for a value of another type."""
    return read_text(value, "the source") if isinstance(value, str) else ""


def _read_item(row: RowFields) -> str:
    """The row's own id where it is mapped; a number counts as text."""
    item = row.required("item") if row.mapped("item") else ""
    return item if isinstance(item, str) else label_text(item)

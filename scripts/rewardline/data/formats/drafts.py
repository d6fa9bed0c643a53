"""From drafts to pairs: the checks that all formats share."""

from collections.abc import Iterable
from math import isfinite
from typing import Any, Final, NamedTuple

from rewardline.data.conversation import Pair, Place, Reject, clean
from rewardline.data.formats.chosen_rejected import Draft
from rewardline.data.formats.fields import Fields, Record, number
from rewardline.data.formats.options import Options, code

Rows = tuple[int, ...]
SOURCES: Final = {
    "chosen_source": ("chosen_source", "chosen_model"),
    "rejected_source": ("rejected_source", "rejected_model"),
    "source_a": ("source_a", "model_a"),
    "source_b": ("source_b", "model_b"),
}
"""The usual names of what says who wrote an answer."""


class Pairs(list[Pair]):
    """The pairs of a row. `skipped` counts, by reason, those that it could have given as well."""

    def __init__(self, found: Iterable[Pair] = (), skipped: dict[str, int] | None = None) -> None:
        super().__init__(found)
        self.skipped: dict[str, int] = skipped or {}


class Facts(NamedTuple):
    """What a row says of all its pairs."""

    margin: float | None = None
    forced: bool = False
    """The margin is that of each pair, whatever its scores say."""
    weight: float = 1.0
    subset: str = ""
    confidence: float | None = None
    sources: tuple[str, str] = ("", "")
    """Who wrote the chosen and the rejected answer."""
    item: str = ""


class Collector:
    """Takes drafts; keeps those that pass all checks and says why the others do not."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._found: dict[tuple[str, str, str, Place | None], tuple[Pair, Rows]] = {}
        self._count: dict[str, int] = {}
        self.skipped: dict[str, int] = {}
        self.first: Reject | None = None
        """Why the first draft that was left out was left out."""
        self.blame: dict[int, Reject] = {}
        """By row of a group: why a draft that it has part in was left out."""

    def add(self, draft: Draft | Reject, facts: Facts, rows: Rows = ()) -> None:
        """Check a draft to which `rows` of a group contribute."""
        try:
            if isinstance(draft, Reject):
                raise draft
            pair = self._pair(draft, facts)
            key = draft.node, pair.chosen, pair.rejected, pair.place
            if key in self._found:
                raise Reject("duplicate", "the row gives the same pair twice")
            count = self._count.get(draft.node, 0)
            if self._options.max_pairs is not None and count >= self._options.max_pairs:
                raise Reject("max_pairs", f"there are more than {self._options.max_pairs} pairs")
        except Reject as reject:
            self._leave(reject, rows)
        else:
            self._found[key] = pair, rows
            self._count[draft.node] = count + 1

    def _leave(self, reject: Reject, rows: Rows) -> None:
        self.skipped[reject.reason] = self.skipped.get(reject.reason, 0) + 1
        self.first = self.first or reject
        for row in rows:
            self.blame.setdefault(row, reject)

    def _pair(self, draft: Draft, facts: Facts) -> Pair:
        margin = facts.margin if draft.margin is None or facts.forced else draft.margin
        share = draft.confidence if draft.confidence is not None else facts.confidence
        share = 1.0 if share is None else share
        sources = draft.sources if any(draft.sources) else facts.sources
        sides = list(zip((draft.chosen, draft.rejected), sources, draft.places[:2], strict=True))
        if share < 0.5:
            sides, share = sides[::-1], 1.0 - share
            margin = margin if margin is None else -margin
        if share == 0.5:
            if self._options.ties == "drop":
                raise Reject("tie", "the answers are tied")
            sides.sort()
            margin = margin if margin is None else 0.0
        (chosen, better, first), (rejected, worse, second) = sides
        _check(draft, chosen, rejected, margin, self._options.min_margin)
        place = Place(facts.item, first, second, draft.places[2]) if self._options.published else None
        sources = better, worse
        return Pair(tuple(draft.prompt), chosen, rejected, margin, facts.weight, facts.subset, share, sources, place)

    def close(self) -> list[tuple[Pair, Rows]]:
        """The pairs, each with the rows that it comes from; those that contradict each other are left out."""
        for key in [key for key in self._found if (key[0], key[2], key[1], None) in self._found]:
            _, rows = self._found.pop(key)
            self._leave(Reject("contradiction", "the row says of each of two answers that it is the better one"), rows)
        return list(self._found.values())


def facts_of(record: Record, fields: Fields) -> Facts:
    """What the row as a whole says; rejects what is no number or no text where the user said that it is one."""
    margin = fields.optional(record, "margin")
    forced = fields.mapped("margin")
    if forced or (isinstance(margin, int | float) and not isinstance(margin, bool)):
        margin = number(margin, "margin")
    else:
        margin = None  # a key that happens to be called so
    if margin is None and fields.mapped("chosen_score"):
        high, low = (number(fields.required(record, name), name) for name in ("chosen_score", "rejected_score"))
        margin = high - low
    weight, subset, share = weight_of(record, fields), subset_of(record, fields), share_of(record, fields)
    sources = source_of(record, fields, "chosen_source"), source_of(record, fields, "rejected_source")
    return Facts(margin, forced, weight, subset, share, sources, item_of(record, fields))


def source_of(record: Record, fields: Fields, name: str) -> str:
    """Who wrote an answer, empty if the row does not say it."""
    if fields.mapped(name):
        return source_name(fields.optional(record, name))
    return next((found for key in SOURCES.get(name, ()) if (found := source_name(record.get(key)))), "")


def source_name(value: Any) -> str:
    """The name of a model or person, empty for what is no name."""
    return clean(value, "the source") if isinstance(value, str) else ""


def subset_of(record: Record, fields: Fields) -> str:
    """The row's subset, empty if it names none; a number counts as text."""
    subset = fields.optional(record, "subset")
    if isinstance(subset, int | float) and not isinstance(subset, bool):
        return code(subset)
    named = isinstance(subset, str) or (fields.mapped("subset") and subset is not None)
    return clean(subset, "subset") if named else ""


def item_of(record: Record, fields: Fields) -> str:
    """The row's own id where it is mapped; a number counts as text."""
    found = fields.required(record, "item") if fields.mapped("item") else ""
    return found if isinstance(found, str) else code(found)


def weight_of(record: Record, fields: Fields) -> float:
    """The row's weight, 1 where none is mapped."""
    if not fields.mapped("weight"):
        return 1.0
    weight = number(fields.required(record, "weight"), "weight")
    if weight <= 0:
        raise Reject("bad_number", f"the weight is {weight:g} but must be above 0")
    return weight


def share_of(record: Record, fields: Fields) -> float | None:
    """How sure the row is that `chosen` is better, in [0, 1]: its `confidence`, or its `odds` r as r / (1 + r)."""
    if fields.mapped("confidence"):
        share = number(fields.required(record, "confidence"), "confidence")
        if not 0 <= share <= 1:
            raise Reject("bad_number", f"the confidence is {share:g} but must be a share between 0 and 1")
        return share
    if fields.mapped("odds"):
        odds = number(fields.required(record, "odds"), "odds")
        if odds < 0:
            raise Reject("bad_number", f"the odds are {odds:g} but must be 0 or more")
        return odds / (1 + odds)
    return None


def _check(draft: Draft, chosen: str, rejected: str, margin: float | None, min_margin: float | None) -> None:
    if not draft.prompt:
        raise Reject("empty_prompt", "the prompt is empty")
    for n, turn in enumerate(draft.prompt, 1):
        if not turn["content"]:
            raise Reject("empty_prompt", f"turn {n} of {len(draft.prompt)} of the prompt is empty")
    if draft.prompt[-1]["role"] == "assistant":
        raise Reject(
            "prompt_ends_with_assistant", "the prompt ends with an assistant turn: what do the answers answer?"
        )
    if not chosen or not rejected:
        raise Reject("empty_answer", f"the {'rejected' if chosen else 'chosen'} answer is empty")
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

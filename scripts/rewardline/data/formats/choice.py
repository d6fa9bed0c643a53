"""The format of a data set and what its codes mean, decided once by the rows looked at."""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from rewardline.data.conversation import Reject
from rewardline.data.formats.best_answer import start_of
from rewardline.data.formats.chosen_rejected import SIDES
from rewardline.data.formats.coding import preference_coding
from rewardline.data.formats.detect import Candidate, Known, candidates
from rewardline.data.formats.fields import Fields, Record
from rewardline.data.formats.options import Options, code


class Choice(NamedTuple):
    """How to read a data set: the format (null if it is not clear), a sentence about it, and what else is decided."""

    name: str | None
    words: str
    fields: dict[str, str]
    values: dict[str, Any]


class Survey:
    """What the rows looked at say."""

    def __init__(
        self, records: list[Record], mapping: dict[str, str], known: tuple[str, ...], options: Options
    ) -> None:
        self._records = [record for record in records if isinstance(record, dict)]
        self._count = len(records)
        self._mapping, self._options = mapping, options
        self.fields = Fields(mapping, known)
        coding = preference_coding(self._records, self.fields)
        self._values, self._asked = ({}, "") if options.values else (coding.values, coding.hint)
        self._start = options.values.get("start") if options.values else self._counted()
        known_options = options if options.values else Options(**{**vars_of(options), "values": self._values})
        known_here = Known(known_options, self._start)
        self.found = [
            [self._checked(item) for item in candidates(record, self.fields, known_here)] for record in self._records
        ]

    def _counted(self) -> int | None:
        """The number of the first of several answers."""
        named: dict[str, None] = {}
        for record in self._records:
            with suppress(Reject):
                named |= {self.fields.path(record, side): None for side in SIDES if self.fields.present(record, side)}
        return start_of(self._records, self.fields, tuple(named))[0]

    def _checked(self, item: Candidate) -> Candidate:
        """A candidate, with what is to be asked about the data set's codes."""
        coded = item.name in ("preference", "votes") and (not item.hint or item.hint.startswith("values: {first"))
        return item._replace(hint=self._asked) if coded and self._asked else item

    def choose(self, descriptions: Mapping[str, str]) -> Choice:
        """The format that fits more than half of the rows for certain, if no other fits any.

        Else it is null, and the sentence lists the candidates with what to set for each.
        """
        certain: Counter[str] = Counter()
        hints: dict[str, str] = {}
        places: dict[str, Candidate] = {}
        mixed: set[str] = set()
        for found in self.found:
            sure = [item for item in found if not item.hint]
            if len(sure) == 1:
                certain[sure[0].name] += 1
                if places.setdefault(sure[0].name, sure[0]) != sure[0]:
                    mixed.add(sure[0].name)
                    hints[sure[0].name] = f"format: {sure[0].name} and `fields`; its rows differ"
            for item in found:
                if item.hint or len(sure) > 1:
                    hints.setdefault(item.name, item.hint or f"format: {item.name}")
        if {*hints, *certain} == {"labelled"} and self._signed():
            certain["labelled"] = self._count
        if len(certain) == 1 and 2 * certain.total() > self._count and not mixed:
            (name,) = certain
            extra = dict(places[name].fields) if name in places else {}
            return Choice(name, f"format {name}: {descriptions[name]}", {**extra, **self._mapping}, self.values(name))
        hints = {**{name: f"format: {name}" for name in certain}, **hints}
        if not hints:
            words = (
                "no format fits by its names alone. Say where its parts stand with `fields: {prompt: ..., chosen: ..., "
                f"rejected: ...}}`, or set `format` to one of {', '.join(descriptions)}"
            )
            return Choice(None, words, {}, {})
        words = "it may be " + "; ".join(f"{name} (set {hint})" for name, hint in sorted(hints.items()))
        return Choice(None, words, {}, {})

    def keep(self, name: str) -> Choice:
        """The format that the user set, with what its codes mean; the format is null where that is not clear."""
        asked = self._asked if name in ("preference", "votes") else ""
        every = zip(self._records, self.found, strict=True)
        for record, item in ((record, item) for record, found in every for item in found):
            named = [f"{field}: {path}" for field, path in item.fields if field in ("preference", "best")]
            if name in ("pairs", "messages", "transcript") and named and self.fields.present(record, "rejected"):
                asked = f"format: {item.name} and fields: {{{named[0]}}}; chosen names an answer that stands elsewhere"
            elif item.name == name == "ranked" and item.hint.startswith("values: {start"):
                asked = item.hint
        if asked:
            return Choice(None, f"set {asked}", {}, {})
        stated = [dict(item.fields) for found in self.found for item in found if item.name == name and not item.hint]
        return Choice(name, f"format {name}", {**(stated[0] if stated else {}), **self._mapping}, self.values(name))

    def values(self, name: str) -> dict[str, Any]:
        """What codes mean in rows of a format."""
        if self._options.values:
            return self._options.values
        if name in ("preference", "votes"):
            return self._values
        return {"start": self._start} if name == "ranked" and self._start is not None else {}

    def _signed(self) -> bool:
        """Whether the labels of single answers are 1 and -1, which say themselves which is the good one."""
        try:
            labels = {code(self.fields.optional(record, "label")) for record in self._records}
        except Reject:
            return False
        return "-1" in labels and labels <= {"1", "-1", "+1", "0"}


def vars_of(options: Options) -> dict[str, Any]:
    """The options by name."""
    return {name: getattr(options, name) for name in Options.__dataclass_fields__}

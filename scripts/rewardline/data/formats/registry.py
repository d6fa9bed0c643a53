"""From a row of a preference data set to pairs.

    convert = converter("pairs", {"chosen": "answers[0].text", "rejected": "answers[1].text"})
    for pair in convert({"question": "2 + 2?", "answers": [{"text": "4"}, {"text": "5"}]}): ...

A format says what shape a row has, `fields` where its parts stand if they do not have one of the usual names.
The formats of FORMATS read a row by itself; those of GROUPED need several rows at once (see `formats_groups`).
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, Final, NamedTuple, TypeVar

from rewardline.core.errors import UserError
from rewardline.data.conversation import Message, Pair, Reject
from rewardline.data.formats.choice import Choice, Survey
from rewardline.data.formats.chosen_rejected import (
    SIDES,
    Draft,
    Drafts,
    implicit,
    judge,
    pairs,
    transcript,
    with_system,
)
from rewardline.data.formats.drafts import Collector, Pairs, facts_of
from rewardline.data.formats.fields import Fields, Record, steps_of
from rewardline.data.formats.grouped import Grouping, GroupPairs, GroupReject, LabelledReader, Reader, VotesReader
from rewardline.data.formats.options import OPTIONS, Options
from rewardline.data.formats.ranked import good_bad, ranked
from rewardline.data.formats.settings import FormatSettings
from rewardline.data.formats.trees import TreeReader, tree
from rewardline.data.formats.two_answers import preference

__all__ = [
    "FORMATS",
    "GROUPED",
    "OPTIONS",
    "Choice",
    "GroupPairs",
    "GroupReject",
    "Grouping",
    "Message",
    "Pair",
    "Pairs",
    "Reject",
    "check",
    "choose",
    "converter",
    "detect",
    "grouping",
    "recognise",
]


class Format(NamedTuple):
    """How rows of a shape are read: the reader, the shape in a line, and the fields that `fields` may map."""

    read: Callable[[Record, Fields, Options], Drafts]
    description: str
    fields: tuple[str, ...]


class GroupFormat(NamedTuple):
    """As `Format`, for rows that are read in groups."""

    reader: Callable[[], Reader]
    description: str
    fields: tuple[str, ...]


_Shape = TypeVar("_Shape")
_SHARED: Final = ("margin", "weight", "subset", "system", "item")
_SCORES: Final = ("chosen_score", "rejected_score", "confidence", "odds", "chosen_source", "rejected_source")
_PROMPT: Final = ("prompt",)
_TWO: Final = ("answer_a", "answer_b", "preference", "score_a", "score_b", "votes_a", "votes_b")

FORMATS: Final[dict[str, Format]] = {
    "transcript": Format(
        transcript,
        'chosen and rejected are whole dialogues in text, "\\n\\nHuman: ...\\n\\nAssistant: ..." (HH-RLHF)',
        (*SIDES, *_SCORES, *_SHARED),
    ),
    "pairs": Format(
        pairs,
        "a prompt (text, a transcript or messages) and two answers, chosen and rejected (text or a message)",
        (*_PROMPT, *SIDES, *_SCORES, *_SHARED),
    ),
    "messages": Format(
        implicit,
        "chosen and rejected are lists of messages (role and content, or from and value); the prompt is what they"
        " share, or a field of its own",
        (*_PROMPT, *SIDES, *_SCORES, *_SHARED),
    ),
    "preference": Format(
        preference,
        "two answers (answer_a and answer_b, response_0 and response_1, ...) with a preference or a score for each",
        (
            *_PROMPT,
            "answer_a",
            "answer_b",
            "answers",
            "preference",
            "score_a",
            "score_b",
            "votes_a",
            "votes_b",
            "confidence",
            "odds",
            "source_a",
            "source_b",
            *_SHARED,
        ),
    ),
    "ranked": Format(
        ranked,
        "a prompt and a list of answers from best to worst, or with a score or a rank (1 is best) for each",
        (*_PROMPT, "answers", "scores", "ranks", "best", "sources", *_SHARED),
    ),
    "good_bad": Format(
        good_bad,
        "a prompt, a list of good and a list of bad answers: each good one is better than each bad one",
        (*_PROMPT, "good", "bad", *_SHARED),
    ),
    "judge": Format(
        judge,
        'chosen and rejected are prompts to a judge, with "###The instruction to evaluate:" (Prometheus)',
        (*SIDES, *_SCORES, *_SHARED),
    ),
    "tree": Format(
        tree,
        "a message tree (OpenAssistant): a first message, each with its replies, answers among them with ranks",
        ("prompt", "weight", "subset"),
    ),
}

GROUPED: Final[dict[str, GroupFormat]] = {
    "labelled": GroupFormat(
        LabelledReader,
        "a prompt and one answer (or a conversation that ends with it) with a label, good or bad, or a score (KTO);"
        " rows are grouped by prompt",
        (*_PROMPT, "system", "answer", "conversation", "label", "score", "group", "subset"),
    ),
    "votes": GroupFormat(
        VotesReader,
        "as preference or pairs, where several rows (or a list of labels) vote on the same two answers",
        (*_PROMPT, "system", *SIDES, *_TWO, "weight", "subset"),
    ),
    "tree_messages": GroupFormat(
        TreeReader,
        "a message of a tree a row (OpenAssistant): message_id, parent_id, message_tree_id, role, text, rank",
        ("tree", "id", "parent", "rank"),
    ),
}


def converter(
    format: str,  # noqa: A002 - the name of the key in the config
    fields: dict[str, str] | None = None,
    **options: Any,
) -> Callable[[Record], Pairs]:
    """A function from a row (a JSON object) to its pairs; it raises `Reject` for a row that gives none.

    A row is rejected for what is wrong with it as a whole, or, if each of its pairs is left out, for the first one's
    reason. `fields` maps a field to a path (see `Fields`); for `options` see `Options`.

    Raises `UserError` for an unknown format, field or option value, and for a format of GROUPED.
    """
    if format in GROUPED:
        raise UserError(f"rows of format {format} are read in groups: call grouping({format!r}), not converter")
    shape: Format = _known(format, FORMATS)
    where, chosen = Fields(fields, shape.fields), _options(options)
    read = shape.read

    def convert(record: Record) -> Pairs:
        if not isinstance(record, dict):
            raise Reject("not_object", "the row is not an object with named fields")
        facts = facts_of(record, where)
        collector = Collector(chosen)
        for draft in read(record, where, chosen):
            if isinstance(draft, Draft):
                draft = draft._replace(prompt=with_system(draft.prompt, record, where))
            collector.add(draft, facts)
        found = collector.close()
        if not found:
            raise collector.first or Reject("no_pair", "the row has no two answers to compare")
        return Pairs([pair for pair, _ in found], collector.skipped)

    return convert


def grouping(format: str, fields: dict[str, str] | None = None, **options: Any) -> Grouping:  # noqa: A002
    """How to group the rows of a format of GROUPED, and to convert each group; arguments as for `converter`."""
    shape: GroupFormat = _known(format, GROUPED)
    return Grouping(shape.reader(), Fields(fields, shape.fields), _options(options))


def check(settings: FormatSettings) -> None:
    """Raise `UserError` for settings that no row can be read with; `auto` stands for any format."""
    options = options_of(settings)
    if settings.format == "auto":
        Fields(settings.fields, known_fields())
        _options(options)
    elif settings.format in GROUPED:
        grouping(settings.format, settings.fields, **options)
    else:
        converter(settings.format, settings.fields, **options)


def options_of(settings: FormatSettings) -> dict[str, Any]:
    """The options of a format, by name."""
    return {name: getattr(settings, name) for name in OPTIONS}


def known_fields() -> tuple[str, ...]:
    """The fields that any format has."""
    shapes: list[Format | GroupFormat] = [*FORMATS.values(), *GROUPED.values()]
    return tuple(dict.fromkeys(name for shape in shapes for name in shape.fields))


def _known(name: str, formats: Mapping[str, _Shape]) -> _Shape:
    if name in formats:
        return formats[name]
    every: dict[str, Format | GroupFormat] = {**FORMATS, **GROUPED}
    near = get_close_matches(str(name), every, 1)
    hint = f"; did you mean {near[0]}?" if near else "."
    listing = "\n".join(f"  {name}: {shape.description}" for name, shape in every.items())
    raise UserError(f"there is no format {name!r}{hint} The formats are:\n{listing}")


def _options(options: dict[str, Any]) -> Options:
    if unknown := [name for name in options if name not in (*OPTIONS, "published")]:
        raise UserError(f"there is no option {unknown[0]!r}; known are {', '.join(OPTIONS)}")
    given = {name: value for name, value in options.items() if value is not None}
    chosen = Options(**given)
    for path in chosen.attributes:
        steps_of(path)
    return chosen


def detect(
    record: Record, fields: dict[str, str] | None = None, values: dict[str, Any] | None = None
) -> str | list[str]:
    """The one format that fits a row for certain, else a list of those that may be meant (perhaps none).

    A list of plain answers is no certain ranking: only the user knows whether they are in order. `fields` and `values`
    count as in `converter`. Never raises for a JSON value; a `UserError` names a bad path in `fields`.
    """
    (found,) = _survey([record], fields, {"values": values}).found or ([],)
    certain = [candidate.name for candidate in found if not candidate.hint]
    return certain[0] if len(certain) == 1 else [*certain, *(item.name for item in found if item.hint)]


def recognise(
    records: list[Record], fields: dict[str, str] | None = None, values: dict[str, Any] | None = None, **options: Any
) -> tuple[str | None, str]:
    """The format of a data set by its first rows (null if it is not clear), and a sentence about it."""
    return choose(records, "auto", fields, values=values, **options)[:2]


def choose(
    records: list[Record],
    format: str = "auto",  # noqa: A002
    fields: dict[str, str] | None = None,
    **options: Any,
) -> Choice:
    """How to read a data set, by its first rows: the format, and what its codes mean; arguments as for `converter`."""
    survey = _survey(records, fields, options)
    if format != "auto":
        return survey.keep(format)
    every: dict[str, Format | GroupFormat] = {**FORMATS, **GROUPED}
    return survey.choose({name: shape.description for name, shape in every.items()})


def _survey(records: list[Record], fields: dict[str, str] | None, options: dict[str, Any]) -> Survey:
    return Survey(records, fields or {}, known_fields(), _options(options))

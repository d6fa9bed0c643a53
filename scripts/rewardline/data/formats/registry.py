"""The formats of rows, by name, and the conversion of rows to pairs.

    fields = {"chosen": "answers[0].text", "rejected": "answers[1].text"}
    convert = converter(FormatSettings(format="pairs", fields=fields))
    for pair in convert({"question": "2 + 2?", "answers": [{"text": "4"}, {"text": "5"}]}): ...

A format says what shape a row has, `fields` where its parts are if they do not have one of the usual names. The formats
of FORMATS read a row by itself; those of GROUPED need several rows at once (see `grouped`).
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from typing import Final, Generic, NamedTuple, TypeVar

from rewardline.core.errors import UserError
from rewardline.data.conversation import Reject
from rewardline.data.formats.chosen_rejected import (
    SIDES,
    read_conversations,
    read_judge_prompts,
    read_pair,
    read_transcripts,
)
from rewardline.data.formats.drafts import Collector, Draft, Drafts, RowPairs, read_attributes
from rewardline.data.formats.fields import Fields, Record, RowFields
from rewardline.data.formats.grouped import Grouping, group_labelled, group_rows, pair_votes, read_vote
from rewardline.data.formats.plain import PlainReader
from rewardline.data.formats.prompts import with_system_prompt
from rewardline.data.formats.ranked import read_good_bad, read_graph, read_ranked
from rewardline.data.formats.rated import read_rated
from rewardline.data.formats.settings import FormatSettings
from rewardline.data.formats.trees import pair_siblings, read_tree, read_tree_message
from rewardline.data.formats.two_answers import read_preferences

Reader = Callable[[RowFields], Drafts]
GroupReader = Callable[[Fields, bool], Grouping]
T = TypeVar("T", Reader, GroupReader)


class Format(NamedTuple, Generic[T]):
    """How rows of a shape are read: the reader, the shape in a line, and the fields that `fields` may map."""

    read: T
    description: str
    fields: tuple[str, ...]


_INPUTS: Final = ("tools", "chat_template_kwargs")
_SHARED: Final = ("margin", "weight", "subset", "system", "item", *_INPUTS)
_SIDES: Final = (
    *SIDES,
    *("chosen_score", "rejected_score", "confidence", "odds", "chosen_source", "rejected_source"),
    *_SHARED,
)
_TWO: Final = ("answer_a", "answer_b", "preference", "score_a", "score_b", "votes_a", "votes_b")

FORMATS: Final[dict[str, Format[Reader]]] = {
    "transcript": Format(
        read_transcripts,
        'chosen and rejected are complete transcripts, "\\n\\nHuman: ...\\n\\nAssistant: ..." (HH-RLHF)',
        _SIDES,
    ),
    "pairs": Format(
        read_pair,
        "a prompt (text, a transcript or messages) and two answers, chosen and rejected (text or a message)",
        ("prompt", *_SIDES),
    ),
    "messages": Format(
        read_conversations,
        "chosen and rejected are lists of messages (role and content, or from and value); the prompt is what they"
        " share, or a field of its own",
        ("prompt", *_SIDES),
    ),
    "preference": Format(
        read_preferences,
        "two answers (answer_a and answer_b, response_0 and response_1, ...) with a preference or a score for each",
        ("prompt", "answers", *_TWO, "confidence", "odds", "source_a", "source_b", *_SHARED),
    ),
    "ranked": Format(
        read_ranked,
        "a prompt and a list of answers from best to worst, or with a score or a rank (1 is best) for each",
        ("prompt", "answers", "scores", "ranks", "best", "sources", *_SHARED),
    ),
    "good_bad": Format(
        read_good_bad,
        "a prompt, a list of good and a list of bad answers: each good one is better than each bad one",
        ("prompt", "good", "bad", *_SHARED),
    ),
    "graph": Format(
        read_graph,
        "a prompt, a list of answers and a list of preferences between them: objects with the number or id of a"
        " `chosen` and of a `rejected` answer (IF-RewardBench)",
        ("prompt", "answers", "preferences", "sources", *_SHARED),
    ),
    "judge": Format(
        read_judge_prompts,
        'chosen and rejected are prompts to a judge, with "###The instruction to evaluate:" (Prometheus)',
        _SIDES,
    ),
    "rated": Format(
        read_rated,
        "a prompt and one answer (or several) with a label, a score or `ratings` of each: single answers, for"
        " `training.objective`",
        (
            "prompt",
            "answer",
            "conversation",
            "answers",
            "scores",
            *SIDES,
            "label",
            "score",
            "weight",
            "subset",
            "system",
            *_INPUTS,
        ),
    ),
    "tree": Format(
        read_tree,
        "a message tree (OpenAssistant): a first message, each with its replies, answers among them with ranks",
        ("prompt", "weight", "subset"),
    ),
}
GROUPED: Final[dict[str, Format[GroupReader]]] = {
    "labelled": Format(
        group_labelled,
        "a prompt and one answer (or a conversation that ends with it) with a label, good or bad, or a score (KTO);"
        " rows are grouped by prompt",
        ("prompt", "system", "answer", "conversation", "label", "score", "group", "subset", *_INPUTS),
    ),
    "votes": Format(
        partial(group_rows, read_vote, pair_votes),
        "as preference or pairs, where several rows (or a list of labels) vote on the same two answers",
        ("prompt", "system", *SIDES, *_TWO, "weight", "subset", *_INPUTS),
    ),
    "tree_messages": Format(
        partial(group_rows, read_tree_message, pair_siblings),
        "a message of a tree a row (OpenAssistant): message_id, parent_id, message_tree_id, role, text, rank",
        ("tree", "id", "parent", "rank"),
    ),
}
_ALL: Final[dict[str, Format[Reader] | Format[GroupReader]]] = {**FORMATS, **GROUPED}
DESCRIPTIONS: Final = {name: shape.description for name, shape in _ALL.items()}
"""The shape of each format's rows, in a line."""
FIELDS: Final = {name: shape.fields for name, shape in _ALL.items()}
"""The fields of each format."""
KNOWN_FIELDS: Final = tuple(dict.fromkeys(field for shape in _ALL.values() for field in shape.fields))
"""The fields that any format has."""


def converter(settings: FormatSettings, positions: bool = False) -> Callable[[Record], RowPairs]:
    """A function from a row (a JSON object) to its pairs; it raises `Reject` for a row that gives none.

    A row is rejected for a fault of the row, or, if each of its pairs is left out, for the reason of the first one.
    `positions`: for a benchmark that is scored by row: a pair has its position, and may come twice.

    Raises:
        UserError: an unknown format or field, or a format of GROUPED.
    """
    if settings.format in GROUPED:
        name = settings.format
        raise UserError(f"rows of format {name} are read in groups: call grouping({name!r}), not converter")
    shape = _known(settings.format, FORMATS)
    fields, read = Fields(settings, shape.fields), shape.read
    plain = PlainReader.of(fields, positions)

    def convert(record: Record) -> RowPairs:
        if plain and (found := plain.read(record)):
            return found.row_pairs()
        row = fields.of(record)
        attributes = read_attributes(row)
        collector = Collector(settings, positions)
        for draft in read(row):
            if isinstance(draft, Draft):
                draft = draft._replace(prompt=with_system_prompt(draft.prompt, row))
            collector.add(draft, attributes)
        if pairs := collector.close():
            pairs.changed = attributes.ignored
            return pairs
        raise collector.rejects.get(0) or Reject("no_pair", "the row has no two answers to compare")

    return convert


def plain_reader(settings: FormatSettings) -> PlainReader | None:
    """What reads those rows that `converter` reads in one step, each of one pair; None if it reads none so."""
    shape = FORMATS.get(settings.format)
    return PlainReader.of(Fields(settings, shape.fields), positions=False) if shape else None


def grouping(settings: FormatSettings, positions: bool = False) -> Grouping:
    """How to group the rows of a format of GROUPED, and to convert each group; arguments as for `converter`.

    Raises:
        UserError: another format, or an unknown field.
    """
    shape = _known(settings.format, GROUPED)
    return shape.read(Fields(settings, shape.fields), positions)


def check(settings: FormatSettings) -> None:
    """Check settings before any row is read; `auto` may be any format.

    Raises:
        UserError: an unknown format or field, or a bad path.
    """
    allowed = ("auto", "rated") if settings.ratings else ("rated",)
    if (settings.ratings or settings.scale) and settings.format not in allowed:
        raise UserError(f"ratings and scale are of single answers: set format: rated instead of {settings.format}")
    if settings.format == "auto":
        Fields(settings, KNOWN_FIELDS)
    elif settings.format in GROUPED:
        grouping(settings)
    else:
        converter(settings)


def _known(name: str, formats: Mapping[str, Format[T]]) -> Format[T]:
    if name in formats:
        return formats[name]
    near = get_close_matches(name, DESCRIPTIONS, 1)
    hint = f"; did you mean {near[0]}?" if near else "."
    listing = "\n".join(f"  {name}: {description}" for name, description in DESCRIPTIONS.items())
    raise UserError(f"there is no format {name!r}{hint} The formats are:\n{listing}")

"""From a row of a preference data set to pairs.

    convert = converter("pairs", {"chosen": "answers[0].text", "rejected": "answers[1].text"})
    for pair in convert({"question": "2 + 2?", "answers": [{"text": "4"}, {"text": "5"}]}): ...

A format says what shape a row has, `fields` where its parts stand if they do not have one of the usual names.
Formats of one row stand here; one that needs several rows at once (votes, trees, joins) groups them first.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from math import isfinite
from typing import Any, Final, NamedTuple

from rewardline.cli import UserError
from rewardline.formats_detect import candidates
from rewardline.formats_fields import Fields, Record, number
from rewardline.formats_lists import good_bad, preference, ranked
from rewardline.formats_pairs import SIDES, Draft, Drafts, Options, implicit, judge, pairs, transcript
from rewardline.formats_text import Message, Pair, Reject, clean

__all__ = ["FORMATS", "OPTIONS", "Message", "Pair", "Pairs", "Reject", "converter", "detect"]


class Format(NamedTuple):
    """How rows of a shape are read: the reader, the shape in a line, and the fields that `fields` may map."""

    read: Callable[[Record, Fields, Options], Drafts]
    description: str
    fields: tuple[str, ...]


OPTIONS: Final = ("pairing", "min_margin", "max_pairs", "values", "separator")
"""The options of `converter`, which are keys of a data set in the configuration."""

_SHARED: Final = ("margin", "weight", "subset")
_SCORES: Final = ("chosen_score", "rejected_score")
_PROMPT: Final = ("prompt", "system")

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
        (*_PROMPT, "answer_a", "answer_b", "answers", "preference", "score_a", "score_b", *_SHARED),
    ),
    "ranked": Format(
        ranked,
        "a prompt and a list of answers from best to worst, or with a score or a rank (1 is best) for each",
        (*_PROMPT, "answers", "scores", "ranks", *_SHARED),
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
}


class Pairs(list[Pair]):
    """The pairs of a row. `skipped` counts, by reason, those that it could have given as well."""

    def __init__(self, found: Iterable[Pair] = (), skipped: dict[str, int] | None = None) -> None:
        super().__init__(found)
        self.skipped: dict[str, int] = skipped or {}


def converter(
    format: str,  # noqa: A002 - the name of the key in the config
    fields: dict[str, str] | None = None,
    *,
    pairing: str = "all",
    min_margin: float | None = None,
    max_pairs: int | None = None,
    values: dict[str, Any] | None = None,
    separator: str | None = None,
) -> Callable[[Record], Pairs]:
    """A function from a row (a JSON object) to its pairs; it raises `Reject` for a row that gives none.

    A row is rejected for what is wrong with it as a whole, or, if each of its pairs is left out, for the first one's
    reason.

    `fields` maps a field to a path (see `Fields`). Options:
    - `pairing` of ranked answers: `all`, `best_worst`, or `adjacent` (each level with the next).
    - `min_margin`: leave out pairs whose margin is smaller; a pair without a margin is left out too.
    - `max_pairs` of a row.
    - `values`: how preferences are coded. `{first: 1, second: [2, 3], tie: 0}`, or `{signed: first}` (or `second`):
      which answer is better where the number is above 0; its size is then the margin.
    - `separator`: splits a text that holds several answers.

    Raises `UserError` for an unknown format, field or option value.
    """
    if format not in FORMATS:
        near = get_close_matches(str(format), FORMATS, 1)
        hint = f"; did you mean {near[0]}?" if near else "."
        listing = "\n".join(f"  {name}: {shape.description}" for name, shape in FORMATS.items())
        raise UserError(f"there is no format {format!r}{hint} The formats are:\n{listing}")
    if pairing not in ("all", "best_worst", "adjacent"):
        raise UserError(f"pairing is {pairing!r} but must be all, best_worst or adjacent")
    if max_pairs is not None and max_pairs < 1:
        raise UserError(f"max_pairs is {max_pairs} but must be 1 or more")
    if values and not (
        set(values) <= {"first", "second", "tie"} or values in ({"signed": "first"}, {"signed": "second"})
    ):
        raise UserError("values needs first, second and tie, or only signed, which is first or second")
    where = Fields(fields, FORMATS[format].fields)
    options = Options(pairing, min_margin, max_pairs, values or {}, separator)
    read = FORMATS[format].read

    def convert(record: Record) -> Pairs:
        if not isinstance(record, dict):
            raise Reject("not_object", "the row is not an object with named fields")
        return _finish(record, where, options, read(record, where, options))

    return convert


def _finish(record: Record, fields: Fields, options: Options, drafts: Drafts) -> Pairs:
    """The drafts that pass the checks that all formats share."""
    margin, weight, subset = _row(record, fields)
    found: dict[tuple[str, str], Pair] = {}
    skipped: Counter[str] = Counter()
    first: Reject | None = None
    for draft in drafts:
        try:
            if isinstance(draft, Reject):
                raise draft
            lead = margin if draft.margin is None or fields.mapped("margin") else draft.margin
            _check(draft, lead, options.min_margin)
            if (draft.chosen, draft.rejected) in found:
                raise Reject("duplicate", "the row gives the same pair twice")
            if options.max_pairs is not None and len(found) >= options.max_pairs:
                raise Reject("max_pairs", f"the row gives more than {options.max_pairs} pairs")
        except Reject as reject:
            skipped[reject.reason] += 1
            first = first or reject
        else:
            found[draft.chosen, draft.rejected] = Pair(
                tuple(draft.prompt), draft.chosen, draft.rejected, lead, weight, subset
            )
    for pair in [pair for pair in found if pair[::-1] in found]:
        first = first or Reject("contradiction", "the row says of each of two answers that it is the better one")
        skipped["contradiction"] += 1
        del found[pair]
    if not found:
        raise first or Reject("no_pair", "the row has no two answers to compare")
    return Pairs(found.values(), dict(skipped))


def _row(record: Record, fields: Fields) -> tuple[float | None, float, str]:
    """The margin, weight and subset that the row as a whole has."""
    margin, weight = fields.optional(record, "margin"), 1.0
    if fields.mapped("margin") or (isinstance(margin, int | float) and not isinstance(margin, bool)):
        margin = number(margin, "margin")
    else:
        margin = None  # a key that happens to be called so
    if margin is None and fields.mapped("chosen_score"):
        high, low = (number(fields.required(record, name), name) for name in _SCORES)
        margin = high - low
    if fields.mapped("weight"):
        weight = number(fields.required(record, "weight"), "weight")
        if weight <= 0:
            raise Reject("bad_number", f"the weight is {weight:g} but must be above 0")
    subset = fields.optional(record, "subset")
    named = isinstance(subset, str) or fields.mapped("subset")
    return margin, weight, clean(subset, "subset") if named else ""


def _check(draft: Draft, margin: float | None, min_margin: float | None) -> None:
    if not draft.prompt:
        raise Reject("empty_prompt", "the prompt is empty")
    for n, turn in enumerate(draft.prompt, 1):
        if not turn["content"]:
            raise Reject("empty_prompt", f"turn {n} of {len(draft.prompt)} of the prompt is empty")
    if draft.prompt[-1]["role"] == "assistant":
        raise Reject(
            "prompt_ends_with_assistant", "the prompt ends with an assistant turn: what do the answers answer?"
        )
    if not draft.chosen or not draft.rejected:
        raise Reject("empty_answer", f"the {'rejected' if draft.chosen else 'chosen'} answer is empty")
    if draft.chosen == draft.rejected:
        raise Reject("identical", "the chosen and the rejected answer are the same text")
    if margin is not None and not isfinite(margin):
        raise Reject("bad_number", "the margin is too large")
    if margin is not None and margin < 0:
        raise Reject("negative_margin", f"the margin is {margin:g}: by it, the rejected answer is the better one")
    if min_margin is not None and margin is None:
        raise Reject("no_margin", f"min_margin is {min_margin:g}, but the pair has no margin")
    if min_margin is not None and margin is not None and margin < min_margin:
        raise Reject("small_margin", f"the margin is {margin:g}; min_margin is {min_margin:g}")


def detect(record: Record, fields: dict[str, str] | None = None) -> str | list[str]:
    """The one format that fits a row for certain, else a list of those that may be meant (perhaps none).

    A list of plain answers is no certain ranking: only the user knows whether they are in order. `fields` counts as
    in `converter`. Never raises for a JSON value; a `UserError` names a bad path in `fields`.
    """
    known = tuple(dict.fromkeys(name for shape in FORMATS.values() for name in shape.fields))
    where = Fields(fields, known)
    certain, possible = candidates(record, where) if isinstance(record, dict) else ([], [])
    return certain[0] if len(certain) == 1 else [*certain, *possible]

"""What the labels of public datasets say: which of two answers is better, and whether an answer is a good one."""

from functools import lru_cache
from typing import Final, NamedTuple

from rewardline.data.conversation import Reject, describe_type
from rewardline.data.formats.answers import two_answer_keys
from rewardline.data.formats.fields import RowFields, is_number, label_text, read_number

FIRST: Final = frozenset({"a", "first", "model_a", "left", "[[a]]", "a>b", "a>>b"})
SECOND: Final = frozenset({"b", "second", "model_b", "right", "[[b]]", "b>a", "b>>a", "a<b", "a<<b"})
TIE: Final = frozenset(
    {"tie", "tie (bothbad)", "both_bad", "bothbad", "both", "equal", "neither", "draw", "same", "[[c]]", "a=b", "b=a"}
)
GOOD: Final = frozenset({
    "true", "good", "up", "thumbs_up", "thumbs up", "thumbsup", "👍", "+1", "1", "chosen", "preferred", "desirable",
    "desired", "like", "liked", "upvote", "accept", "accepted",
})  # fmt: skip
BAD: Final = frozenset({
    "false", "bad", "down", "thumbs_down", "thumbs down", "thumbsdown", "👎", "-1", "0", "rejected", "reject",
    "dispreferred", "undesirable", "undesired", "dislike", "disliked", "downvote",
})  # fmt: skip
# What numbers mean in public sets, by the key of the preference and of the first answer; elsewhere `values` must say.
NUMERIC: Final[dict[tuple[str, str], dict[str, int | None]]] = {
    ("better_response_id", "response_0"): {"0": 0, "1": 1},  # PKU-SafeRLHF
    ("labels", "human_ref_A"): {"1": 0, "0": 1},  # SHP
    ("preference", "output_1"): {"1": 0, "2": 1, "0": None, "1.5": None},  # AlpacaFarm, AlpacaEval
}
SIGNED: Final = {  # above 0 the second answer is better
    ("overall_preference", "response1"): "second",  # HelpSteer3
    ("preference_strength", "response_1"): "second",  # HelpSteer2-Preference
}
SHIFTED: Final = ("preference", "output_1")  # AlpacaEval: 1 + the probability that the second answer is better
ONE_HOT: Final = ("winner_model_a", "winner_model_b", "winner_tie")
_NOUNS: Final = ("model", "response", "answer", "assistant", "output", "completion", "option")
_WINNERS: Final[dict[str, int | None]] = {"first": 0, "second": 1, "tie": None}


class Preference(NamedTuple):
    """What a label says of two answers."""

    winner: int | None
    """0 or 1; None for a tie."""
    lead: float | None = None
    """By how much the first answer is better, if the label says so."""
    confidence: float | None = None
    """The probability that the label is right, if it says so."""


def read_preference(label: object, key: str, names: tuple[str, str], row: RowFields) -> Preference:
    """What a label means that is under `key`, where the two answers are under `names`."""
    values = row.settings.values
    coded = bool(values) and values.keys() <= {"first", "second", "tie"}
    signed = values.get("signed") if values else SIGNED.get((key, names[0]))
    if signed:
        lead = read_number(label, "the preference") * (1.0 if signed == "first" else -1.0)
        return Preference(None if lead == 0 else int(lead < 0), lead)
    text = label_text(label)
    if coded:
        if text in row.sides:
            return Preference(_WINNERS[row.sides[text]])
    elif text in (numeric := NUMERIC.get((key, names[0]), {})):
        return Preference(numeric[text])
    elif (key, names[0]) == SHIFTED and isinstance(label, float) and 1 < label < 2:
        return Preference(int(label > 1.5), confidence=max(label - 1, 2 - label))
    elif not is_number(label):
        models = [_model_name(row.record.get(key)) for key in ("model_a", "model_b")]
        own = [(name.lower(), model) for name, model in zip(names, models, strict=True)]
        if (text in own[0]) != (text in own[1]):
            return Preference(int(text in own[1]))
        for winner, words in zip((0, 1, None), side_words(names), strict=True):
            if text in words:
                return Preference(winner)
    shown = repr(text[:50]) if isinstance(label, str | int | float) else describe_type(label)
    reason = "unknown_code" if coded and is_number(label) else "bad_preference"
    raise Reject(reason, f"who won by {shown}? set `values: {{first: ..., second: ..., tie: ...}}`")


def _model_name(value: object) -> str:
    return value.strip().lower() if isinstance(value, str) and value.strip() else "model"


@lru_cache(maxsize=256)
def side_words(names: tuple[str, str]) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """The words for the first answer, for the second and for a tie, given the keys of the two."""
    ends = [name.lower()[-1:] for name in names]
    letters = ends if sorted(ends) in (["1", "2"], ["0", "1"]) else ["a", "b"]
    own = [
        {noun + gap + end for end in {letter, *extra} for noun in _NOUNS for gap in (" ", "_", "")}
        for letter, extra in zip(letters, ("a", "b"), strict=True)
    ]
    return FIRST | own[0] | {names[0].lower()}, SECOND | own[1] | {names[1].lower()}, TIE


def preference_label(row: RowFields) -> object:
    """The row's label for its two answers; of a row with a key for each outcome, the one that holds 1."""
    record = row.record
    if is_one_hot(row) and not row.mapped("preference"):
        won = [key for key in ONE_HOT if key in record and label_text(record[key]) in ("1", "true")]
        if len(won) != 1:
            raise Reject("bad_preference", f"of {', '.join(ONE_HOT)} one should be 1, not {len(won)}")
        return won[0].removeprefix("winner_")
    if row.mapped("votes_a") and not row.mapped("preference"):
        return None  # the counts say it
    return row.optional("preference")


def is_one_hot(row: RowFields) -> bool:
    """Whether a row has a key for each outcome, as LMSYS has them."""
    return ONE_HOT[0] in row.record and ONE_HOT[1] in row.record


def vote_counts(row: RowFields) -> tuple[float, float] | None:
    """How many votes each of the two answers has, where the row has a count for each."""
    counts: list[object]
    if row.mapped("votes_a"):
        counts = [row.required(name) for name in ("votes_a", "votes_b")]
    else:
        keys = [two.votes for two in two_answer_keys(tuple(row.record))]
        counts = [row.record.get(key) for key in keys[0]] if len(keys) == 1 else [None]
    if None in counts:
        return None
    first, second = (read_number(value, "the count of votes") for value in counts)
    if min(first, second) < 0 or first + second == 0:
        raise Reject("no_preference", f"there are {first:g} and {second:g} votes")
    return first, second

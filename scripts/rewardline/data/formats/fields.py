"""Where in a row a field stands: the names that public data sets use, and paths that the user gives."""

import math
import re
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Final

from rewardline.core.errors import UserError
from rewardline.data.conversation import Reject, kind

Record = dict[str, Any]

SYNONYMS: Final[dict[str, tuple[str, ...]]] = {
    "prompt": (
        "prompt",
        "question",
        "instruction",
        "query",
        "context",
        "input",
        "history",
        "conversations",
        "conversation_input",
        "trajectory",
        "user_input",
        "messages",
        "contents",
    ),
    "system": ("system", "system_prompt"),
    "chosen": (
        "chosen",
        "better",
        "preferred",
        "accepted",
        "chosen_response",
        "response_chosen",
        "chosen_answer",
        "chosen_completion",
        "chosen_output",
        "chosen_messages",
        "preferred_response",
        "preferred_output",
        "winning_response",
        "pos_resp",
        "response_j",
        "full_chosen",
        "winner",
    ),
    "rejected": (
        "rejected",
        "reject",
        "worse",
        "dispreferred",
        "rejected_response",
        "response_rejected",
        "rejected_answer",
        "rejected_completion",
        "rejected_output",
        "rejected_messages",
        "dispreferred_response",
        "non_preferred_response",
        "non_preferred_output",
        "losing_response",
        "neg_resp",
        "response_k",
        "full_rejected",
        "loser",
    ),
    "preference": (
        "preference",
        "winner",
        "better_response_id",
        "choice",
        "label",
        "labels",
        "overall_preference",
        "preference_strength",
        "votes",
        "result",
        "chosen",
        "preferred",
        "better",
    ),
    "answers": (
        "answers",
        "responses",
        "completions",
        "outputs",
        "output",
        "generations",
        "replies",
        "candidates",
        "responses_and_scores",
        "choices",
    ),
    "scores": ("scores", "ratings", "rating"),
    "ranks": ("ranks",),
    "best": ("best", "best_index", "best_answer_index", "answerKey"),
    "good": ("good", "correct", "correct_answers", "good_answers"),
    "bad": ("bad", "incorrect", "incorrect_answers", "bad_answers", "wrong"),
    "answer": ("completion", "response", "answer", "output", "generation"),
    "conversation": ("messages", "conversations", "conversation"),
    "label": ("label", "kto_tag", "thumbs", "desirable", "chosen", "preferred"),
    "score": ("score", "rating", "reward"),
    "tree": ("message_tree_id",),
    "id": ("message_id",),
    "parent": ("parent_id",),
    "rank": ("rank",),
    "margin": ("margin",),
    "subset": ("subset",),
}
SYNONYMS["good"] += SYNONYMS["chosen"]
SYNONYMS["bad"] += SYNONYMS["rejected"]
GENERAL: Final = (
    "label",
    "labels",
    "votes",
    "result",
    "messages",
    "chosen",
    "preferred",
    "better",
)  # names that give way to all others
ALPACA: Final = ("input", "history")  # what Alpaca's form adds to an instruction
EMPTY: Final[tuple[Any, ...]] = (None, "", [])
TOGETHER: Final = (
    ("answer_a", "answer_b"),
    ("score_a", "score_b"),
    ("votes_a", "votes_b"),
    ("chosen_score", "rejected_score"),
    ("chosen_source", "rejected_source"),
    ("source_a", "source_b"),
)
PATH: Final = re.compile(r"[^.\[\]]+(\[(-?[0-9]{1,9}|\*)\])*(\.[^.\[\]]+(\[(-?[0-9]{1,9}|\*)\])*)*")
PLACE: Final = re.compile(r"\{([^{}]+)\}")
STEP: Final = re.compile(r"\[(-?[0-9]+|\*)\]|([^.\[\]]+)")


class Fields:
    """Reads the fields of a row: by the user's `mapping` of field to path, else by the usual names.

    A path is a key, or keys and list positions as in `answers[0].text`; `[*]` takes every item and a `*` in a key
    every key that fits, in natural order ("prediction *"); both give a list. A key that is spelt like the whole path
    comes first. A path that starts with "=" is not a path: the rest is the value, in which `{path}` stands for the text
    or number at a path ("=Which argument about {title} is better?").
    """

    def __init__(self, mapping: dict[str, str] | None, known: tuple[str, ...]) -> None:
        """`known` are the fields that the format has; a `UserError` names one that it has not, or a bad path."""
        self._paths = dict(mapping or {})
        self._steps: dict[str, tuple[str | int | None, ...]] = {}
        for name, path in self._paths.items():
            if name not in known:
                near = get_close_matches(str(name), known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
                raise UserError(f"fields: this format has no field {name!r}; {hint}")
            if not isinstance(path, str) or not (path.startswith("=") or PATH.fullmatch(path)):
                raise UserError(f"fields: {name}: {path!r} is not a path such as answers[0].text")
            for place in PLACE.findall(path) if path.startswith("=") else ():
                steps_of(place)
            self._steps[name] = () if path.startswith("=") else steps_of(path)
        for one, two in TOGETHER:
            if (one in self._paths) != (two in self._paths):
                raise UserError(f"fields: {one} and {two} must be given together")

    def mapped(self, name: str) -> bool:
        """Whether the user said where the field stands."""
        return name in self._paths

    def present(self, record: Record, name: str) -> bool:
        """Whether the row has the field, null or not."""
        return name in self._paths or bool(usual_keys(tuple(record), name))

    def key(self, record: Record, name: str) -> str:
        """The last key on the way to the field: with usual names, their meaning goes with it."""
        if name in self._steps:
            return next((step for step in reversed(self._steps[name]) if isinstance(step, str)), "")
        return self._usual(record, name) or ""

    def path(self, record: Record, name: str) -> str:
        """Where the field stands, as the user wrote it or as a usual name."""
        return self._paths.get(name) or self._usual(record, name) or ""

    def required(self, record: Record, name: str) -> Any:
        """The field's value (null if it is null); rejects a row that has not the field, or has it twice."""
        value, found = self._find(record, name)
        if not found:
            names = ", ".join(SYNONYMS.get(name, (name,)))
            raise Reject(
                "missing_field", f"no {name}: the row has none of {names}; it has {keys(record)} (set `fields`)"
            )
        return value

    def optional(self, record: Record, name: str) -> Any:
        """The field's value, null if the row has not the field; a path that the user gave must exist."""
        return self._find(record, name)[0]

    def _find(self, record: Record, name: str) -> tuple[Any, bool]:
        if name in self._paths:
            path = self._paths[name]
            if path[0] == "=":
                return PLACE.sub(lambda place: _inserted(record, place[1]), path[1:]), True
            return walk(record, path), True
        key = self._usual(record, name)
        return (record[key], True) if key is not None else (None, False)

    @staticmethod
    def _usual(record: Record, name: str) -> str | None:
        present = usual_keys(tuple(record), name)
        if len(present) > 1 and name in ("preference", "prompt"):
            present = [key for key in present if key not in GENERAL] or present
        if "votes" in present and not isinstance(record["votes"], list):
            present = [key for key in present if key != "votes"]  # a mere number of them
        if name == "prompt" and len(present) > 1 and is_history(record.get("history")):
            present = [key for key in present if key != "history"]
        if name == "answers" and len(present) > 1:
            present = [key for key in present if isinstance(record[key], list | dict)] or present
        if len(present) > 1:
            present = [key for key in present if record[key] not in EMPTY] or present[:1]
            present = present[:1] if all(record[key] == record[present[0]] for key in present) else present
            if name == "prompt" and "instruction" in present:
                present = [key for key in present if key not in ALPACA]
        if len(present) > 1:
            raise Reject("ambiguous_field", f"the {name} may be {' or '.join(present)}: set `fields: {{{name}: ...}}`")
        return present[0] if present else None


def is_history(value: Any) -> bool:
    """Whether `value` is a list of questions with their answers, which come before the prompt."""
    return isinstance(value, list) and all(isinstance(turn, list) and len(turn) == 2 for turn in value)


@lru_cache(maxsize=4096)
def usual_keys(names: tuple[str, ...], field: str) -> list[str]:
    """Those among a row's keys that are usual names of a field; not to be changed.

    `chosen` names the better text where there is a `rejected`, else it is a label; `winner` likewise with `loser`.
    """
    found = [key for key in SYNONYMS.get(field, ()) if key in names]
    if field in ("preference", "label") and any(key in names for key in SYNONYMS["rejected"]):
        found = [key for key in found if key not in SYNONYMS["chosen"]]
    if field in ("chosen", "good") and "loser" not in names:
        found = [key for key in found if key != "winner"]
    return found


@lru_cache(maxsize=1024)
def steps_of(path: str) -> tuple[str | int | None, ...]:
    """The keys and list positions of a path; null stands for `[*]`. Raises `UserError` for what is no path."""
    if not isinstance(path, str) or not PATH.fullmatch(path):
        raise UserError(f"{path!r} is not a path such as answers[0].text")
    return tuple(key or (None if index == "*" else int(index)) for index, key in STEP.findall(path))


def walk(record: Any, path: str) -> Any:
    """What stands at a path; rejects a record that has not that place."""
    return record[path] if isinstance(record, dict) and path in record else _walk(record, steps_of(path), path)


def _inserted(record: Record, path: str) -> str:
    value = walk(record, path)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Reject("not_text", f"{path!r} is {kind(value)}, not text to insert")
    return str(value)


def _walk(value: Any, steps: tuple[str | int | None, ...], path: str) -> Any:
    for n, step in enumerate(steps):
        rest = steps[n + 1 :]
        if step is None:
            if not isinstance(value, list):
                raise Reject("missing_field", f"no {path!r}: it needs a list where the row has {kind(value)}")
            return [_walk(item, rest, path) for item in value]
        if isinstance(step, int):
            if not isinstance(value, list) or not -len(value) <= step < len(value):
                size = f"a list of {len(value)}" if isinstance(value, list) else kind(value)
                raise Reject("missing_field", f"no {path!r}: it needs item {step} where the row has {size}")
            value = value[step]
        elif isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, dict) and "*" in step and (fitting := [key for key in value if fnmatchcase(key, step)]):
            return [_walk(value[key], rest, path) for key in sorted(fitting, key=_natural)]
        else:
            has = keys(value) if isinstance(value, dict) else kind(value)
            raise Reject("missing_field", f"no {path!r}: where {step!r} is expected the row has {has}")
    return value


def _natural(text: str) -> list[tuple[int, str]]:
    pieces = [piece.lstrip("0") if n % 2 else piece for n, piece in enumerate(re.split(r"([0-9]+)", text))]
    return [(len(piece) if n % 2 else 0, piece) for n, piece in enumerate(pieces)]


def keys(record: Record) -> str:
    """The keys of an object, as part of a sentence."""
    return "the keys " + ", ".join(str(key)[:40] for key in list(record)[:20]) if record else "no keys"


def number(value: Any, what: str) -> float:
    """A finite number; text that spells one counts, for tables without types."""
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        result = float(value)
        if not math.isfinite(result):
            raise ValueError
    except (ValueError, OverflowError):
        raise Reject("bad_number", f"{what} is {kind(value)} but should be a finite number") from None
    return result

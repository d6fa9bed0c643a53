"""How a field is found in a row: by the path that the user gives, or by the names that public datasets use."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final

from rewardline.core.errors import UserError, nearest
from rewardline.data.conversation import Reject, describe_type
from rewardline.data.formats.settings import FormatSettings

Record = Mapping[str, object]
"""The content of a row."""
Step = str | int | None
"""A key or a list index of a path; None is `[*]`."""

_USUAL_NAMES: Final = {
    "prompt": (
        "prompt question instruction query context input history conversations conversation_input trajectory "
        "user_input messages contents"
    ),
    "system": "system system_prompt system_message system_instruction systemInstruction",
    "chosen": (
        "chosen better preferred accepted chosen_response response_chosen chosen_answer chosen_completion "
        "chosen_output chosen_messages preferred_response preferred_output winning_response pos_resp "
        "response_j full_chosen winner"
    ),
    "rejected": (
        "rejected reject worse dispreferred rejected_response response_rejected rejected_answer "
        "rejected_completion rejected_output rejected_messages dispreferred_response non_preferred_response "
        "non_preferred_output losing_response neg_resp response_k full_rejected loser"
    ),
    "preference": (
        "preference winner better_response_id choice label labels overall_preference preference_strength "
        "votes result chosen preferred better"
    ),
    "answers": (
        "answers responses completions outputs output generations replies candidates responses_and_scores choices"
    ),
    "scores": "scores ratings rating",
    "ranks": "ranks",
    "preferences": "preferences preference_graph",
    "best": "best best_index best_answer_index answerKey",
    "good": "good correct correct_answers good_answers bon_best",
    "bad": "bad incorrect incorrect_answers bad_answers wrong loser_list",
    "answer": "completion response answer output generation",
    "conversation": "messages conversations conversation",
    "label": "label kto_tag thumbs desirable chosen preferred",
    "score": "score rating reward",
    "tree": "message_tree_id",
    "id": "message_id",
    "parent": "parent_id",
    "rank": "rank",
    "margin": "margin",
    "subset": "subset",
    "tools": "tools",
    "chat_template_kwargs": "chat_template_kwargs",
}
SYNONYMS: Final = {field: tuple(names.split()) for field, names in _USUAL_NAMES.items()}
"""The usual names of each field."""
SYNONYMS["good"] += SYNONYMS["chosen"]
SYNONYMS["bad"] += SYNONYMS["rejected"]
# Names that count only if the row has no other name of the field.
_GENERAL: Final = ("label", "labels", "votes", "result", "messages", "chosen", "preferred", "better")
_WITH_GENERAL: Final = ("preference", "prompt")  # the fields that have them
_MOST_SHAPES: Final = 1_000  # sets of keys that are remembered
ATTRIBUTES: Final = (
    *("margin", "weight", "subset", "system", "item", "tools", "chat_template_kwargs", "confidence", "odds"),
    *("chosen_score", "chosen_source", "rejected_source"),
)
"""What a row may say of all its pairs."""
_ALPACA: Final = ("input", "history")  # which Alpaca's format adds to an instruction
_WITH_TOOLS: Final = frozenset(
    name for field in ("prompt", "chosen", "rejected", "answers", "answer") for name in SYNONYMS[field]
)
EMPTY: Final[tuple[object, ...]] = (None, "", [])
_TOGETHER: Final = (
    ("answer_a", "answer_b"),
    ("score_a", "score_b"),
    ("votes_a", "votes_b"),
    ("chosen_score", "rejected_score"),
    ("chosen_source", "rejected_source"),
    ("source_a", "source_b"),
)
_PATH: Final = re.compile(r"[^.\[\]]+(\[(-?[0-9]{1,9}|\*)\])*(\.[^.\[\]]+(\[(-?[0-9]{1,9}|\*)\])*)*")
_INSERTED: Final = re.compile(r"\{([^{}]+)\}")
_STEP: Final = re.compile(r"\[(-?[0-9]+|\*)\]|([^.\[\]]+)")
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
_FRACTION: Final = re.compile(r"([^/]+?)\s*(?:/|\bout of\b)\s*([^/]+)")
_COMMA: Final = re.compile(r"([+-]?\d+),(\d{1,2}|\d{4,}|(?<=\b0,)\d{3})")
_POINT_GROUPED: Final = re.compile(r"[+-]?\d{1,3}(\.\d{3})+,\d+")
_COMMA_GROUPED: Final = re.compile(r"[+-]?\d{1,3}(,\d{3})+\.\d+")
_FULL_STARS: Final = "\u2605\u2b50"
_STARS: Final = re.compile("(?=.*[\u2605\u2b50\u2606])[\u2605\u2b50\u2606\xbd\ufe0f\\s]+")  # full, empty and half ones
DIGITS: Final = 12
"""Of a score or a share; others are errors of whoever computed it."""
_DECIMAL: Final = re.compile(r"([+-]?[0-9]+)\.([0-9]*)")


class Fields:
    """How the fields of rows are read: by the user's path for a field, else by the usual names.

    A path is a key, or keys and list indices as in `answers[0].text`; `[*]` takes every item and a `*` in a key
    every key that fits, in natural order ("prediction *"); both give a list. A key that is equal to the whole path
    comes first. A path that starts with "=" is not a path: the rest is the value, in which `{path}` is replaced by the
    text or number at a path, or by a list of them, one a line ("=Which argument about {title} is better?"). In square
    brackets, several paths give the list of their values ("[alpha, beta]").
    """

    def __init__(self, settings: FormatSettings, known: tuple[str, ...]) -> None:
        """`known` are the fields that the format has.

        Raises:
            UserError: a field that the format lacks, a bad path, or a label that `values` gives two meanings.
        """
        self.settings, self.paths = settings, settings.fields
        self.sides: dict[str, str] = {}
        """By the text of a label, which of the settings' `values` it is: first, second, tie, good or bad."""
        for side, labels in settings.values.items():
            for label in label_texts(labels):
                if self.sides.setdefault(label, side) != side:
                    raise UserError(f"values: {label} stands for {self.sides[label]} and for {side}; keep one")
        for name, path in self.paths.items():
            if name not in known:
                raise UserError(f"fields: this format has no field {name!r}{nearest(name, known)}")
            for each in _INSERTED.findall(path) if path.startswith("=") else _paths_of(path):
                steps_of(each, f"fields: {name}: ")
        for one, two in _TOGETHER:
            if (one in self.paths) != (two in self.paths):
                raise UserError(f"fields: {one} and {two} must be given together")
        for path in settings.attributes:
            steps_of(path, "attributes: ")
        for path in settings.ratings.values():
            for each in _paths_of(path):
                steps_of(each, "ratings: ")

        self._with_attributes: dict[tuple[str, ...], bool] = {}

    def usual(self, keys: tuple[str, ...], name: str) -> list[str]:
        """Those of a row's keys that are usual names of a field, without names that count only where no other does."""
        found = _usual_keys(keys, name)
        return ([key for key in found if key not in _GENERAL] or found) if name in _WITH_GENERAL else found

    def has_attributes(self, keys: tuple[str, ...]) -> bool:
        """Whether a row with these keys has any of `ATTRIBUTES`."""
        if keys not in self._with_attributes:
            if len(self._with_attributes) == _MOST_SHAPES:
                self._with_attributes.clear()
            self._with_attributes[keys] = any(
                name in self.paths or name in keys or name.replace("source", "model") in keys or _usual_keys(keys, name)
                for name in ATTRIBUTES
            )
        return self._with_attributes[keys]

    def of(self, record: Record) -> "RowFields":
        """The fields of a row; rejects what is not an object."""
        if not isinstance(record, dict):
            raise Reject("not_object", "the row is not an object with named fields")
        return RowFields(with_held_tools(record), self)

    def of_objects(self, records: Iterable[Record]) -> list["RowFields"]:
        """The fields of those rows that are objects, whatever these hold."""
        return [RowFields(record, self) for record in records if isinstance(record, dict)]


class RowFields:
    """The fields of one row."""

    __slots__ = ("_fields", "keys", "record", "settings", "sides")

    def __init__(self, record: Record, fields: Fields) -> None:
        self.record, self.keys, self._fields = record, tuple(record), fields
        self.settings, self.sides = fields.settings, fields.sides

    def replace(self, record: Record) -> "RowFields":
        """The fields of another row, read in the same way."""
        return RowFields(record, self._fields)

    @property
    def has_attributes(self) -> bool:
        """Whether the row has any of `ATTRIBUTES`."""
        return self._fields.has_attributes(self.keys)

    def mapped(self, name: str) -> bool:
        """Whether the user gave the field's path."""
        return name in self._fields.paths

    def present(self, name: str) -> bool:
        """Whether the row has the field, null or not."""
        return name in self._fields.paths or bool(_usual_keys(self.keys, name))

    def key(self, name: str) -> str:
        """The last key of the field's path, empty if the row lacks the field. Usual names carry a meaning."""
        path = self.path(name)
        if not self.mapped(name):
            return path
        steps = () if path.startswith(("=", "[")) else steps_of(path)
        return next((step for step in reversed(steps) if isinstance(step, str)), "")

    def path(self, name: str) -> str:
        """The field's path: the user's, or a usual name; empty if the row lacks the field."""
        return self._fields.paths.get(name) or self._usual_key(name)

    def required(self, name: str) -> object:
        """The field's value (None if it is null); rejects a row that lacks the field, or has it twice."""
        path = self.path(name)
        if not path:
            names, has = ", ".join(SYNONYMS.get(name, (name,))), _describe(self.record)
            raise Reject("missing_field", f"no {name}: the row has none of {names}; it has {has} (set `fields`)")
        return self.value(path)

    def optional(self, name: str) -> object:
        """The field's value, None if the row lacks the field; a path that the user gave must exist."""
        path = self.path(name)
        return self.value(path) if path else None

    def value(self, path: str) -> object:
        """The value at a path that the user gave; rejects a row that has none."""
        if path.startswith("="):
            return _INSERTED.sub(lambda match: _inserted_text(self.record, match[1]), path[1:])
        if path.startswith("[") and path not in self.record:
            return [value_at(self.record, each) for each in _paths_of(path)]
        return value_at(self.record, path)

    def _usual_key(self, name: str) -> str:
        """The usual name of a field that a row has, or ""; rejects a row with several that hold different values."""
        present = self.candidates(name)
        if len(present) > 1:
            raise Reject("ambiguous_field", f"the {name} may be {' or '.join(present)}: set `fields: {{{name}: ...}}`")
        return present[0] if present else ""

    def candidates(self, name: str) -> list[str]:
        """The usual names of a field under which a row has it; several only where they hold different values."""
        record, present = self.record, _usual_keys(self.keys, name)
        if "votes" in present and not isinstance(record["votes"], list):
            present = [key for key in present if key != "votes"]  # just how many
        if len(present) < 2:
            return present
        if name in _WITH_GENERAL:
            present = [key for key in present if key not in _GENERAL] or present
        if name == "prompt" and is_history(record.get("history")):
            present = [key for key in present if key != "history"] or present
        if name == "answers":
            present = [key for key in present if isinstance(record[key], list | dict)] or present
        present = [key for key in present if record[key] not in EMPTY] or present[:1]
        if all(record[key] == record[present[0]] for key in present):
            return present[:1]
        if name == "prompt" and "instruction" in present:
            present = [key for key in present if key not in _ALPACA]
        return present


def with_held_tools(record: Record) -> Record:
    """A row with the tools that stand beside the messages in one of its objects, as OpenAI's preferences have them."""
    held = [
        value["tools"]
        for key, found in record.items()
        if isinstance(found, dict | list) and key in _WITH_TOOLS
        for value in ([found] if isinstance(found, dict) else found)
        if isinstance(value, dict) and "messages" in value and value.get("tools")
    ]
    if not held or record.get("tools"):
        return record
    if any(tools != held[0] for tools in held):
        raise Reject("different_prompts", "the answers, or a prompt and its answers, have different tools")
    return {**record, "tools": held[0]}


def is_history(value: object) -> bool:
    """Whether `value` is a list of questions with their answers, which come before the prompt."""
    return isinstance(value, list) and all(isinstance(turn, list) and len(turn) == 2 for turn in value)


@lru_cache(maxsize=4096)
def _usual_keys(keys: tuple[str, ...], field: str) -> list[str]:
    """Those among a row's keys that are usual names of a field; not to be changed.

    `chosen` names the better text where there is a `rejected`, else it is a label; `winner` likewise with `loser`.
    """
    usual = [key for key in SYNONYMS.get(field, ()) if key in keys]
    if field in ("preference", "label") and any(key in keys for key in SYNONYMS["rejected"]):
        usual = [key for key in usual if key not in SYNONYMS["chosen"]]
    if field in ("chosen", "good") and "loser" not in keys:
        usual = [key for key in usual if key != "winner"]
    return usual


def _paths_of(path: str) -> list[str]:
    """The paths in square brackets, else the path itself."""
    return [each.strip() for each in path[1:-1].split(",")] if path[:1] + path[-1:] == "[]" else [path]


@lru_cache(maxsize=1024)
def steps_of(path: str, label: str = "") -> tuple[Step, ...]:
    """The steps of a path.

    Raises:
        UserError: it is not a path; the message starts with `label`.
    """
    if not _PATH.fullmatch(path):
        raise UserError(f"{label}{path!r} is not a path such as answers[0].text")
    return tuple(key or (None if index == "*" else int(index)) for index, key in _STEP.findall(path))


def value_at(record: object, path: str) -> object:
    """The value at a path; rejects a record that has no such path."""
    if isinstance(record, dict) and path in record:
        return record[path]
    return _follow(record, steps_of(path), path)


def _inserted_text(record: Record, path: str) -> str:
    value = value_at(record, path)
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return "\n".join(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Reject("not_text", f"{path!r} is {describe_type(value)}, not text to insert")
    return str(value)


def _follow(value: object, steps: tuple[Step, ...], path: str) -> object:
    for n, step in enumerate(steps):
        rest = steps[n + 1 :]
        if step is None and isinstance(value, list):
            return [_follow(item, rest, path) for item in value]
        if isinstance(step, int) and isinstance(value, list) and -len(value) <= step < len(value):
            value = value[step]
        elif isinstance(step, str) and isinstance(value, dict) and (keys := _matching_keys(value, step)):
            return [_follow(value[key], rest, path) for key in keys]
        elif isinstance(value, dict) and step in value:
            value = value[step]
        else:
            needed = "a list" if step is None else f"item {step}" if isinstance(step, int) else repr(step)
            raise Reject("missing_field", f"no {path!r}: it needs {needed} where the row has {_describe(value)}")
    return value


def _matching_keys(record: Record, pattern: str) -> list[str]:
    """The keys that match a pattern with a `*`, in natural order; none if a key is equal to it."""
    if "*" not in pattern or pattern in record:
        return []
    return sorted((key for key in record if fnmatchcase(key, pattern)), key=_natural_order)


def _natural_order(text: str) -> list[tuple[int, str]]:
    """A sort key that orders the numbers in texts by size."""
    pieces = [piece.lstrip("0") if n % 2 else piece for n, piece in enumerate(re.split(r"([0-9]+)", text))]
    return [(len(piece) if n % 2 else 0, piece) for n, piece in enumerate(pieces)]


def _describe(value: object) -> str:
    """A value by its type, its length or its keys, as part of a sentence."""
    if isinstance(value, dict) and value:
        return "the keys " + ", ".join(str(key)[:40] for key in list(value)[:20])
    return f"a list of {len(value)}" if isinstance(value, list) else describe_type(value)


def is_empty(value: object) -> bool:
    """Whether a value says nothing: null, or a cell of a table without text."""
    return value is None or (isinstance(value, str) and not value.strip())


def read_number(value: object, what: str) -> float:
    """A finite number; text that spells one counts, see `number_form`. `what` names it in the message."""
    number = math.nan
    if isinstance(value, str):
        number = number_form(value)[1]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):
            number = float(value)
    if not math.isfinite(number):
        found = f"the text {value[:40]!r}" if isinstance(value, str) else describe_type(value)
        raise Reject("bad_number", f"{what} is {found} but should be a finite number")
    return number


def number_form(text: str) -> tuple[str, float]:
    """How a text writes a number, and that number; NaN where it is none, or might be two: 1,234.

    The forms are `number` (also with a decimal comma, or digits of other scripts), `percent` (80% is 0.8), `fraction`
    (4/5 or 4 out of 5 is 0.8) and `stars`.
    """
    text = text.strip().replace("\N{MINUS SIGN}", "-")
    if found := _FRACTION.fullmatch(text):
        one, all_ = (_plain_number(part) for part in found.groups())
        return "fraction", one / all_ if all_ > 0 else math.nan
    if text.endswith("%"):
        return "percent", _plain_number(text[:-1]) / 100
    if _STARS.fullmatch(text):
        return "stars", sum(map(text.count, _FULL_STARS)) + text.count("\xbd") / 2
    return "number", _plain_number(text)


def _plain_number(text: str) -> float:
    text = text.strip()
    if _POINT_GROUPED.fullmatch(text):  # 1.234,5
        text = text.replace(".", "").replace(",", ".")
    elif _COMMA_GROUPED.fullmatch(text):  # 1,234.5
        text = text.replace(",", "")
    elif found := _COMMA.fullmatch(text):
        text = f"{found[1]}.{found[2]}"
    try:
        return float(text)
    except ValueError:
        return math.nan


def _rounded(number: float) -> float:
    """A score of 12 digits, or an integer: 0.1 + 0.2, and 100 times 0.1, whoever added them up, tie with 0.3 and 10."""
    return number if number.is_integer() else float(f"{number:.{DIGITS}g}")


def read_difference(value: object, what: str) -> float:
    """A finite number that says by how much an answer is better, without what may be a rounding error alone."""
    return without_error(read_number(value, what))


def without_error(number: float) -> float:
    """A difference, 0 if it is so small that rounding errors give it."""
    return 0.0 if abs(number) < 10.0**-DIGITS else number


def read_ratings(value: object, what: str) -> tuple[float, ...]:
    """The numbers of one or of several raters: a number, or a list of them in which null is no rating."""
    values = [each for each in value if each is not None] if isinstance(value, list) else [value]
    if not values:
        raise Reject("bad_number", f"{what} is a list without a number")
    return tuple(_rounded(read_number(each, what)) for each in values)


def decimal_sum(terms: Iterable[tuple[float, float]]) -> float:
    """The sum of products, as if done by hand: 3 x 0.1 and 1 x 0.3 are equal."""
    total = sum((Decimal(repr(weight)) * Decimal(repr(value)) for weight, value in terms), Decimal(0))
    return _rounded(float(total))


def difference(one: float, two: float) -> float:
    """How much larger the first number is, as if done by hand: 0.3 is 0.1 more than 0.2."""
    return float(Decimal(repr(one)) - Decimal(repr(two)))


def mean(values: Sequence[float]) -> float:
    """The mean; independent of the order, and exact where the values have few decimals."""
    if len(values) == 1:
        return values[0]
    return _rounded(float(sum(map(Decimal, map(repr, sorted(values))), Decimal(0)) / len(values)))


def label_text(value: object) -> str:
    """A label as text, in which 1, 1.0, "1" and "1.0" are one, as are 1.5 and "1.50", but true is none of them."""
    if isinstance(value, str):
        text = value.strip().lower()
        return text.rstrip("0").rstrip(".") if _DECIMAL.fullmatch(text) else text
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float) and abs(value) < 1e9:
        return str(int(value)) if value == int(value) else repr(value)
    return describe_type(value)


def label_texts(values: object) -> list[str]:
    """The labels of one value or of a list of them, as text."""
    return [label_text(value) for value in (values if isinstance(values, list | tuple) else [values])]


def is_number(label: object) -> bool:
    """Whether a label is a number, which may mean anything; text that spells one counts."""
    if isinstance(label, str):
        return _NUMBER.fullmatch(label.strip()) is not None
    return isinstance(label, int | float) and not isinstance(label, bool) and abs(label) < 1e9


def row_filter(where: Mapping[str, object]) -> Callable[[Record], Record]:
    """A function that returns a row that has the value, or one of a list of values, at each path of `where`.

    It raises `Reject` for others (`filtered`, or `missing_field`). Values are equal as labels are: 1, 1.0 and "1" are
    one, and case does not count.

    Raises:
        UserError: a bad path.
    """
    allowed = {path: set(label_texts(values)) for path, values in where.items()}
    for path in allowed:
        steps_of(path, "where: ")

    def keep(record: Record) -> Record:
        for path, labels in allowed.items():
            if (label := label_text(value_at(record, path))) not in labels:
                raise Reject("filtered", f"{path} is {label[:50]!r}")
        return record

    return keep

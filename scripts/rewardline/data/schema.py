"""The rows of pairs, candidates and rejects, each defined once: a class, and the Arrow schema made of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from types import NoneType
from typing import (
    Annotated,
    Final,
    NamedTuple,
    NotRequired,
    TypedDict,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import numpy as np
import numpy.typing as npt
import pyarrow as pa

CANDIDATE_ORDER: Final = ("prompt_id", "prompt", "dataset", "file", "row")
"""The fields that candidates are sorted by: their prompt, then where they come from."""
_ARROW_TYPES: Final[dict[object, pa.DataType]] = {str: pa.string(), int: pa.int64(), float: pa.float64()}
_order_of: Final = attrgetter(*CANDIDATE_ORDER)


class Message(TypedDict):
    """A turn of a conversation. `role` is system, developer, user, assistant or tool; `content` is trimmed text.

    `native` has the keys of the message that chat templates read, besides its role, where a text cannot say them all:
    `content` as the row has it, `tool_calls`, ... It is not a column.
    """

    role: str
    content: str
    native: NotRequired[dict[str, object]]


class RowLocation(TypedDict):
    """Where a row comes from: a file of its dataset and the row's number in it, from 1."""

    file: str
    row: int


class Rating(TypedDict):
    """What a person or a program says of an answer by itself: the name of an attribute, and its value."""

    name: str
    value: float


class AnswerPosition(TypedDict):
    """Where a pair's answers are in their row, for benchmarks that are scored by row.

    `item` is the row's own id; `chosen` and `rejected` are indices, from 0, into the row's list of answers, or into
    the lists of its good and of its bad ones; `answers` is how many answers the row has. `chosen_gold` and
    `rejected_gold` are the scores, or minus the ranks, that the data gives them, None if it gives none.
    """

    item: str
    chosen: Annotated[int, pa.int32()]
    rejected: Annotated[int, pa.int32()]
    answers: Annotated[int, pa.int32()]
    chosen_gold: float | None
    rejected_gold: float | None


@dataclass(frozen=True, slots=True)
class Pair:
    """A row of a mixture's pairs: a prompt and two answers, of which `chosen` is the better one.

    Or a single answer with `ratings`: then it is `chosen`, and `rejected` is empty.

    `pair_id` and `prompt_id` are 16 hex digits, stable hashes of the content. `margin` is how much better the chosen
    answer is, in the dataset's own unit; `confidence` the probability that it is better, in [0.5, 1]; `weight` its
    weight in the loss. `row` (from 1) of `file` is where it comes from. `chosen_source` and `rejected_source` are the
    model or person that wrote each answer. None where the data does not have it. `native` is what the texts do not
    say, in JSON (see `turns.pack`): tools, their calls, the turns of an answer that has several.
    """

    pair_id: str
    prompt_id: str
    dataset: str
    subset: str
    prompt: list[Message]
    chosen: str
    rejected: str
    margin: float | None
    confidence: float
    weight: float
    file: str
    row: int
    chosen_source: str | None
    rejected_source: str | None
    place: AnswerPosition | None
    native: str | None = None
    ratings: list[Rating] | None = None

    @property
    def answers(self) -> tuple[str, ...]:
        """The texts of its answers."""
        return (self.chosen, self.rejected) if self.ratings is None else (self.chosen,)


class Candidate(NamedTuple):
    """A pair before cleaning, with the fields of `Pair`; `prompt` is the canonical JSON of the message list.

    `others` are the rows that it was made of besides `row`.
    """

    prompt_id: Annotated[int, pa.uint64()]
    prompt: str
    chosen: str
    rejected: str
    margin: float | None
    confidence: float
    weight: float
    subset: str
    dataset: str
    file: str
    row: int
    others: Sequence[RowLocation] = ()
    chosen_source: str | None = None
    rejected_source: str | None = None
    place: AnswerPosition | None = None
    native: str | None = None
    ratings: list[Rating] | None = None

    @property
    def sources(self) -> list[tuple[str, int]]:
        """File and row of each row that it was made of."""
        return [(self.file, self.row), *((other["file"], other["row"]) for other in self.others)]

    @property
    def where(self) -> str:
        """Dataset, file and row, for messages."""
        return f"{self.dataset} {self.file}:{self.row}"

    @property
    def order(self) -> tuple[int, str, str, str, int]:
        """The values of `CANDIDATE_ORDER`."""
        key: tuple[int, str, str, str, int] = _order_of(self)
        return key


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row of `rejects.parquet`: a row of the data that gives no pair, or a pair that is left out.

    `reason` is a stable code to count by, `detail` a sentence for people; `row` counts from 1.
    """

    dataset: str
    file: str
    row: int
    reason: str
    detail: str


def arrow_schema(row: type) -> pa.Schema:
    """The Arrow schema of a row type: a column for each field, in their order.

    `str`, `int` and `float` are string, int64 and float64; `Annotated` names another Arrow type.
    """
    return pa.schema(_fields(row))


def _fields(row: object) -> list[tuple[str, pa.DataType]]:
    hints = get_type_hints(row, include_extras=True)
    return [(name, _arrow_type(kind)) for name, kind in hints.items() if get_origin(kind) is not NotRequired]


def _arrow_type(kind: object) -> pa.DataType:
    if is_typeddict(kind):
        return pa.struct(_fields(kind))
    arguments = get_args(kind)
    if get_origin(kind) is Annotated:
        return arguments[1]
    if NoneType in arguments:
        return _arrow_type(next(argument for argument in arguments if argument is not NoneType))
    if arguments:
        return pa.list_(_arrow_type(arguments[0]))
    return _ARROW_TYPES[kind]


PAIR_SCHEMA: Final = arrow_schema(Pair)
CANDIDATE_SCHEMA: Final = arrow_schema(Candidate)
REJECT_SCHEMA: Final = arrow_schema(RejectedRow)


def hash_texts(texts: pa.Array) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of each text, which represents ids where there are millions: uint64 [n]."""
    import pandas as pd  # here, as the report reads this file without it

    hashes: npt.NDArray[np.uint64] = pd.util.hash_array(texts.to_numpy(zero_copy_only=False), categorize=False)
    return hashes

"""Tokenized comparisons on disk: Arrow IPC shards, read through a memory map, and a manifest.

A comparison is a shared prefix of tokens, tails that continue it, and the pairs among the tails; a tail may also be
that of a single answer with ratings.
"""

from collections import Counter
from collections.abc import Sequence
from copy import copy
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, Field

from rewardline.core.artifacts import MANIFEST, Manifest, verify
from rewardline.core.errors import UserError, first_line, refused_by_system
from rewardline.core.hashing import digest, file_sha256
from rewardline.data.schema import Rating, RejectedRow, arrow_schema

Ids = npt.NDArray[np.int32]
Lengths = npt.NDArray[np.int64]
SPLITS = ("train", "eval")
BATCH = 512


class Shard(BaseModel):
    """An Arrow file of comparisons."""

    file: str
    comparisons: int
    sha256: str


class SplitEntry(BaseModel):
    """A split in the manifest.

    `full_tokens`: tokens of the chosen and rejected sequences of all pairs in full; `pairs_in`: pairs before
    tokenization, single answers with ratings included, of which there are `answers` after it.
    """

    comparisons: int = 0
    pairs: int = 0
    tokens: int = 0
    prefix_tokens: int = 0
    full_tokens: int = 0
    pairs_in: int = 0
    answers: int = Field(0, exclude_if=lambda answers: not answers)
    shards: list[Shard] = []


class TokenManifest(Manifest):
    """The manifest of a folder of tokens, or of one of its shards, which has `seconds`.

    `chat_template`: what the trained model carries, with which plain transformers give messages the same tokens; None
    if no template can. `changed`: by part, answer or prompt, the pairs of which the chat template leaves out or changes
    some text, such as reasoning.
    `reads_names`: whether names of systems in a column are system prompts, as the `fields` of a dataset say.
    `vocabulary`: number of tokens of the tokenizer; `truncated_pairs`, `truncated_tokens`: pairs whose prompt was cut,
    and the tokens that it lost; `dropped`: pairs that could not be tokenized, by reason, with some of them as examples.
    """

    template: str
    chat_template: str | None
    max_length: int
    end_id: int
    end_token: str
    pad_id: int
    pad_token: str
    num_padding_at_beginning: int
    reads_names: bool = Field(False, exclude_if=lambda reads_names: not reads_names)
    vocabulary: int
    splits: dict[str, SplitEntry]
    truncated_pairs: int
    truncated_tokens: int
    changed: dict[str, int] = Field({})
    dropped: dict[str, int]
    reject_examples: list[RejectedRow]
    seconds: float | None = Field(None, exclude_if=lambda seconds: seconds is None)

    def summary(self) -> str:
        """A line for the log."""
        tokens, dropped = sum(split.tokens for split in self.splits.values()), self.dropped or "none"
        changed = f"; changed by the chat template {self.changed}" if self.changed else ""
        return f"{tokens} tokens; prompts cut for {self.truncated_pairs} pairs; dropped {dropped}{changed}"


@dataclass(frozen=True, slots=True)
class ComparisonPair:
    """A pair among the tails of a comparison. `chosen`, `rejected`: indices of tails; the rest as in the pairs."""

    pair_id: str
    dataset: str
    subset: str
    chosen: Annotated[int, pa.int32()]
    rejected: Annotated[int, pa.int32()]
    margin: float | None = None
    confidence: float = 1.0
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class RatedAnswer:
    """A single answer of a comparison. `tail`: index of its tail; the rest as in the pairs, whose id is its own too."""

    answer_id: str
    dataset: str
    subset: str
    tail: Annotated[int, pa.int32()]
    ratings: list[Rating]
    weight: float = 1.0


@dataclass(frozen=True)
class Comparison:
    """Tokens of a prompt's answers: `prefix` int32 [P], each tail int32 [>= 1], and the pairs among the tails.

    `answer_start` is where the answers begin in [prefix, tail], the same for all of them.
    """

    prompt_id: str
    prefix: Ids
    tails: list[Ids]
    pairs: list[ComparisonPair]
    answer_start: int = 0
    answers: list[RatedAnswer] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Distinct tokens: the prefix once and every tail."""
        return len(self.prefix) + sum(map(len, self.tails))

    @property
    def full_tokens(self) -> int:
        """Tokens of the chosen and rejected sequences of every pair, and of every rated answer, in full."""
        lengths = [len(self.prefix) + len(tail) for tail in self.tails]
        pairs = sum(lengths[pair.chosen] + lengths[pair.rejected] for pair in self.pairs)
        return pairs + sum(lengths[answer.tail] for answer in self.answers)


def common_length(first: Ids, second: Ids) -> int:
    """The number of leading tokens that two sequences share."""
    size = min(len(first), len(second))
    if not size:
        return 0
    different = first[:size] != second[:size]
    index = int(different.argmax())
    return index if different[index] else size


def split_prefix(sequences: Sequence[Ids]) -> tuple[Ids, list[Ids]]:
    """The longest prefix that all sequences share, and the tail of each, which has at least one token."""
    first, *others = sequences
    length = min([min(map(len, sequences)) - 1, *(common_length(first, other) for other in others)])
    return first[:length], [sequence[length:] for sequence in sequences]


PAIR = pa.struct(list(arrow_schema(ComparisonPair)))
SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("answer_start", pa.int32()),
        ("prefix_ids", pa.list_(pa.int32())),
        ("tails", pa.list_(pa.list_(pa.int32()))),
        ("pairs", pa.list_(PAIR)),
    ]
)
RATED_SCHEMA = SCHEMA.append(pa.field("answers", pa.list_(pa.struct(list(arrow_schema(RatedAnswer))))))
"""Of shards with rated answers; those with pairs alone do without the column."""
_pair_values = attrgetter(*(column.name for column in PAIR))


def _batch(rows: list[Comparison], schema: pa.Schema) -> pa.RecordBatch:
    columns: list[list[object]] = [
        [row.prompt_id for row in rows],
        [row.answer_start for row in rows],
        [row.prefix for row in rows],
        [row.tails for row in rows],
        [[_pair_values(pair) for pair in row.pairs] for row in rows],
        [[asdict(answer) for answer in row.answers] for row in rows],
    ]
    arrays = [pa.array(values, column.type) for values, column in zip(columns, schema, strict=False)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


class ShardWriter:
    """Writes comparisons to `{split}-{number}.arrow` files of about `tokens_per_shard` tokens each."""

    def __init__(self, folder: Path, split: str, tokens_per_shard: int = 2**25, *, rated: bool = False) -> None:
        """`rated`: whether there may be answers with ratings."""
        self._folder, self._split, self._limit = folder, split, tokens_per_shard
        self._schema = RATED_SCHEMA if rated else SCHEMA
        self._rows: list[Comparison] = []
        self._writer: pa.RecordBatchFileWriter | None = None
        self._in_shard = 0
        self._sizes: dict[Path, int] = {}
        self._counts: Counter[str] = Counter()

    def add(self, row: Comparison) -> None:
        """Append a comparison."""
        self._rows.append(row)
        tokens = row.tokens
        self._in_shard += tokens
        counts = self._counts
        counts["comparisons"] += 1
        counts["pairs"] += len(row.pairs)
        counts["answers"] += len(row.answers)
        counts["tokens"] += tokens
        counts["prefix_tokens"] += len(row.prefix)
        counts["full_tokens"] += row.full_tokens
        if len(self._rows) >= BATCH or self._in_shard >= self._limit:
            self._flush()

    def _flush(self) -> None:
        if self._writer is None:
            path = self._folder / f"{self._split}-{len(self._sizes):05d}.arrow"
            self._sizes[path] = 0
            self._writer = pa.ipc.new_file(path, self._schema)
        if self._rows:
            self._writer.write_batch(_batch(self._rows, self._schema))
            self._sizes[next(reversed(self._sizes))] += len(self._rows)
        self._rows = []
        if self._in_shard >= self._limit:
            self._writer.close()
            self._writer, self._in_shard = None, 0

    def close(self, pairs_in: int | None = None) -> SplitEntry:
        """Finish the last file. `pairs_in`: those before tokenization; None for as many as were written."""
        if self._rows or not self._sizes:
            self._flush()
        if self._writer is not None:
            self._writer.close()
        return SplitEntry(
            **self._counts,
            pairs_in=self._counts["pairs"] + self._counts["answers"] if pairs_in is None else pairs_in,
            shards=[
                Shard(file=path.name, comparisons=size, sha256=file_sha256(path)) for path, size in self._sizes.items()
            ],
        )


class AnswerLengths(NamedTuple):
    """Tokens of the answers of pairs, int64 [P], and the weight and confidence of these, float64 [P]."""

    chosen: Lengths
    rejected: Lengths
    weight: npt.NDArray[np.float64]
    confidence: npt.NDArray[np.float64]


class TokenDataset:
    """The comparisons of a split, memory-mapped; sizes are known without reading tokens.

    Attributes:
        manifest: that of the folder.
        prefix_lengths: int64 [N].
        tail_counts: int64 [N].
        tail_lengths: int64 [sum of tail_counts].
        pair_counts: int64 [N].
        answer_counts: int64 [N], numbers of single answers with ratings.
        example_counts: int64 [N], of both together.
    """

    def __init__(self, folder: Path, split: str, fraction: float = 1.0) -> None:
        """Open all shards, each of which is read once to verify it; of the prompts, only a `fraction`, by their hash.

        Raises:
            UserError: the manifest or a shard is missing or damaged, or the fraction has no prompt.
        """
        self.manifest = TokenManifest.read(folder / MANIFEST)
        tables = [SCHEMA.empty_table()]
        for shard in self.manifest.splits[split].shards:
            path = folder / shard.file
            verify(path)
            try:
                tables.append(pa.ipc.open_file(pa.memory_map(str(path))).read_all())
            except (OSError, pa.ArrowException) as error:
                if refused_by_system(error):
                    raise
                raise UserError(
                    f"{path} cannot be read ({first_line(error)}); delete {folder} and run again"
                ) from error
        self._rows: pa.Table = pa.concat_tables(tables, promote_options="default")
        used = self._used(fraction)
        self._places: Lengths = np.flatnonzero(used)
        if fraction < 1 and not len(self._places):
            raise UserError(
                f"fraction: {fraction:g} of the {len(used):,} training prompts in {folder} is none; raise it"
            )
        tail_counts = _lengths(self._rows["tails"])
        self.prefix_lengths = _lengths(self._rows["prefix_ids"])[used]
        self.tail_counts = tail_counts[used]
        self.tail_lengths = _lengths(pc.list_flatten(self._rows["tails"]))[np.repeat(used, tail_counts)]
        self.pair_counts = _lengths(self._rows["pairs"])[used]
        self.answer_counts: Lengths = np.zeros_like(self.pair_counts)
        self._has_pairs = True
        self._is_rated = "answers" in self._rows.column_names
        if self._is_rated:
            self.answer_counts = _lengths(self._rows["answers"])[used]
        self.example_counts = self.pair_counts + self.answer_counts

    def _used(self, fraction: float) -> npt.NDArray[np.bool_]:
        if fraction == 1:
            return np.ones(len(self._rows), dtype=bool)
        prompts = self._rows["prompt_id"].to_pylist()
        return np.array([int(digest(f"fraction {prompt}"), 16) < fraction * 2**64 for prompt in prompts], dtype=bool)

    def __len__(self) -> int:
        return len(self.prefix_lengths)

    @property
    def pairs(self) -> int:
        """The number of pairs."""
        return int(self.pair_counts.sum())

    @property
    def answers(self) -> int:
        """The number of single answers with ratings."""
        return int(self.answer_counts.sum())

    def pairs_without_preference(self) -> int:
        """The number of pairs whose margin is 0 or negative."""
        margins = pc.struct_field(pc.list_flatten(self._column("pairs")), "margin")
        return int(pc.sum(pc.less_equal(margins, 0)).as_py() or 0)

    def ratings(self) -> dict[str, npt.NDArray[np.float64]]:
        """The values of each rating, by name: float64 [as many as there are]."""
        if not self._is_rated:
            return {}
        answers = pc.list_flatten(self._column("answers"))
        ratings = pc.list_flatten(pc.struct_field(answers, "ratings"))
        names, values = (pc.struct_field(ratings, name) for name in ("name", "value"))
        return {name: values.filter(pc.equal(names, name)).to_numpy() for name in sorted(names.unique().to_pylist())}

    @property
    def prompt_ids(self) -> pa.Array:
        """The id of each comparison's prompt: strings [N]."""
        return self._column("prompt_id").combine_chunks()

    @property
    def tokens(self) -> Lengths:
        """Distinct tokens of each comparison: int64 [N]."""
        owner = np.repeat(np.arange(len(self)), self.tail_counts)
        tails = np.bincount(owner, weights=self.tail_lengths, minlength=len(self)).astype(np.int64)
        total: Lengths = self.prefix_lengths + tails
        return total

    def without_pairs(self) -> "TokenDataset":
        """The same comparisons, of whose examples only single answers with ratings are left."""
        result = copy(self)
        result.pair_counts, result.example_counts = np.zeros_like(self.pair_counts), self.answer_counts
        result._has_pairs = False
        return result

    def __getitem__(self, index: int) -> Comparison:
        index = int(self._places[index])
        tails = self._rows["tails"][index].values
        pairs = self._rows["pairs"][index].as_py() if self._has_pairs else ()
        return Comparison(
            prompt_id=self._rows["prompt_id"][index].as_py(),
            prefix=self._rows["prefix_ids"][index].values.to_numpy(),
            tails=[tails[k].values.to_numpy() for k in range(len(tails))],
            pairs=[ComparisonPair(**pair) for pair in pairs],
            answer_start=self._rows["answer_start"][index].as_py(),
            answers=self._answers(index) if self._is_rated else [],
        )

    def answer_lengths(self) -> "AnswerLengths":
        """How long the answers of every pair are, in order."""
        pairs = pc.list_flatten(self._column("pairs"))[: self.pairs]  # none in `without_pairs`
        before = (
            self.prefix_lengths - self._column("answer_start").to_numpy()
        )  # of the prefix, what is part of the answers
        lengths = self.tail_lengths + np.repeat(before, self.tail_counts)
        first = np.repeat(np.cumsum(self.tail_counts) - self.tail_counts, self.pair_counts)
        sides = (first + pc.struct_field(pairs, side).to_numpy() for side in ("chosen", "rejected"))
        shares = (pc.struct_field(pairs, name).to_numpy() for name in ("weight", "confidence"))
        return AnswerLengths(*(lengths[side] for side in sides), *shares)

    def _column(self, name: str) -> pa.ChunkedArray:
        """A column of the comparisons that are used."""
        return self._rows[name].take(self._places) if len(self) < len(self._rows) else self._rows[name]

    def _answers(self, index: int) -> list[RatedAnswer]:
        return [RatedAnswer(**answer) for answer in self._rows["answers"][index].as_py() or ()]

    def mean_weight(self, by_prompt: bool = False) -> float:
        """The mean weight of all pairs, or of all prompts, each with the mean of its pairs; 1.0 without any.

        Single answers with ratings count as pairs do.
        """
        weights, shares = [], []
        for name, counts in (("pairs", self.pair_counts), ("answers", self.answer_counts)):
            if counts.sum():
                weights.append(pc.struct_field(pc.list_flatten(self._column(name)), "weight").to_numpy())
                shares.append(1 / np.repeat(self.example_counts, counts) if by_prompt else np.ones(len(weights[-1])))
        return float(np.average(np.concatenate(weights), weights=np.concatenate(shares))) if weights else 1.0


def _lengths(lists: pa.ChunkedArray) -> Lengths:
    lengths: Lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy().astype(np.int64)
    return lengths

"""Tokenised comparisons on disk: Arrow IPC shards, read through a memory map, and a manifest.

A comparison is a shared prefix of tokens, K >= 2 tails that continue it, and the pairs among the tails.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel

from rewardline.core.artifacts import MANIFEST, Manifest
from rewardline.core.errors import UserError, first_line
from rewardline.core.files import link_or_copy
from rewardline.core.hashing import file_sha256
from rewardline.core.settings import JsonObject
from rewardline.data.schema import RejectedRow, arrow_schema

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
    tokenising; `lengths`: the number of sequences by the power of two above their length.
    """

    comparisons: int = 0
    pairs: int = 0
    tokens: int = 0
    prefix_tokens: int = 0
    full_tokens: int = 0
    pairs_in: int = 0
    lengths: dict[str, int] = {}
    shards: list[Shard] = []


class Tokenization(Manifest):
    """How text becomes tokens. `vocabulary` is the number of tokens of the tokenizer."""

    template: str
    chat_template: str | None
    max_length: int
    end_id: int
    end_token: str
    pad_id: int
    pad_token: str
    num_padding_at_beginning: int
    vocabulary: int


class TokenManifest(Tokenization):
    """The manifest of a folder of tokens, or of one of its shards, which has `seconds`.

    `truncated_pairs`, `truncated_tokens`: pairs whose prompt was cut, and the tokens that it lost; `dropped`: pairs
    that could not be tokenised, by reason, with some of them as examples.
    """

    splits: dict[str, SplitEntry]
    truncated_pairs: int
    truncated_tokens: int
    dropped: dict[str, int]
    reject_examples: list[RejectedRow]
    seconds: float | None = None

    def as_json(self) -> JsonObject:
        """The manifest as JSON values."""
        return self.model_dump(mode="json", exclude={"seconds"} if self.seconds is None else None)

    def shard_hashes(self) -> dict[str, str]:
        """The SHA-256 of each Arrow file by its name."""
        return {shard.file: shard.sha256 for split in self.splits.values() for shard in split.shards}

    def summary(self) -> str:
        """A line for the log."""
        tokens, dropped = sum(split.tokens for split in self.splits.values()), self.dropped or "none"
        return f"{tokens} tokens; prompts cut for {self.truncated_pairs} pairs; dropped {dropped}"


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

    @property
    def tokens(self) -> int:
        """Distinct tokens: the prefix once and every tail."""
        return len(self.prefix) + sum(map(len, self.tails))

    @property
    def full_tokens(self) -> int:
        """Tokens of the chosen and rejected sequences of every pair in full."""
        lengths = [len(self.prefix) + len(tail) for tail in self.tails]
        return sum(lengths[pair.chosen] + lengths[pair.rejected] for pair in self.pairs)


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


def _int_lists(values: Sequence[Ids]) -> pa.ListArray:
    flat = np.concatenate(values) if values else np.zeros(0, dtype=np.int32)
    return pa.ListArray.from_arrays(_offsets(map(len, values)), pa.array(flat.astype(np.int32, copy=False)))


def _offsets(lengths: Iterable[int]) -> pa.Array:
    return pa.array(np.cumsum([0, *lengths], dtype=np.int32))


def _batch(rows: list[Comparison]) -> pa.RecordBatch:
    pairs = [pair for row in rows for pair in row.pairs]
    columns = [pa.array([getattr(pair, field.name) for pair in pairs], field.type) for field in PAIR]
    return pa.RecordBatch.from_arrays(
        [
            pa.array([row.prompt_id for row in rows], pa.string()),
            pa.array([row.answer_start for row in rows], pa.int32()),
            _int_lists([row.prefix for row in rows]),
            pa.ListArray.from_arrays(
                _offsets(len(row.tails) for row in rows), _int_lists([tail for row in rows for tail in row.tails])
            ),
            pa.ListArray.from_arrays(
                _offsets(len(row.pairs) for row in rows), pa.StructArray.from_arrays(columns, fields=list(PAIR))
            ),
        ],
        schema=SCHEMA,
    )


class ShardWriter:
    """Writes comparisons to `{split}-{number}.arrow` files of about `tokens_per_shard` tokens each."""

    def __init__(self, folder: Path, split: str, tokens_per_shard: int = 2**25) -> None:
        self._folder, self._split, self._limit = folder, split, tokens_per_shard
        self._rows: list[Comparison] = []
        self._writer: pa.RecordBatchFileWriter | None = None
        self._in_shard = 0
        self._sizes: dict[Path, int] = {}
        self._counts: Counter[str] = Counter()
        self._lengths: Counter[int] = Counter()

    def add(self, row: Comparison) -> None:
        """Append a comparison."""
        self._rows.append(row)
        self._in_shard += row.tokens
        prefix, pairs = len(row.prefix), len(row.pairs)
        self._counts.update(
            comparisons=1, pairs=pairs, tokens=row.tokens, prefix_tokens=prefix, full_tokens=row.full_tokens
        )
        self._lengths.update((prefix + len(tail)).bit_length() for tail in row.tails)
        if len(self._rows) >= BATCH or self._in_shard >= self._limit:
            self._flush()

    def _flush(self) -> None:
        if self._writer is None:
            path = self._folder / f"{self._split}-{len(self._sizes):05d}.arrow"
            self._sizes[path] = 0
            self._writer = pa.ipc.new_file(path, SCHEMA)
        if self._rows:
            self._writer.write_batch(_batch(self._rows))
            self._sizes[next(reversed(self._sizes))] += len(self._rows)
        self._rows = []
        if self._in_shard >= self._limit:
            self._writer.close()
            self._writer, self._in_shard = None, 0

    def close(self, pairs_in: int | None = None) -> SplitEntry:
        """Finish the last file. `pairs_in`: pairs before tokenising; None for as many as were written."""
        if self._rows or not self._sizes:
            self._flush()
        if self._writer is not None:
            self._writer.close()
        return SplitEntry(
            **self._counts,
            pairs_in=self._counts["pairs"] if pairs_in is None else pairs_in,
            lengths={str(2**power): count for power, count in sorted(self._lengths.items())},
            shards=[
                Shard(file=path.name, comparisons=size, sha256=file_sha256(path)) for path, size in self._sizes.items()
            ],
        )


def join_splits(folders: Sequence[Path], entries: Sequence[SplitEntry], split: str, out: Path) -> SplitEntry:
    """Put the files of a split from several folders into `out`; the entry for all of them.

    Files without comparisons are left out, but for the first.
    """
    files = [(folder, shard) for folder, entry in zip(folders, entries, strict=True) for shard in entry.shards]
    files = [file for file in files if file[1].comparisons] or files[:1]
    shards = []
    for number, (folder, shard) in enumerate(files):
        name = f"{split}-{number:05d}.arrow"
        link_or_copy(folder / shard.file, out / name)
        shards.append(shard.model_copy(update={"file": name}))
    counts: Counter[str] = Counter()
    lengths: Counter[str] = Counter()
    for entry in entries:
        counts.update(entry.model_dump(exclude={"lengths", "shards"}))
        lengths.update(entry.lengths)
    return SplitEntry(**counts, lengths={key: lengths[key] for key in sorted(lengths, key=int)}, shards=shards)


class TokenDataset:
    """The comparisons of a split, memory-mapped; sizes are known without reading tokens.

    Attributes:
        manifest: that of the folder.
        prefix_lengths: int64 [N].
        tail_counts: int64 [N].
        tail_lengths: int64 [sum of tail_counts].
        pair_counts: int64 [N].
    """

    def __init__(self, folder: Path, split: str) -> None:
        """Open all shards.

        Raises:
            UserError: the manifest or a shard is missing or damaged.
        """
        self.manifest = TokenManifest.read(folder / MANIFEST)
        self._batches: list[pa.RecordBatch] = []
        for shard in self.manifest.splits[split].shards:
            path = folder / shard.file
            try:
                reader = pa.ipc.open_file(pa.memory_map(str(path)))
                self._batches += [reader.get_batch(index) for index in range(reader.num_record_batches)]
            except (OSError, pa.ArrowException) as error:
                raise UserError(
                    f"{path} cannot be read ({first_line(error)}); delete {folder} and run again"
                ) from error
        self._starts: Lengths = np.cumsum([0, *(batch.num_rows for batch in self._batches)], dtype=np.int64)
        self.prefix_lengths = self._gather(lambda batch: _lengths(batch.column("prefix_ids")))
        self.tail_counts = self._gather(lambda batch: _lengths(batch.column("tails")))
        self.tail_lengths = self._gather(lambda batch: _lengths(batch.column("tails").flatten()))
        self.pair_counts = self._gather(lambda batch: _lengths(batch.column("pairs")))

    def _gather(self, measure: Callable[[pa.RecordBatch], Lengths]) -> Lengths:
        parts = [measure(batch) for batch in self._batches]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def pairs(self) -> int:
        """The number of pairs."""
        return int(self.pair_counts.sum())

    @property
    def tokens(self) -> Lengths:
        """Distinct tokens of each comparison: int64 [N]."""
        owner = np.repeat(np.arange(len(self)), self.tail_counts)
        tails = np.bincount(owner, weights=self.tail_lengths, minlength=len(self)).astype(np.int64)
        total: Lengths = self.prefix_lengths + tails
        return total

    def __getitem__(self, index: int) -> Comparison:
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        batch, row = self._batches[shard], index - int(self._starts[shard])
        tails = batch.column("tails")[row].values
        return Comparison(
            prompt_id=batch.column("prompt_id")[row].as_py(),
            prefix=batch.column("prefix_ids")[row].values.to_numpy(),
            tails=[tails[k].values.to_numpy() for k in range(len(tails))],
            pairs=[ComparisonPair(**pair) for pair in batch.column("pairs")[row].as_py()],
            answer_start=batch.column("answer_start")[row].as_py(),
        )

    def mean_weight(self, by_prompt: bool = False) -> float:
        """The mean weight of all pairs, or of all prompts, each with the mean of its pairs; 1.0 without any."""
        parts = [batch.column("pairs").flatten().field("weight").to_numpy() for batch in self._batches]
        weights = np.concatenate(parts) if parts else np.zeros(0)
        if not len(weights):
            return 1.0
        shares = 1 / np.repeat(self.pair_counts, self.pair_counts) if by_prompt else np.ones(len(weights))
        return float(np.average(weights, weights=shares))


def _lengths(lists: pa.ListArray) -> Lengths:
    lengths: Lengths = np.diff(lists.offsets.to_numpy()).astype(np.int64)
    return lengths

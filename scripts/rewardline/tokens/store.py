"""Tokenised comparisons in Arrow IPC shards: written by the token count, read through a memory map.

A comparison is a shared prefix of tokens, K >= 2 tails that continue it, and the pairs among the tails.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rewardline.core.errors import UserError, first_line
from rewardline.core.files import link_or_copy, read_json
from rewardline.core.hashing import file_sha256

Ids = npt.NDArray[np.int32]
PAIR = pa.struct(
    [
        ("pair_id", pa.string()),
        ("dataset", pa.string()),
        ("subset", pa.string()),
        ("chosen", pa.int32()),
        ("rejected", pa.int32()),
        ("margin", pa.float64()),
        ("confidence", pa.float64()),
        ("weight", pa.float64()),
    ]
)
SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("answer_start", pa.int32()),
        ("prefix_ids", pa.list_(pa.int32())),
        ("tails", pa.list_(pa.list_(pa.int32()))),
        ("pairs", pa.list_(PAIR)),
    ]
)
BATCH = 512
COUNTS = ("comparisons", "pairs", "tokens", "prefix_tokens", "full_tokens")


@dataclass(frozen=True)
class Comparison:
    """Tokens of a prompt's answers: `prefix` int32 [P], each tail int32 [>= 1]; `pairs` are rows of `PAIR`.

    `answer_start` is where the answers begin in [prefix, tail], the same for all of them.
    """

    prompt_id: str
    prefix: Ids
    tails: list[Ids]
    pairs: list[dict[str, Any]]
    answer_start: int = 0

    @property
    def tokens(self) -> int:
        """Distinct tokens: the prefix once and every tail."""
        return len(self.prefix) + sum(map(len, self.tails))

    @property
    def full_tokens(self) -> int:
        """Tokens of the chosen and rejected sequences of every pair in full."""
        lengths = [len(self.prefix) + len(tail) for tail in self.tails]
        return sum(lengths[pair["chosen"]] + lengths[pair["rejected"]] for pair in self.pairs)


def _int_lists(values: list[Ids]) -> pa.ListArray:
    offsets = np.zeros(len(values) + 1, dtype=np.int32)
    np.cumsum([len(value) for value in values], out=offsets[1:])
    flat = np.concatenate(values) if values else np.zeros(0, dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat.astype(np.int32, copy=False)))


def _batch(rows: list[Comparison]) -> pa.RecordBatch:
    offsets = np.zeros(len(rows) + 1, dtype=np.int32)
    np.cumsum([len(row.tails) for row in rows], out=offsets[1:])
    tails = pa.ListArray.from_arrays(pa.array(offsets), _int_lists([tail for row in rows for tail in row.tails]))
    return pa.RecordBatch.from_arrays(
        [
            pa.array([row.prompt_id for row in rows], pa.string()),
            pa.array([row.answer_start for row in rows], pa.int32()),
            _int_lists([row.prefix for row in rows]),
            tails,
            pa.array([row.pairs for row in rows], pa.list_(PAIR)),
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
        self._paths: list[Path] = []
        self._sizes: list[int] = []
        self.counts = dict.fromkeys(COUNTS, 0)
        self.histogram = np.zeros(32, dtype=np.int64)

    def add(self, row: Comparison) -> None:
        """Append a comparison."""
        self._rows.append(row)
        self._in_shard += row.tokens
        counts = self.counts
        counts["comparisons"] += 1
        counts["pairs"] += len(row.pairs)
        counts["tokens"] += row.tokens
        counts["prefix_tokens"] += len(row.prefix)
        counts["full_tokens"] += row.full_tokens
        for tail in row.tails:
            self.histogram[(len(row.prefix) + len(tail)).bit_length()] += 1
        if len(self._rows) >= BATCH or self._in_shard >= self._limit:
            self._flush()

    def _flush(self) -> None:
        if self._writer is None:
            self._paths.append(self._folder / f"{self._split}-{len(self._paths):05d}.arrow")
            self._sizes.append(0)
            self._writer = pa.ipc.new_file(self._paths[-1], SCHEMA)
        if self._rows:
            self._writer.write_batch(_batch(self._rows))
            self._sizes[-1] += len(self._rows)
        self._rows = []
        if self._in_shard >= self._limit:
            self._writer.close()
            self._writer, self._in_shard = None, 0

    def close(self) -> dict[str, Any]:
        """Finish; the split's entry in the manifest. `lengths`: sequences by the power of two above their length."""
        if self._rows or not self._paths:
            self._flush()
        if self._writer is not None:
            self._writer.close()
        lengths = {str(2**k): int(n) for k, n in enumerate(self.histogram) if n}
        shards = [
            {"file": path.name, "comparisons": size, "sha256": file_sha256(path)}
            for path, size in zip(self._paths, self._sizes, strict=True)
        ]
        return {**self.counts, "lengths": lengths, "shards": shards}


def join_splits(shards: list[tuple[Path, dict[str, Any]]], split: str, out: Path) -> dict[str, Any]:
    """Put the files of a split from several folders (with their entries) into `out`; the entry for all of them.

    Files without comparisons are left out, but for the first. `pairs_in` is what the split held before tokenising.
    """
    totals: Counter[str] = Counter()
    lengths: Counter[str] = Counter()
    files = [(folder, shard) for folder, entry in shards for shard in entry["shards"]]
    files = [one for one in files if one[1]["comparisons"]] or files[:1]
    listed = []
    for number, (folder, shard) in enumerate(files):
        name = f"{split}-{number:05d}.arrow"
        link_or_copy(folder / shard["file"], out / name)
        listed.append({**shard, "file": name})
    for _, entry in shards:
        totals.update({key: entry[key] for key in (*COUNTS, "pairs_in")})
        lengths.update(entry["lengths"])
    ordered = {key: lengths[key] for key in sorted(lengths, key=int)}
    return {**{key: totals[key] for key in (*COUNTS, "pairs_in")}, "lengths": ordered, "shards": listed}


class TokenDataset:
    """The comparisons of a split, memory-mapped; sizes are known without reading tokens.

    Attributes:
        prefix_lengths: int64 [N]; tail_counts: int64 [N]; tail_lengths: int64 [sum of tail_counts];
        pair_counts: int64 [N].
    """

    def __init__(self, folder: Path, split: str) -> None:
        """Open all shards.

        Raises:
            UserError: a shard is missing or damaged.
        """
        self.manifest = read_json(folder / "manifest.json")
        self._batches: list[pa.RecordBatch] = []
        for shard in self.manifest["splits"][split]["shards"]:
            path = folder / shard["file"]
            try:
                reader = pa.ipc.open_file(pa.memory_map(str(path)))
                self._batches += [reader.get_batch(index) for index in range(reader.num_record_batches)]
            except (OSError, pa.ArrowException) as error:
                raise UserError(
                    f"{path} cannot be read ({first_line(error)}); delete {folder} and run again"
                ) from error
        starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])
        self._starts: npt.NDArray[np.int64] = starts.astype(np.int64)
        self.prefix_lengths = self._gather(lambda batch: _lengths(batch.column("prefix_ids")))
        self.tail_counts = self._gather(lambda batch: _lengths(batch.column("tails")))
        self.tail_lengths = self._gather(lambda batch: _lengths(batch.column("tails").flatten()))
        self.pair_counts = self._gather(lambda batch: _lengths(batch.column("pairs")))

    def _gather(self, measure: Any) -> npt.NDArray[np.int64]:
        parts = [measure(batch) for batch in self._batches]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def pairs(self) -> int:
        """How many pairs there are."""
        return int(self.pair_counts.sum())

    @property
    def tokens(self) -> npt.NDArray[np.int64]:
        """Distinct tokens of each comparison: int64 [N]."""
        owner = np.repeat(np.arange(len(self)), self.tail_counts)
        tails = np.bincount(owner, weights=self.tail_lengths, minlength=len(self)).astype(np.int64)
        total: npt.NDArray[np.int64] = self.prefix_lengths + tails
        return total

    def __getitem__(self, index: int) -> Comparison:
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        batch, row = self._batches[shard], index - int(self._starts[shard])
        tails = batch.column("tails")[row].values
        return Comparison(
            prompt_id=batch.column("prompt_id")[row].as_py(),
            prefix=batch.column("prefix_ids")[row].values.to_numpy(),
            tails=[tails[k].values.to_numpy() for k in range(len(tails))],
            pairs=batch.column("pairs")[row].as_py(),
            answer_start=batch.column("answer_start")[row].as_py(),
        )

    def mean_weight(self, by_prompt: bool = False) -> float:
        """The mean weight of all pairs, or of all prompts, each with the mean of its pairs; 1.0 without any."""
        weights = self._gather(lambda batch: batch.column("pairs").flatten().field("weight").to_numpy())
        if not len(weights):
            return 1.0
        shares = 1 / np.repeat(self.pair_counts, self.pair_counts) if by_prompt else np.ones(len(weights))
        return float(np.average(weights, weights=shares))


def _lengths(lists: pa.ListArray) -> npt.NDArray[np.int64]:
    offsets = lists.offsets.to_numpy()
    lengths: npt.NDArray[np.int64] = np.diff(offsets).astype(np.int64)
    return lengths

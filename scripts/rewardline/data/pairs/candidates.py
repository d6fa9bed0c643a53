"""Pairs before cleaning, on disk: sorted and indexed by prompt, with signatures to compare prompts by.

A folder of candidates, the output of `convert_rows.py`, holds

- `candidates.arrow`: rows of `CANDIDATE_SCHEMA`, sorted by prompt id;
- `rows.npy`: the prompt id of each row, uint64 [rows], ascending;
- `batches.npy`: uint64 [record batches + 1, 3]: the first row, first byte and hash of each; then where the last ends,
  and the hash of what is before and behind them all;
- `prompts.npy`: each prompt id once, uint64 [prompts], ascending;
- `signatures.bin`: the MinHash signature of each of these prompts, in the context of its system message;
- `words.bin` and `word_counts.npy`: the words of each, see `copies.WordFiles`;
- `rejects.parquet` and `manifest.json`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from xxhash import xxh3_64_intdigest

from rewardline.core.artifacts import MANIFEST, damaged
from rewardline.data.pairs.external_sort import Buckets, bucket_count
from rewardline.data.pairs.identity import (
    Hashes,
    content_id,
    hash_id,
    hash_words_of_many,
    id_range,
    normalize,
    word_hashes,
    words_of_all,
)
from rewardline.data.pairs.manifests import CandidatesManifest
from rewardline.data.pairs.near_duplicates import signatures, with_contexts
from rewardline.data.parquet import characters_in, read_array
from rewardline.data.schema import CANDIDATE_ORDER, CANDIDATE_SCHEMA, PAIR_SCHEMA, Candidate, Message, Pair
from rewardline.data.turns import INSTRUCTING

_BATCH, _BATCH_CHARACTERS = 256, 4 << 20  # rows and characters that are decompressed to read a row
_TAKEN = 2_048  # rows that are brought in order at once
_WORDS_BYTES = 6 << 20  # of prompts whose words are hashed at once; these take four times as much
_OTHER = 50  # characters of a name of a file, or of what else a row has
_HEADER = 8 + CANDIDATE_SCHEMA.serialize().size  # of an Arrow file: its mark and schema
_SORTED_SCHEMA = pa.schema(
    [*CANDIDATE_SCHEMA, ("_turns", pa.string()), ("_system", pa.string()), ("_context", pa.uint64())]
)
"""With what the prompt is compared by, until the files are written."""
_COMPARED_BY = "prompt_id", "_turns", "_system", "_context"  # as of `ComparedPrompt`
_WORDS = [*_COMPARED_BY[1:]]


class ComparedPrompt(NamedTuple):
    """What a prompt is compared by."""

    prompt_id: int
    """Equal for prompts with the same roles and normalized texts."""
    turns: str
    """The words of all but its system messages, as of `words_of`."""
    system: str
    """The words of its system messages."""
    context: int
    """The id of its normalized system messages; 0 without any."""


def compared(prompt: Iterable[Message]) -> ComparedPrompt:
    """What a prompt is compared by; each of its texts is normalized once for all of it."""
    parts: list[str] = []
    turns: list[str] = []
    system: list[str] = []
    for turn in prompt:
        role, text = turn["role"], normalize(turn["content"])
        parts += role, text
        (system if role in INSTRUCTING else turns).append(text)
    return ComparedPrompt(hash_id(*parts), words_of_all(turns), words_of_all(system), _context(system))


class CandidateWriter:
    """Writes a folder of candidates, in memory that does not grow with their number."""

    def __init__(self, folder: Path, rows: int, characters: int) -> None:
        """`rows` and `characters` are estimates of the number of candidates, and of their text."""
        self._folder = folder
        self._buckets = Buckets(folder / ".sort", _SORTED_SCHEMA, bucket_count(rows, characters))
        self.rows = 0
        self.characters = 0

    def add(self, candidate: Candidate, prompt: ComparedPrompt | None = None) -> None:
        """Append a candidate; `prompt` is what its prompt is compared by, where that is known."""
        _, *words = prompt or compared(messages(candidate.prompt))
        size = len(candidate.prompt) + len(candidate.chosen) + len(candidate.rejected) + len(candidate.native or "")
        self.rows += 1
        self.characters += size
        self._buckets.add(candidate.prompt_id, (*candidate, *words), size + _OTHER * (2 + len(candidate.others)))

    def add_columns(
        self,
        prompts: Sequence[ComparedPrompt],
        columns: Mapping[str, Sequence[object]],
        like: Candidate,
        characters: int,
    ) -> None:
        """Append candidates, of so many characters, that are made of one row each and have no `native`.

        `prompts`: what their prompts are compared by; `columns`: the fields in which they differ from `like`.
        """
        values = {**columns, **dict(zip(_COMPARED_BY, zip(*prompts, strict=True), strict=True))}
        arrays = [
            pa.array(values[field.name], field.type)
            if field.name in values
            else pa.repeat(pa.scalar(getattr(like, field.name), field.type), len(prompts))
            for field in _SORTED_SCHEMA
        ]
        self.rows += len(prompts)
        self.characters += characters
        rows = pa.RecordBatch.from_arrays(arrays, schema=_SORTED_SCHEMA)
        self._buckets.add_columns(rows["prompt_id"].to_numpy(), rows, characters + 2 * _OTHER * len(rows))

    def close(self) -> None:
        """Sort and write."""
        ids: list[Hashes] = [np.zeros(0, dtype=np.uint64)]
        counts = [np.zeros((0, 2), dtype=np.uint32)]
        rows_before, ends = [0], [_HEADER]
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with (
            pa.OSFile(str(self._folder / "candidates.arrow"), "wb") as file,
            pa.ipc.new_file(file, CANDIDATE_SCHEMA, options=options) as writer,
            (self._folder / "signatures.bin").open("wb") as stream,
            (self._folder / "words.bin").open("wb") as words,
        ):
            for rows in map(pa.Table.combine_chunks, self._buckets.drain()):
                order = _order(rows)
                for batch in _batches(rows.select(CANDIDATE_SCHEMA.names), order):
                    writer.write_batch(batch)
                    rows_before.append(rows_before[-1] + len(batch))
                    ends.append(file.tell())
                ids.append(rows["prompt_id"].to_numpy()[order])
                first = order[np.flatnonzero(np.diff(ids[-1], prepend=~ids[-1][:1]))]
                compared_by = rows.select(_WORDS)
                step = max(1, _WORDS_BYTES * len(rows) // max(1, compared_by.nbytes))
                for start in range(0, len(first), step):
                    prompts = compared_by.take(pa.array(first[start : start + step]))
                    turns, systems = (hash_words_of_many(prompts[name].combine_chunks()) for name in _WORDS[:2])
                    stream.write(with_contexts(signatures(turns), prompts["_context"].to_numpy()).tobytes())
                    in_order = [part for both in zip(systems, turns, strict=True) for part in both]
                    words.write(np.concatenate(in_order).astype(np.uint32).tobytes())
                    sizes = np.array([list(map(len, systems)), list(map(len, turns))], dtype=np.uint32)
                    counts.append(sizes.cumsum(axis=0, dtype=np.uint32).T)
        with (self._folder / "candidates.arrow").open("rb") as stream:
            stream.seek(_HEADER)
            hashes = [xxh3_64_intdigest(stream.read(end - start)) for start, end in pairwise(ends)]
            hashes.append(_frame_hash(stream, ends[-1]))
        np.save(self._folder / "batches.npy", np.array([rows_before, ends, hashes], dtype=np.uint64).T)
        np.save(self._folder / "word_counts.npy", np.concatenate(counts))
        row_ids = np.concatenate(ids)
        np.save(self._folder / "rows.npy", row_ids)
        np.save(self._folder / "prompts.npy", np.unique(row_ids))


class CandidateReader:
    """Reads a folder of candidates by ranges of prompt ids, or prompt by prompt."""

    def __init__(self, folder: Path) -> None:
        """Open the index; a `UserError` if a file is missing or damaged, now or when it is read."""
        self._path = folder / "candidates.arrow"
        self._ids: Hashes = read_array(folder / "rows.npy", np.uint64)
        self._batches: npt.NDArray[np.uint64] = read_array(folder / "batches.npy", np.uint64)
        _, end, expected = self._batches[-1].tolist()
        with self._open() as file:
            self._check(_frame_hash(file, end) == expected)
        self.characters = CandidatesManifest.read(folder / "manifest.json").characters

    @property
    def total(self) -> int:
        """Number of rows."""
        return len(self._ids)

    def count(self, low: int, high: int) -> int:
        """Number of rows with a prompt id in [low, high)."""
        start, end = id_range(self._ids, low, high)
        return end - start

    def between(self, low: int, high: int) -> list[Candidate]:
        """The rows with a prompt id in [low, high), in order."""
        return as_candidates(self.read(low, high))

    def of(self, prompts: Iterable[int]) -> list[Candidate]:
        """The rows of these prompts."""
        return as_candidates(self.read(0, 0, prompts))

    def read(self, low: int, high: int, prompts: Iterable[int] = ()) -> pa.Table:
        """The rows with a prompt id in [low, high), in order; and those of further prompts."""
        ids = np.array(sorted(prompts), dtype=np.uint64)
        starts, ends = (np.searchsorted(self._ids, ids, side=side).tolist() for side in ("left", "right"))
        places = [id_range(self._ids, low, high), *zip(starts, ends, strict=True)]
        filled = [(start, end) for start, end in places if start < end]
        if not filled:
            return CANDIDATE_SCHEMA.empty_table()
        with self._open() as file:
            return pa.Table.from_batches(chain.from_iterable(self._slices(file, *place) for place in filled))

    def _open(self) -> BinaryIO:
        if not self._path.is_file():
            raise damaged(self._path, self._path.with_name(MANIFEST), "it is missing")
        return self._path.open("rb")

    def _check(self, is_intact: bool) -> None:
        if not is_intact:
            raise damaged(self._path, self._path.with_name(MANIFEST))

    def _slices(self, file: BinaryIO, start: int, end: int) -> Iterator[pa.RecordBatch]:
        index = int(np.searchsorted(self._batches[:, 0], np.uint64(start), side="right")) - 1
        while (first := int(self._batches[index, 0])) < end:
            low, high = max(0, start - first), min(int(self._batches[index + 1, 0]), end) - first
            yield self._batch(file, index).slice(low, high - low)
            index += 1

    def _batch(self, file: BinaryIO, index: int) -> pa.RecordBatch:
        """A record batch; each is verified by itself, since a job reads only some of a large file."""
        (_, start, expected), (_, end, _) = self._batches[index : index + 2].tolist()
        file.seek(start)
        content = file.read(end - start)
        self._check(xxh3_64_intdigest(content) == expected)
        return pa.ipc.read_record_batch(pa.py_buffer(content), CANDIDATE_SCHEMA)


def _frame_hash(file: BinaryIO, end: int) -> int:
    """The hash of what is before the record batches of a file, and behind `end`, where they end."""
    file.seek(0)
    header = file.read(_HEADER)
    file.seek(end)
    return xxh3_64_intdigest(header + file.read())


def as_candidates(rows: pa.Table) -> list[Candidate]:
    """Rows as objects."""
    return list(map(Candidate, *(column.to_pylist() for column in rows.columns)))


def ranges(readers: Sequence[CandidateReader], low: int = 0, high: int = 2**64) -> Iterator[tuple[int, int]]:
    """Parts of [low, high) in order, each with few enough rows in all folders to hold them as Python objects."""
    rows = sum(reader.count(low, high) for reader in readers)
    mean = sum(reader.characters for reader in readers) / max(1, sum(reader.total for reader in readers))
    steps = bucket_count(rows, int(rows * mean))
    return pairwise(low + (high - low) * step // steps for step in range(steps + 1))


def pair_of(candidate: Candidate, dataset_weight: float) -> Pair:
    """A candidate as a pair of a mixture; `dataset_weight` is the weight of its dataset in the mixture."""
    return Pair(
        pair_id=pair_id(candidate),
        prompt_id=f"{candidate.prompt_id:016x}",
        dataset=candidate.dataset,
        subset=candidate.subset,
        prompt=messages(candidate.prompt),
        chosen=candidate.chosen,
        rejected=candidate.rejected,
        margin=candidate.margin,
        confidence=candidate.confidence,
        weight=candidate.weight * max(1.0, dataset_weight),
        file=candidate.file,
        row=candidate.row,
        chosen_source=candidate.chosen_source,
        rejected_source=candidate.rejected_source,
        place=candidate.place,
        native=candidate.native,
        ratings=candidate.ratings,
    )


def pairs_of(candidates: pa.Table, dataset_weights: Mapping[str, float]) -> pa.Table:
    """Candidates as the pairs that `pair_of` gives, by the weights of datasets, 1 for others."""
    texts = [candidates[name].to_pylist() for name in ("prompt", "chosen", "rejected", "native", "ratings")]
    factors = [max(1.0, dataset_weights.get(name, 1.0)) for name in candidates["dataset"].to_pylist()]
    new = {
        "pair_id": pa.array(list(map(content_id, *texts)), pa.string()),
        "prompt_id": pa.array([f"{number:016x}" for number in candidates["prompt_id"].to_pylist()], pa.string()),
        "prompt": pa.array(list(map(messages, texts[0])), PAIR_SCHEMA.field("prompt").type),
        "weight": pa.array(candidates["weight"].to_numpy() * np.array(factors, dtype=np.float64)),
    }
    columns = [new[name] if name in new else candidates[name] for name in PAIR_SCHEMA.names]
    return pa.Table.from_arrays(columns, schema=PAIR_SCHEMA)


def pair_id(candidate: Candidate) -> str:
    """A stable hash of the pair's content."""
    return content_id(candidate.prompt, candidate.chosen, candidate.rejected, candidate.native, candidate.ratings)


def canonical_prompt(prompt: Sequence[Message]) -> str:
    """The canonical JSON of a prompt's roles and texts."""
    return orjson.dumps(prompt, option=orjson.OPT_SORT_KEYS).decode()


def messages(prompt: str) -> list[Message]:
    """The messages of a prompt in canonical JSON."""
    result: list[Message] = orjson.loads(prompt)
    return result


def prompt_words(prompt: str, system: bool = False) -> Hashes:
    """The word hashes of a prompt in canonical JSON, with or without its system messages, which are its context."""
    return word_hashes(*(turn["content"] for turn in messages(prompt) if system or turn["role"] not in INSTRUCTING))


def context_id(prompt: str) -> int:
    """The system messages of a prompt in canonical JSON, normalized, as a number below 2^64; 0 without any."""
    return _context([normalize(turn["content"]) for turn in messages(prompt) if turn["role"] in INSTRUCTING])


def _context(system: Sequence[str]) -> int:
    return hash_id(*system) if system else 0


def _order(rows: pa.Table) -> npt.NDArray[np.int64]:
    """The places of rows in their order as candidates, int64 [N]."""
    ids = rows["prompt_id"].to_numpy()
    order: npt.NDArray[np.int64] = np.argsort(ids)
    if (np.diff(ids[order]) == 0).any():
        names = [(name, "ascending") for name in CANDIDATE_ORDER]
        order = pc.sort_indices(rows, names).to_numpy().astype(np.int64)
    return order


def _batches(rows: pa.Table, order: npt.NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
    """Record batches, in this order, of at most so many rows and, but for single rows, characters.

    Some of them are made at once: a copy of all rows would take new memory.
    """
    ends = np.cumsum(characters_in(rows)[order])
    start = first = last = 0
    while start < len(order):
        before = int(ends[start - 1]) if start else 0
        end = int(np.searchsorted(ends, before + _BATCH_CHARACTERS, side="right"))
        end = min(max(start + 1, end), start + _BATCH)
        if end > last:
            first, last = start, max(end, start + _TAKEN // _BATCH * _BATCH)
            taken = rows.take(pa.array(order[first:last]))
        yield taken.slice(start - first, end - start).to_batches()[0]
        start = end

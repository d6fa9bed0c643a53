"""Candidates on disk, in buckets by prompt: what lets a mixture of any size be cleaned in bounded memory."""

from pathlib import Path

import pyarrow as pa

from rewardline.pairs import Candidate, Source

_SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("file", pa.string()),
        ("row", pa.int64()),
        ("prompt_id", pa.string()),
        ("prompt", pa.string()),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("margin", pa.float64()),
        ("weight", pa.float64()),
        ("subset", pa.string()),
    ]
)
_BATCH = 500


class Spill:
    """Buckets of candidates; bucket k holds all candidates of a range of prompt ids, in ascending order of k."""

    def __init__(self, folder: Path, rows: int, rows_per_bucket: int = 20_000) -> None:
        folder.mkdir(parents=True)
        self._paths = [folder / f"{index}.arrow" for index in range(rows // rows_per_bucket + 1)]
        self._waiting: list[list[Candidate]] = [[] for _ in self._paths]
        self._writers: list[pa.RecordBatchStreamWriter | None] = [None] * len(self._paths)

    def add(self, candidate: Candidate) -> None:
        """Put a candidate into its bucket."""
        index = int(candidate.prompt_id[:8], 16) * len(self._paths) >> 32
        self._waiting[index].append(candidate)
        if len(self._waiting[index]) >= _BATCH:
            self._flush(index)

    def buckets(self) -> list[Path]:
        """Finish writing; the files of all buckets that hold anything, by ascending prompt id."""
        for index in range(len(self._paths)):
            self._flush(index)
            if (writer := self._writers[index]) is not None:
                writer.close()
        return [path for path in self._paths if path.exists()]

    def _flush(self, index: int) -> None:
        if not self._waiting[index]:
            return
        writer = self._writers[index]
        if writer is None:
            writer = self._writers[index] = pa.ipc.new_stream(self._paths[index], _SCHEMA)
        rows = [{**vars(candidate), **vars(candidate.source)} for candidate in self._waiting[index]]
        writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=_SCHEMA))
        self._waiting[index] = []


def read_bucket(path: Path) -> list[Candidate]:
    """All candidates of a bucket."""
    with path.open("rb") as stream, pa.ipc.open_stream(stream) as reader:
        rows = reader.read_all().to_pylist()
    return [Candidate(source=Source(row.pop("dataset"), row.pop("file"), row.pop("row")), **row) for row in rows]

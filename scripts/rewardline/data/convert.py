"""Conversion of a dataset's rows, or of a part of them, to candidate pairs."""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any, TypedDict

import pyarrow as pa

from rewardline.core.errors import UserError
from rewardline.core.files import read_json
from rewardline.core.hashing import canonical
from rewardline.core.progress import ProgressBar, progress
from rewardline.data.benchmarks import mismatch
from rewardline.data.conversation import Pair, Place
from rewardline.data.formats.drafts import Rows
from rewardline.data.formats.joins import Tables, build_tables
from rewardline.data.formats.options import codes
from rewardline.data.formats.registry import (
    GROUPED,
    Choice,
    Grouping,
    GroupReject,
    Pairs,
    Reject,
    choose,
    converter,
    grouping,
    options_of,
)
from rewardline.data.formats.row_filter import filtering
from rewardline.data.formats.settings import ConvertSettings
from rewardline.data.formats.two_answers import is_number
from rewardline.data.pairs.candidates import CandidateWriter
from rewardline.data.pairs.external_sort import Buckets, bucket_count
from rewardline.data.pairs.identity import hash_id, prompt_identity, unit_interval_hash
from rewardline.data.pairs.rejects import RejectWriter
from rewardline.data.pairs.store import read_part
from rewardline.data.schema import AnswerPosition, Candidate, Message

log = logging.getLogger(__name__)
Json = dict[str, Any]
LOOKED_AT = 50  # rows that `format: auto` goes by
GROUPED_ROW = pa.schema([("key", pa.string()), ("file", pa.string()), ("row", pa.int64()), ("record", pa.string())])


class Row(TypedDict):
    """Where a row stands: a file and the number (1-based) in it."""

    file: str
    row: int


def raw_rows(manifest: Path, part: tuple[int, int] = (0, 1)) -> Iterator[Json]:
    """The rows of downloaded data, checked to be as the manifest says; `part` is (index, of how many)."""
    for entry in read_json(manifest)["parts"][part[0] :: part[1]]:
        path = manifest.parent / entry["file"]
        count = 0
        for row in read_part(path):
            yield row
            count += 1
        if count != entry["rows"]:
            raise UserError(f"{path} has {count} rows, not {entry['rows']}; delete {manifest.parent} and run again")


def choose_format(dataset: str, settings: ConvertSettings, manifest: Path, read: Callable[[Json], Json]) -> Choice:
    """How to read a data set's rows: what the settings say, completed by what its first rows state.

    Raises:
        UserError: what is not clear, and what to set.
    """
    seen, records = None, []
    for row in (row for row in raw_rows(manifest) if row["record"]):
        with suppress(Reject):
            records.append(read(json.loads(row["record"])))
            seen = seen or row
        if len(records) == LOOKED_AT:
            break
    choice = choose(records, settings.format, settings.fields, **options_of(settings))
    if choice.name is not None:
        log.info("%s: %s%s", dataset, choice.words, coded(choice, settings))
        return choice
    where = "none of its rows is readable" + (" and passes `where`" if settings.where else "")
    if seen:
        keys = ", ".join(map(str, json.loads(seen["record"])))
        where = f"{seen['file']}:{seen['row']} has the keys {keys}; {choice.words}"
    what = "format" if settings.format == "auto" else "coding"
    raise UserError(f"{dataset}: its {what} is not clear: {where}")


def coded(choice: Choice, settings: ConvertSettings) -> str:
    """What the first rows say that codes mean, as part of a sentence."""
    if choice.values == settings.values:
        return ""
    numbers = {side: [each for each in codes(given) if is_number(each)] for side, given in choice.values.items()}
    found = ", ".join(f"{side} {' or '.join(given)}" for side, given in numbers.items() if given)
    return f"; by its first rows: {found or choice.values}"


class Conversion:
    """Turns rows into candidates, counts them, and keeps what is left out."""

    def __init__(self, dataset: str, settings: ConvertSettings, writer: CandidateWriter, rejects: RejectWriter) -> None:
        self._dataset, self._settings, self._writer, self._rejects = dataset, settings, writer, rejects
        self.rows_in = 0
        self.left_out: Counter[str] = Counter()
        self.pairs_left_out: Counter[str] = Counter()

    def reject(self, source: Row, reject: Reject) -> None:
        """Count a row that gives no pair; stop where it contradicts what the first rows say that numbers mean."""
        if reject.reason == "unknown_code" and not self._settings.values:
            where = f"{self._dataset}: {source['file']}:{source['row']}"
            raise UserError(f"{where}: {reject.detail} The first {LOOKED_AT} rows have no such number")
        self.left_out[reject.reason] += 1
        self._rejects.add(self._dataset, source["file"], source["row"], reject.reason, reject.detail)

    def add(self, sources: list[Row], pairs: Pairs, rows_of_pairs: list[Rows] | None = None) -> None:
        """Write the candidates of one row, or of a group of rows; `rows_of_pairs` says which rows give which pair."""
        for reason, count in pairs.skipped.items():
            self._lose(count, sources[0], Reject(reason, "one of the pairs that the row could give"))
        low, high = self._settings.share
        outside: set[int] = set()
        pairs_outside: list[Rows] = []
        inside: set[int] = set()
        for pair, used in zip(pairs, rows_of_pairs or [(0,)] * len(pairs), strict=True):
            prompt: list[Message] = [{"role": turn["role"], "content": turn["content"]} for turn in pair.prompt]
            prompt_id = prompt_identity(prompt)
            if (low, high) != (0, 1) and not low <= unit_interval_hash("share", prompt_id) < high:
                outside.update(used)
                pairs_outside.append(used)
                continue
            inside.update(used)
            self._check(sources[used[0]], pair)
            first, *others = sorted((sources[k] for k in used), key=lambda row: (row["file"], row["row"]))
            self._writer.add(
                Candidate(
                    prompt_id=prompt_id,
                    prompt=canonical(prompt),
                    chosen=pair.chosen,
                    rejected=pair.rejected,
                    margin=pair.margin,
                    confidence=pair.confidence,
                    weight=pair.weight,
                    subset=self._settings.subset or pair.subset or self._dataset,
                    dataset=self._dataset,
                    **first,
                    others=others,
                    chosen_source=pair.sources[0] or None,
                    rejected_source=pair.sources[1] or None,
                    place=pair.place and _position(pair.place),
                )
            )
        outside_share = Reject("outside_share", f"its prompt lies outside the share [{low}, {high}]")
        for index in sorted(outside - inside):
            self.reject(sources[index], outside_share)
        # A row that gives nothing stands for its first pair; what else it lost is counted by pairs.
        self._lose(len(pairs_outside) - len(outside - inside), sources[0], outside_share)

    def _check(self, source: Row, pair: Pair) -> None:
        """Stop where a row is none of the published benchmark whose scoring is asked for."""
        scoring = self._settings.scoring
        subset = self._settings.subset or pair.subset
        if scoring and (problem := mismatch(scoring, subset, pair.place or Place())):
            raise UserError(f"{self._dataset}: {source['file']}:{source['row']}: {problem}")

    def _lose(self, count: int, source: Row, reject: Reject) -> None:
        """Count pairs that are left out of rows that are counted otherwise."""
        for _ in range(count):
            self.pairs_left_out[reject.reason] += 1
            self._rejects.add(self._dataset, source["file"], source["row"], reject.reason, reject.detail)

    def rows(self, rows: Iterator[Json], read: Callable[[Json], Json]) -> Iterator[tuple[Row, Json]]:
        """Each readable row with where it stands; `read` completes it."""
        for row in rows:
            self.rows_in += 1
            source: Row = {"file": row["file"], "row": row["row"]}
            try:
                if row["error"] is not None:
                    raise Reject("unreadable", row["error"])
                yield source, read(json.loads(row["record"]))
            except Reject as reject:
                self.reject(source, reject)

    def each(self, rows: Iterator[tuple[Row, Json]], convert: Callable[[Json], Pairs]) -> None:
        """Convert rows one by one."""
        for source, record in rows:
            try:
                self.add([source], convert(record))
            except Reject as reject:
                self.reject(source, reject)

    def grouped(self, rows: Iterator[tuple[Row, Json]], grouping: Grouping, buckets: Buckets) -> None:
        """Convert rows in groups, which are put together on disk."""
        for source, record in rows:
            try:
                key = grouping.key(record)
            except Reject as reject:
                self.reject(source, reject)
            else:
                buckets.add(hash_id(key), {"key": key, **source, "record": json.dumps(record, ensure_ascii=False)})
        for bucket in buckets.drain():
            bucket.sort(key=lambda row: (row["key"], row["file"], row["row"]))
            for _, members in groupby(bucket, key=lambda row: row["key"]):
                self._group(list(members), grouping)

    def _group(self, members: list[Json], grouping: Grouping) -> None:
        sources: list[Row] = [{"file": row["file"], "row": row["row"]} for row in members]
        try:
            pairs = grouping.convert([json.loads(row["record"]) for row in members])
            unused = pairs.unused
            self.add(sources, pairs, pairs.rows)
        except GroupReject as reject:
            unused = reject.unused
        for index, reason in unused.items():
            self.reject(sources[index], reason)


def _position(place: Place) -> AnswerPosition:
    return {"item": place.item, "chosen": place.chosen, "rejected": place.rejected, "answers": place.answers}


@contextmanager
def joins(settings: ConvertSettings, tables: list[Path], folder: Path) -> Iterator[Callable[[Json], Json]]:
    """What puts texts in the place of ids; rows of `tables` (manifests) are indexed in a file in `folder`."""
    if not settings.join:
        yield lambda record: record
        return
    path = folder / ".tables.sqlite"
    rows = {
        table.parent.name: (json.loads(row["record"]) for row in raw_rows(table) if row["record"]) for table in tables
    }
    for name, counts in build_tables(settings.join, rows, path).items():
        log.info("%s: %s", name, ", ".join(f"{count} {what}" for what, count in counts.items()))
    with Tables(settings.join, path) as found:
        yield found.join
    path.unlink()


def convert(dataset: str, settings: ConvertSettings, manifest: Path, tables: list[Path], out: Path) -> Json:
    """Write the candidates of a data set's part to `out`; what the manifest says of them."""
    everything = read_json(manifest)["parts"]
    part = settings.part, settings.parts
    parts = everything[part[0] :: part[1]]
    total = sum(entry["rows"] for entry in parts)
    characters = sum(entry["characters"] for entry in parts)
    options = {**options_of(settings), "published": settings.scoring is not None}
    writer = CandidateWriter(out, total, characters)
    rejects = RejectWriter(out)
    conversion = Conversion(dataset, settings, writer, rejects)
    keep = filtering(settings.where)
    with joins(settings, tables, out) as join, progress(f"{dataset}: rows", total=total) as bar:

        def read(record: Json) -> Json:
            return keep(join(record))

        choice = choose_format(dataset, settings, manifest, read)
        name, options["values"] = str(choice.name), choice.values
        rows = conversion.rows(counted(raw_rows(manifest, part), bar), read)
        if name in GROUPED:
            buckets = Buckets(out / ".groups", GROUPED_ROW, bucket_count(total, characters))
            conversion.grouped(rows, grouping(name, choice.fields, **options), buckets)
        else:
            conversion.each(rows, converter(name, choice.fields, **options))
    writer.close()
    return {
        "dataset": dataset,
        "format": name,
        "rows_in": conversion.rows_in,
        "candidates": writer.rows,
        "characters": writer.characters,
        "rejects": dict(sorted(conversion.left_out.items())),
        "pair_rejects": dict(sorted(conversion.pairs_left_out.items())),
        "reject_examples": list(map(asdict, rejects.close())),
    }


def counted(rows: Iterator[Json], bar: ProgressBar) -> Iterator[Json]:
    """The rows, counted by a progress bar."""
    for row in rows:
        yield row
        bar.update(1)

"""Conversion of a dataset's rows, or of a part of them, to candidate pairs."""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Final, TypedDict, cast

from rewardline.core.errors import UserError
from rewardline.core.hashing import canonical
from rewardline.core.progress import progress
from rewardline.data.benchmarks import mismatch
from rewardline.data.conversation import Reject
from rewardline.data.formats.detect import choose
from rewardline.data.formats.drafts import PreferencePair, RowPairs, Rows
from rewardline.data.formats.fields import Record, is_number, label_texts, row_filter
from rewardline.data.formats.grouped import Grouping, GroupReject
from rewardline.data.formats.joins import FILE, JoinIndex, index_joins
from rewardline.data.formats.registry import GROUPED, converter, grouping
from rewardline.data.formats.settings import ConvertSettings, FormatSettings, JoinIndexSettings
from rewardline.data.pairs.candidates import CandidateWriter
from rewardline.data.pairs.external_sort import Buckets, bucket_count
from rewardline.data.pairs.identity import hash_id, prompt_identity, unit_interval_hash
from rewardline.data.pairs.manifests import CandidatesManifest
from rewardline.data.pairs.rejects import RejectWriter
from rewardline.data.schema import Candidate, Message, RowLocation, arrow_schema
from rewardline.data.stored_rows import StoredDataset, StoredRow, read_stored_rows

log = logging.getLogger(__name__)
FIRST_ROWS: Final = 50
"""Rows that `format: auto` is decided by."""
Reading = Callable[[Record], Record]
"""Completes a row, or raises `Reject`."""
_Located = tuple[RowLocation, Record]


class GroupedRow(TypedDict):
    """A row on disk until its group is complete; `key` is that of the group."""

    key: str
    file: str
    row: int
    record: str


def convert(
    dataset: str,
    settings: ConvertSettings,
    manifest: Path,
    join_index: Path | None,
    tables: Sequence[Path],
    out: Path,
) -> CandidatesManifest:
    """Write the candidates of a dataset's part to the folder `out`.

    `manifest` is that of the dataset's rows. `join_index` is that of the index of its joins, if it has any; without it
    an index is made of `tables`, the manifests of the joined datasets' rows.

    Raises:
        UserError: the format or the meaning of labels is not clear, or a file is missing or damaged.
    """
    parts = StoredDataset.read(manifest).parts[settings.part :: settings.parts]
    total, characters = sum(entry.rows for entry in parts), sum(entry.characters for entry in parts)
    conversion = _Conversion(dataset, settings, CandidateWriter(out, total, characters), RejectWriter(out))
    with _reading(settings, join_index, tables, out) as read, progress(f"{dataset}: rows", total=total) as bar:
        chosen = choose_format(dataset, settings, manifest, read)

        def stored() -> Iterator[StoredRow]:
            for row in read_stored_rows(manifest, (settings.part, settings.parts)):
                yield row
                bar.update(1)

        rows, positions = conversion.readable(stored(), read), settings.scoring is not None
        if chosen.format in GROUPED:
            buckets = Buckets(out / ".groups", arrow_schema(GroupedRow), bucket_count(total, characters))
            conversion.convert_groups(rows, grouping(chosen, positions), buckets)
        else:
            conversion.convert_rows(rows, converter(chosen, positions))
    return conversion.close(chosen.format)


def choose_format(dataset: str, settings: ConvertSettings, manifest: Path, read: Reading) -> FormatSettings:
    """How to read a dataset's rows: what the settings say, completed by what its first rows state.

    Raises:
        UserError: what is not clear, and what to set.
    """
    first: StoredRow | None = None
    records: list[Record] = []
    for row in read_stored_rows(manifest):
        if row.record:
            with suppress(Reject):
                records.append(read(json.loads(row.record)))
                first = first or row
        if len(records) == FIRST_ROWS:
            break
    chosen, explanation = choose(records, settings)
    if chosen is not None:
        log.info("%s: %s%s", dataset, explanation, _stated_values(chosen, settings))
        return chosen
    where = "none of its rows is readable" + (" and passes `where`" if settings.where else "")
    if first and first.record:
        keys = ", ".join(json.loads(first.record))
        where = f"{first.file}:{first.row} has the keys {keys}; {explanation}"
    what = "format" if settings.format == "auto" else "coding"
    raise UserError(f"{dataset}: its {what} is not clear: {where}")


def _stated_values(chosen: FormatSettings, settings: FormatSettings) -> str:
    """What the first rows say that labels mean, as part of a sentence."""
    if chosen.values == settings.values:
        return ""
    numbers = {side: list(filter(is_number, label_texts(labels))) for side, labels in chosen.values.items()}
    stated = ", ".join(f"{side} {' or '.join(labels)}" for side, labels in numbers.items() if labels)
    return f"; by its first rows: {stated or chosen.values}"


@contextmanager
def _reading(
    settings: ConvertSettings, join_index: Path | None, tables: Sequence[Path], out: Path
) -> Iterator[Reading]:
    """What replaces the ids of a row, and rejects a row that `where` excludes."""
    keep = row_filter(settings.where)
    if not settings.join:
        yield keep
        return
    if join_index is None:
        index_joins(settings.narrow(JoinIndexSettings), tables, out)
    with (
        JoinIndex(settings.join, out / FILE)
        if join_index is None
        else JoinIndex.open(settings.join, join_index) as index
    ):
        yield lambda record: keep(index.join(record))
    if join_index is None:
        (out / FILE).unlink()


class _Conversion:
    """Turns rows into candidates, counts them, and records what is left out."""

    def __init__(self, dataset: str, settings: ConvertSettings, writer: CandidateWriter, rejects: RejectWriter) -> None:
        self._dataset, self._settings, self._writer, self._rejects = dataset, settings, writer, rejects
        self._rows_in = 0
        self._rejected: Counter[str] = Counter()
        self._rejected_pairs: Counter[str] = Counter()

    def close(self, format_name: str) -> CandidatesManifest:
        """Finish the files; what the manifest says of them."""
        self._writer.close()
        rejected = ", ".join(f"{reason} {n}" for reason, n in sorted(self._rejected.items())) or "nothing"
        message = "%s: %d rows, %d candidates; left out: %s"
        log.info(message, self._dataset, self._rows_in, self._writer.rows, rejected)
        return CandidatesManifest(
            dataset=self._dataset,
            format=format_name,
            rows_in=self._rows_in,
            candidates=self._writer.rows,
            characters=self._writer.characters,
            rejects=dict(sorted(self._rejected.items())),
            pair_rejects=dict(sorted(self._rejected_pairs.items())),
            reject_examples=self._rejects.close(),
        )

    def readable(self, rows: Iterable[StoredRow], read: Reading) -> Iterator[_Located]:
        """Each readable row with its location; `read` completes it."""
        for row in rows:
            self._rows_in += 1
            location: RowLocation = {"file": row.file, "row": row.row}
            try:
                if row.record is None:
                    raise Reject("unreadable", row.error or "")
                yield location, read(json.loads(row.record))
            except Reject as reject:
                self._reject(location, reject)

    def convert_rows(self, rows: Iterable[_Located], convert_row: Callable[[Record], RowPairs]) -> None:
        """Convert rows one by one."""
        for location, record in rows:
            try:
                self._add([location], convert_row(record))
            except Reject as reject:
                self._reject(location, reject)

    def convert_groups(self, rows: Iterable[_Located], grouping: Grouping, buckets: Buckets) -> None:
        """Convert rows in groups, which are put together on disk."""
        for location, record in rows:
            try:
                key = grouping.key(record)
            except Reject as reject:
                self._reject(location, reject)
            else:
                buckets.add(hash_id(key), {"key": key, **location, "record": json.dumps(record, ensure_ascii=False)})
        for bucket in buckets.drain():
            bucket.sort(key=itemgetter("key", "file", "row"))
            for _, members in groupby(bucket, key=itemgetter("key")):
                self._convert_group(cast(list[GroupedRow], list(members)), grouping)

    def _convert_group(self, members: Sequence[GroupedRow], grouping: Grouping) -> None:
        locations: list[RowLocation] = [{"file": row["file"], "row": row["row"]} for row in members]
        try:
            pairs = grouping.convert([json.loads(row["record"]) for row in members])
            unused = pairs.unused
            self._add(locations, pairs, pairs.rows)
        except GroupReject as reject:
            unused = reject.unused
        for index, reason in unused.items():
            self._reject(locations[index], reason)

    def _add(self, locations: Sequence[RowLocation], pairs: RowPairs, rows_of_pairs: Sequence[Rows] = ()) -> None:
        """Write the candidates of one row, or of a group of rows; `rows_of_pairs` says which rows give which pair."""
        for reason, count in pairs.skipped.items():
            self._reject_pairs(count, locations[0], Reject(reason, "one of the pairs that the row could give"))
        low, high = self._settings.share
        inside: set[int] = set()
        outside: list[Rows] = []
        for pair, rows in zip(pairs, rows_of_pairs or [(0,)] * len(pairs), strict=True):
            prompt: list[Message] = [{"role": turn["role"], "content": turn["content"]} for turn in pair.prompt]
            prompt_id = prompt_identity(prompt)
            if (low, high) != (0, 1) and not low <= unit_interval_hash("share", prompt_id) < high:
                outside.append(rows)
                continue
            inside.update(rows)
            self._check_published(locations[rows[0]], pair)
            first, *others = sorted((locations[row] for row in rows), key=itemgetter("file", "row"))
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
                    place=pair.place,
                )
            )
        reject = Reject("outside_share", f"its prompt is outside the share [{low}, {high}]")
        unused = sorted({row for rows in outside for row in rows} - inside)
        for row in unused:
            self._reject(locations[row], reject)
        # A row that gives nothing counts for its first pair; its other pairs are counted as pairs.
        self._reject_pairs(len(outside) - len(unused), locations[0], reject)

    def _check_published(self, location: RowLocation, pair: PreferencePair) -> None:
        """Stop at a row that does not belong to the benchmark whose scoring is set."""
        if self._settings.scoring and pair.place:
            subset = self._settings.subset or pair.subset
            problem = mismatch(self._settings.scoring, subset, pair.place["item"], pair.place["answers"])
            if problem:
                raise UserError(f"{self._dataset}: {location['file']}:{location['row']}: {problem}")

    def _reject(self, location: RowLocation, reject: Reject) -> None:
        """Count a row that gives no pair; stop where it contradicts what the first rows say that numbers mean."""
        if reject.reason == "unknown_code" and not self._settings.values:
            where = f"{self._dataset}: {location['file']}:{location['row']}"
            raise UserError(f"{where}: {reject.detail} The first {FIRST_ROWS} rows have no such number")
        self._rejected[reject.reason] += 1
        self._rejects.add(self._dataset, **location, reason=reject.reason, detail=reject.detail)

    def _reject_pairs(self, count: int, location: RowLocation, reject: Reject) -> None:
        """Count pairs that are left out of rows that are counted otherwise."""
        for _ in range(count):
            self._rejected_pairs[reject.reason] += 1
            self._rejects.add(self._dataset, **location, reason=reject.reason, detail=reject.detail)

"""Conversion of a dataset's rows, or of a part of them, to candidate pairs."""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Final, TypedDict, cast

from rewardline.core.errors import UserError, listing
from rewardline.core.progress import progress
from rewardline.data.conversation import Reject
from rewardline.data.formats.attributes import attribute_converter, attribute_grouping
from rewardline.data.formats.detect import choose, numbered
from rewardline.data.formats.drafts import RowPairs
from rewardline.data.formats.fields import Record, is_number, label_texts, row_filter
from rewardline.data.formats.grouped import Grouping, GroupReject
from rewardline.data.formats.joins import FILE, JoinIndex, index_joins
from rewardline.data.formats.plain import PlainPair, PlainReader
from rewardline.data.formats.plausibility import remarks, unread_texts
from rewardline.data.formats.registry import GROUPED, converter, grouping, plain_reader
from rewardline.data.formats.settings import ConvertSettings, FormatSettings, JoinIndexSettings
from rewardline.data.pairs.candidates import CandidateWriter, ComparedPrompt, canonical_prompt, compared
from rewardline.data.pairs.external_sort import Buckets, bucket_count
from rewardline.data.pairs.identity import hash_id, unit_interval_hash
from rewardline.data.pairs.manifests import CandidatesManifest
from rewardline.data.pairs.rejects import RejectWriter
from rewardline.data.ratings import RatingSurvey
from rewardline.data.schema import Candidate, Message, RowLocation, arrow_schema
from rewardline.data.sources.rows import parse
from rewardline.data.stored_rows import StoredDataset, StoredRow, read_stored_rows
from rewardline.data.turns import pack

log = logging.getLogger(__name__)
FIRST_ROWS: Final = 50
"""Rows that `format: auto` is decided by."""
FIRST_FILES: Final = 20
"""Files of a dataset, evenly spread, whose first rows say what numbers as labels mean."""
_PLAIN_ROWS, _PLAIN_CHARACTERS = 1_000, 4 << 20  # that are written at once
RowReader = Callable[[StoredRow], Record]
"""Reads a stored row; raises `Reject` for one that is not used."""
Converted = Iterator[tuple[Sequence[RowLocation], RowPairs]]
"""The locations of a row or of a group of rows, and its pairs."""


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
    numbered_rows: Sequence[Record],
    out: Path,
) -> CandidatesManifest:
    """Write the candidates of a dataset's part to the folder `out`.

    `manifest` is that of the dataset's rows. `join_index` is that of the index of its joins, if it has any; without it
    an index is made of `tables`, the manifests of the joined datasets' rows. `numbered_rows` are those of other files,
    see `read_numbered`.

    Raises:
        UserError: the format or the meaning of labels is not clear, or a file is missing or damaged.
    """
    parts = StoredDataset.read(manifest).parts[settings.part :: settings.parts]
    total, characters = sum(entry.rows for entry in parts), sum(entry.characters for entry in parts)
    writer = _Writer(dataset, settings, CandidateWriter(out, total, characters), RejectWriter(out))
    with _joining(settings, join_index, tables, out) as join, progress(f"{dataset}: rows", total=total) as bar:
        keep = row_filter(settings.where)

        def read(row: StoredRow) -> Record:
            if row.record is None:
                raise Reject("unreadable", row.error or "")
            return keep(join(parse(row.record)))

        def rows() -> Iterator[StoredRow]:
            for row in read_stored_rows(manifest, (settings.part, settings.parts)):
                yield row
                bar.update(1)

        chosen, found = choose_format(dataset, settings, manifest, read, numbered_rows)
        benchmark = settings.benchmark
        positions, each = benchmark is not None, benchmark is not None and benchmark.each_attribute
        if each and not chosen.attributes:
            raise UserError(f"{dataset}: which attributes? set `attributes: {{helpfulness: 1, correctness: 1}}`")
        if chosen.format in GROUPED:
            buckets = Buckets(out / ".groups", arrow_schema(GroupedRow), bucket_count(total, characters))
            groups = attribute_grouping(chosen) if each else grouping(chosen, positions)
            converted = _convert_groups(rows(), read, groups, buckets)
        else:
            convert_record = attribute_converter(chosen) if each else converter(chosen, positions)
            takes_all = benchmark is None and tuple(settings.share) == (0, 1)
            plain = plain_reader(chosen) if takes_all else None
            converted = _convert_rows(rows(), read, convert_record, plain, writer.add_plain)
        for locations, pairs in converted:
            writer.add(locations, pairs)
    return writer.close(chosen.format, total, found)


def read_numbered(settings: ConvertSettings, manifest: Path) -> list[Record]:
    """The rows that say what numbers as labels mean in all files of a dataset, whose manifest is given."""
    parts, keep = StoredDataset.read(manifest).parts, row_filter(settings.where)
    records: list[Record] = []
    for index in range(0, len(parts), -(-len(parts) // FIRST_FILES) or 1):
        for row in islice(read_stored_rows(manifest, (index, len(parts))), FIRST_ROWS):
            with suppress(Reject):
                records += [keep(parse(row.record))] if row.record is not None else []
    return numbered(records, settings)


def choose_format(
    dataset: str,
    settings: ConvertSettings,
    manifest: Path,
    read: RowReader,
    numbered_rows: Sequence[Record] = (),
) -> tuple[FormatSettings, list[str]]:
    """How to read a dataset's rows: what the settings say, completed by what its first rows state; and remarks on that.

    Raises:
        UserError: what is not clear, and what to set.
    """
    first: StoredRow | None = None
    records: list[Record] = []
    for row in read_stored_rows(manifest):
        with suppress(Reject):
            records.append(read(row))
            first = first or row
        if len(records) == FIRST_ROWS:
            break
    chosen, explanation = choose(records, settings, numbered_rows)
    if chosen is not None:
        unread = unread_texts(records, chosen)
        left = f"; columns of texts that are not read: {', '.join(unread)[:200]}" if unread else ""
        log.info("%s: %s%s%s", dataset, explanation, _stated_values(chosen, settings), left)
        found = remarks(records, chosen)
        for remark in found:
            log.warning("%s: %s", dataset, remark)
        return chosen, found
    where = "none of its rows is readable" + (" and passes `where`" if settings.where else "")
    if first and first.record:
        where = f"{first.file}:{first.row} has the keys {listing(parse(first.record))}; {explanation}"
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
def _joining(
    settings: ConvertSettings, join_index: Path | None, tables: Sequence[Path], out: Path
) -> Iterator[Callable[[Record], Record]]:
    """What replaces the ids in a row."""
    if not settings.join:
        yield lambda record: record
    elif join_index:
        with JoinIndex.open(settings.join, join_index) as index:
            yield index.join
    else:
        index_joins(settings.narrow(JoinIndexSettings), tables, out)
        with JoinIndex(settings.join, out / FILE) as index:
            yield index.join
        (out / FILE).unlink()


def _convert_rows(
    rows: Iterable[StoredRow],
    read: RowReader,
    convert_record: Callable[[Record], RowPairs],
    plain: PlainReader | None,
    add_plain: Callable[[StoredRow, PlainPair], None],
) -> Converted:
    """The pairs of rows by themselves; those of the reader `plain` go to `add_plain`."""
    for row in rows:
        try:
            record = read(row)
            if plain and (pair := plain.read(record)):
                add_plain(row, pair)
                continue
            pairs = convert_record(record)
        except Reject as reject:
            pairs = RowPairs(unused={0: reject.with_traceback(None)})
        yield [{"file": row.file, "row": row.row}], pairs


def _convert_groups(rows: Iterable[StoredRow], read: RowReader, grouping: Grouping, buckets: Buckets) -> Converted:
    """The pairs of rows in groups, which are collected on disk."""
    for row in rows:
        try:
            record = read(row)
            key = grouping.key(record)
        except Reject as reject:
            pairs = RowPairs(unused={0: reject.with_traceback(None)})
            yield [{"file": row.file, "row": row.row}], pairs
        else:
            text = json.dumps(record, ensure_ascii=False)
            buckets.add(hash_id(key), (key, row.file, row.row, text), len(key) + len(row.file) + len(text))
    for table in buckets.drain():
        bucket = cast(list[GroupedRow], table.to_pylist())
        bucket.sort(key=itemgetter("key", "file", "row"))
        for _, group in groupby(bucket, key=itemgetter("key")):
            members = list(group)
            try:
                pairs = grouping.convert([parse(row["record"]) for row in members])
            except GroupReject as reject:
                pairs = RowPairs(unused=reject.unused)
            yield [{"file": row["file"], "row": row["row"]} for row in members], pairs


class _Writer:
    """Writes candidates and what is left out, and counts them."""

    def __init__(self, dataset: str, settings: ConvertSettings, writer: CandidateWriter, rejects: RejectWriter) -> None:
        self._dataset, self._settings, self._writer, self._rejects = dataset, settings, writer, rejects
        self._rejected: Counter[str] = Counter()
        self._rejected_pairs: Counter[str] = Counter()
        self._changed: Counter[str] = Counter()
        self._prompt = "", compared([])
        self._plain: list[tuple[ComparedPrompt, str, int, str, str, str, float | None]] = []
        self._plain_characters = 0
        self._ratings = RatingSurvey(settings.ratings, is_stated=settings.scale is not None)

    def close(self, format_name: str, rows: int, found: list[str]) -> CandidatesManifest:
        """Finish the files; what the manifest says of them."""
        self._flush_plain()
        self._writer.close()
        rejected = ", ".join(f"{reason} {n}" for reason, n in sorted(self._rejected.items())) or "nothing"
        log.info("%s: %d rows, %d candidates; left out: %s", self._dataset, rows, self._writer.rows, rejected)
        for what, count in sorted(self._changed.items()):
            log.warning("%s: %s in %d rows", self._dataset, what, count)
        return CandidatesManifest(
            dataset=self._dataset,
            format=format_name,
            rows_in=rows,
            candidates=self._writer.rows,
            characters=self._writer.characters,
            rejects=dict(sorted(self._rejected.items())),
            pair_rejects=dict(sorted(self._rejected_pairs.items())),
            changed=dict(sorted(self._changed.items())),
            remarks=found,
            ratings=self._ratings.ranges(),
            reject_examples=self._rejects.close(),
        )

    def add_plain(self, row: StoredRow, pair: PlainPair) -> None:
        """Write the candidate of a row that has no other, where all prompts are taken: many at once, in columns."""
        text, identity = self._identify(pair.prompt)
        self._plain.append((identity, row.file, row.row, text, pair.chosen, pair.rejected, pair.margin))
        self._plain_characters += len(text) + len(pair.chosen) + len(pair.rejected)
        if len(self._plain) >= _PLAIN_ROWS or self._plain_characters >= _PLAIN_CHARACTERS:
            self._flush_plain()

    def _flush_plain(self) -> None:
        if self._plain:
            prompts, *columns = zip(*self._plain, strict=True)
            names = "file", "row", "prompt", "chosen", "rejected", "margin"
            like = Candidate(
                0, "", "", "", None, 1.0, 1.0, self._settings.subset or self._dataset, self._dataset, "", 0
            )
            by_name = dict(zip(names, columns, strict=True))
            self._writer.add_columns(prompts, by_name, like, self._plain_characters)
        self._plain, self._plain_characters = [], 0

    def add(self, locations: Sequence[RowLocation], pairs: RowPairs) -> None:
        """Write the candidates of a row or of a group of rows."""
        if pairs.changed:
            self._changed[pairs.changed] += 1
        for reason, count in pairs.skipped.items():
            reject = Reject(reason, "one of the pairs that the row could give")
            self._reject(locations[0], reject, self._rejected_pairs, count)
        low, high = self._settings.share
        inside: set[int] = set()
        outside: list[Sequence[int]] = []
        benchmark = self._settings.benchmark
        head: RowLocation | None = None
        if benchmark is not None and pairs:  # the answers of a group are put together again by the row that all name
            contributing = (locations[row] for rows in pairs.rows for row in rows)
            head = min(contributing, key=itemgetter("file", "row"))
        for pair, rows in zip(pairs, pairs.rows, strict=True):
            turns: list[Message] = [{"role": turn["role"], "content": turn["content"]} for turn in pair.prompt]
            prompt, identity = self._identify(turns)
            if (low, high) != (0, 1) and not low <= unit_interval_hash("share", identity.prompt_id) < high:
                outside.append(rows)
                continue
            inside.update(rows)
            sources = [locations[row] for row in rows]
            if head is not None and head not in sources:
                sources.append(head)
            first, *others = sorted(sources, key=itemgetter("file", "row")) if len(sources) > 1 else sources
            subset = self._settings.subset or pair.subset
            if benchmark is not None and pair.place is not None:
                subset = subset or benchmark.subset_of(first["file"])
                if problem := benchmark.mismatch(subset, pair.place["item"], pair.place["answers"]):
                    raise UserError(f"{self._dataset} {first['file']}:{first['row']}: {problem}")
            candidate = Candidate(
                prompt_id=identity.prompt_id,
                prompt=prompt,
                chosen=pair.chosen,
                rejected=pair.rejected,
                margin=pair.margin,
                confidence=pair.confidence,
                weight=pair.weight,
                subset=subset or self._dataset,
                dataset=self._dataset,
                **first,
                others=others,
                chosen_source=pair.sources[0] or None,
                rejected_source=pair.sources[1] or None,
                place=pair.place,
                native=pack(pair.prompt, (pair.chosen, pair.rejected), pair.inputs),
                ratings=None if pair.ratings is None else [{"name": n, "value": value} for n, value in pair.ratings],
            )
            self._ratings.add(candidate.ratings, first["file"])
            self._writer.add(candidate, identity)
        if outside:
            reject = Reject("outside_share", f"its prompt is outside the share [{low}, {high}]")
            unused = sorted({row for rows in outside for row in rows} - inside)
            for row in unused:
                self._reject(locations[row], reject, self._rejected)
            # A row that gives nothing counts for its first pair; its other pairs are counted as pairs.
            self._reject(locations[0], reject, self._rejected_pairs, len(outside) - len(unused))
        for row, reject in pairs.unused.items():
            self._reject(locations[row], reject, self._rejected)

    def _identify(self, prompt: Sequence[Message]) -> tuple[str, ComparedPrompt]:
        """A prompt in canonical JSON, and what it is compared by, computed once for pairs that follow each other."""
        text = canonical_prompt(prompt)
        if text != self._prompt[0]:
            self._prompt = text, compared(prompt)
        return self._prompt

    def _reject(self, location: RowLocation, reject: Reject, counts: Counter[str], times: int = 1) -> None:
        """Count what is left out; stop at a row that contradicts what the first rows say that numbers mean."""
        if reject.reason == "unknown_code" and not self._settings.values:
            where = f"{self._dataset} {location['file']}:{location['row']}"
            raise UserError(f"{where}: {reject.detail} The first {FIRST_ROWS} rows have no such number")
        for _ in range(times):
            counts[reject.reason] += 1
            self._rejects.add(self._dataset, **location, reason=reject.reason, detail=reject.detail)

"""The scores of a dataset's rows, collected from their shards: all rows, the best answers, pairs for the next round."""

import heapq
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, islice
from operator import attrgetter
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.parquet as pq

from rewardline.core.errors import UserError
from rewardline.core.progress import progress
from rewardline.data.pairs.identity import prompt_identity
from rewardline.data.pairs.reserved_prompts import ReservedPrompts
from rewardline.data.parquet import PartWriter, read_typed_rows
from rewardline.data.schema import Message, arrow_schema
from rewardline.data.stored_rows import StoredDataset, StoredRow, read_stored_rows
from rewardline.data.typed_rows import ROWS_AT_ONCE, TypedColumns, record_of
from rewardline.scoring.manifests import ScoredAnswers
from rewardline.scoring.results import RowScores, ScoredRows
from rewardline.scoring.rows import PromptAnswers, parse_row
from rewardline.scoring.stage_settings import CollectSettings, NextPairs
from rewardline.scoring.stored_answers import AnswerStore, StoredAnswer, without_pair

SCORES, BEST, PAIRS = "scores.parquet", "best.parquet", "pairs.parquet"
_ONE_FILE = 2**62  # rows


@dataclass(frozen=True, slots=True)
class BestAnswer:
    """The best of the `answers` to a prompt, the first of several; `file`, `row` and `position` (from 0) say which.

    `native`: what the texts do not say, as in a pair; null if they say it all.
    """

    prompt_id: str
    prompt: list[Message]
    answer: str
    score: Annotated[float, pa.float32()]
    mean_score: float
    answers: int
    file: str
    row: int
    position: Annotated[int, pa.int32()]
    native: str | None


@dataclass(frozen=True, slots=True)
class NextPair:
    """A pair for the next round of training; `margin` is the difference of the scores."""

    prompt_id: str
    prompt: list[Message]
    chosen: str
    rejected: str
    margin: float
    chosen_score: Annotated[float, pa.float32()]
    rejected_score: Annotated[float, pa.float32()]


@dataclass(frozen=True, slots=True)
class CandidateAnswer(StoredAnswer):
    """An answer with its score."""

    score: Annotated[float, pa.float32()]


def collect(
    settings: CollectSettings,
    data: Path,
    shards: Sequence[Path],
    benchmarks: Sequence[Path],
    held_out: Sequence[Path],
    out: Path,
) -> ScoredAnswers:
    """Write the scored rows, the best answer to each prompt, and pairs if they are asked for, to `out`.

    `data` is the manifest of the rows, `shards` are those of their scores, in order. Pairs are made of no prompt of
    `benchmarks`, manifests of candidates, or of the pairs in the folders `held_out`.

    Raises:
        UserError: too many rows have no score, a new column has the name of one of the rows, or a file is damaged.
    """
    manifests = [ScoredRows.read(path) for path in shards]
    job = _Collection(settings, StoredDataset.read(data).rows, manifests[0].reads_names, out)
    with progress(f"collect {settings.name}", total=job.rows, unit="row") as bar:
        columns = TypedColumns(read_stored_rows(data))
        names = sorted({name for manifest in manifests for name in manifest.names})
        scored = chain.from_iterable(_scores(path.parent) for path in shards)
        with pq.ParquetWriter(
            out / SCORES, _with_scores(columns.schema, names, settings), compression="zstd"
        ) as writer:
            for rows, scores in _together(read_stored_rows(data), scored):
                writer.write_batch(job.add(rows, scores, columns, names, writer.schema))
                bar.update(len(rows))
    return job.finish(benchmarks, held_out, sum(manifest.cut for manifest in manifests))


def _scores(folder: Path) -> Iterator[RowScores]:
    return read_typed_rows(folder, RowScores)


def _together(
    rows: Iterable[StoredRow], scores: Iterable[RowScores]
) -> Iterator[tuple[list[StoredRow], list[RowScores]]]:
    both = zip(rows, scores, strict=True)
    while batch := list(islice(both, ROWS_AT_ONCE)):
        yield [row for row, _ in batch], [score for _, score in batch]


def _with_scores(schema: pa.Schema, names: Sequence[str], settings: CollectSettings) -> pa.Schema:
    """The schema of the rows, with the columns of scores."""
    for name in (*names, "error"):
        column = settings.prefix + name
        if column in schema.names:
            raise UserError(
                f"{settings.name}: the rows have a column `{column}` already; set scoring.{settings.name}.prefix, such "
                "as new_, for the names of the new columns"
            )
        kind = {"scores": pa.list_(pa.float32()), "error": pa.string()}.get(name, pa.float32())
        schema = schema.append(pa.field(column, kind))
    return schema


class _Collection:
    """What has been collected so far."""

    def __init__(self, settings: CollectSettings, rows: int, reads_names: bool, out: Path) -> None:
        self.rows = rows
        self._reads_names = reads_names
        self._settings, self._out = settings, out
        self._without: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
        has_pairs = settings.pairs is not None
        self._store = AnswerStore(settings.name, CandidateAnswer, rows, out, has_pairs=has_pairs)
        self._reserved: ReservedPrompts

    def add(
        self,
        rows: Sequence[StoredRow],
        scores: Sequence[RowScores],
        columns: TypedColumns,
        names: Sequence[str],
        schema: pa.Schema,
    ) -> pa.RecordBatch:
        """Some rows with their columns and scores."""
        records = [record_of(row) for row in rows]
        new = [self._scored(*one) for one in zip(rows, records, scores, strict=True)]
        kinds = [schema.field(self._settings.prefix + name).type for name in (*names, "error")]
        added = [
            pa.array([one.get(name) for one in new], kind) for name, kind in zip((*names, "error"), kinds, strict=True)
        ]
        return pa.RecordBatch.from_arrays([*columns.arrays(records), *added], schema=schema)

    def _scored(self, row: StoredRow, record: dict[str, object], scored: RowScores) -> dict[str, object]:
        """The new columns of a row; its answers are kept."""
        if scored.scores is None:
            return {"error": self._store.reject(row, scored)}
        parsed: PromptAnswers = parse_row(record, self._reads_names)
        self._store.add(row, parsed, scored.scores)
        return dict(parsed.named(scored.scores))

    def finish(self, benchmarks: Sequence[Path], held_out: Sequence[Path], cut: int) -> ScoredAnswers:
        """Write the best answers and the pairs; the manifest."""
        settings = self._settings
        best = PartWriter[BestAnswer](self._out, arrow_schema(BestAnswer), name=BEST, part_rows=_ONE_FILE)
        pairs = None
        if self._store.prompts is not None:
            rules = settings.near_duplicates, settings.decontamination
            self._reserved = ReservedPrompts(self._store.prompts, benchmarks, held_out, *rules)
            self._reserved.close()
            pairs = PartWriter[NextPair](self._out, arrow_schema(NextPair), name=PAIRS, part_rows=_ONE_FILE)
        prompts = distinct = made = 0
        total = best_total = 0.0
        for answers in self._store.by_prompt():
            first = max(answers, key=attrgetter("score"))  # the first of several
            mean = math.fsum(one.score for one in answers) / len(answers)
            turns: list[Message] = json.loads(first.prompt)
            prompt_id = prompt_identity(turns)
            name = f"{prompt_id:016x}"
            place = first.file, first.row, first.position, first.native or None
            best.add(BestAnswer(name, turns, first.answer, first.score, mean, len(answers), *place))
            prompts, distinct = prompts + 1, distinct + len(answers)
            total, best_total = total + mean * len(answers), best_total + first.score
            for better, worse in self._pairs(prompt_id, answers) if pairs else ():
                assert pairs is not None
                texts, scores = (better.answer, worse.answer), (better.score, worse.score)
                pairs.add(NextPair(name, turns, *texts, better.score - worse.score, *scores))
                made += 1
        best.close()
        if pairs is not None:
            pairs.close()
        self._store.close("scoring", settings.max_reject_fraction)
        return ScoredAnswers(
            name=settings.name,
            run=settings.run,
            rows=self.rows,
            rejects=dict(sorted(self._store.rejected.items())),
            answers=self._store.answers,
            prompts=prompts,
            cut=cut,
            changed=dict(sorted(self._store.changed.items())),
            score_mean=total / distinct if distinct else None,
            best_mean=best_total / prompts if prompts else None,
            pairs=None if pairs is None else made,
            without_pair=dict(sorted(self._without.items())),
            pairs_left_out={reason: count for reason, count in sorted(self._left_out.items()) if count},
        )

    def _pairs(
        self, prompt_id: int, answers: list[CandidateAnswer]
    ) -> Sequence[tuple[CandidateAnswer, CandidateAnswer]]:
        """The pairs that a prompt gives, those of the largest difference first; the reason is counted if none."""
        rule = self._settings.pairs or NextPairs()
        kept: Sequence[tuple[CandidateAnswer, CandidateAnswer]] = ()
        if found := without_pair(self._reserved, prompt_id, answers):
            reason, detail = found
        else:
            ranked = sorted(answers, key=lambda one: (-one.score, one.number))
            possible = [(ranked[0], ranked[-1])] if rule.pairing == "best_worst" else list(combinations(ranked, 2))
            unequal = [pair for pair in possible if _margin(pair) > 0]
            wide = [pair for pair in unequal if _margin(pair) >= (rule.min_margin or 0.0)]
            kept = heapq.nsmallest(rule.max_pairs or len(wide), wide, key=lambda pair: -_margin(pair))
            reason, detail = "small_margin", "the scores of its answers differ by less than min_margin"
            if not unequal:
                reason, detail = "tie", "its answers have equal scores"
            counts = {"tie": len(possible) - len(unequal), "small_margin": len(unequal) - len(wide)}
            if kept:
                self._left_out.update({**counts, "max_pairs": len(wide) - len(kept)})
        if not kept:
            self._without[reason] += 1
            first = answers[0]
            self._store.rejects.add(self._settings.name, first.file, first.row, reason, detail)
        return kept


def _margin(pair: tuple[CandidateAnswer, CandidateAnswer]) -> float:
    return pair[0].score - pair[1].score

"""The choice of the pairs to label next, in memory that grows with their number only."""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa

from rewardline.core.artifacts import read_manifest
from rewardline.core.progress import progress
from rewardline.data.pairs.identity import Hashes, content_id, id_range, prompt_identity
from rewardline.data.pairs.reserved_prompts import ReservedPrompts
from rewardline.data.parquet import read_rows, read_typed_rows
from rewardline.data.schema import Message
from rewardline.data.stored_rows import StoredDataset, StoredRow, read_stored_rows
from rewardline.data.typed_rows import record_of
from rewardline.scoring.manifests import PairsToLabel
from rewardline.scoring.results import RowScores, ScoredRows
from rewardline.scoring.rows import parse_row
from rewardline.scoring.stage_settings import ChooseSettings
from rewardline.scoring.stored_answers import AnswerStore, StoredAnswer, without_pair
from rewardline.scoring.to_label.acquisition import CRITERIA, Floats, probabilities

log = logging.getLogger(__name__)
PAIRS = "pairs.jsonl"
_WAITING = 10_000  # pairs, besides as many as are chosen


@dataclass(frozen=True, slots=True)
class MemberAnswer(StoredAnswer):
    """An answer with the score of each member."""

    scores: Annotated[list[float], pa.list_(pa.float32())]


@dataclass(frozen=True, slots=True)
class PossiblePair:
    """A pair of answers; `members`: the probability of each member that `first` is better."""

    pair_id: str
    group: int
    acquisition: float
    members: list[float]
    first: MemberAnswer
    second: MemberAnswer


def scale_of(model: Path) -> float:
    """The factor that turns differences of a model's scores into log odds; `model`: its `run.json`."""
    normalization = read_manifest(model).get("normalization")
    return 1.0 if normalization is None else float(normalization["std"])


def choose(
    settings: ChooseSettings,
    data: Path,
    shards: Sequence[Path],
    scales: Sequence[float],
    benchmarks: Sequence[Path],
    pairs: Sequence[Path],
    out: Path,
) -> PairsToLabel:
    """Write the chosen pairs to `pairs.jsonl` in `out`, and what gives none to `rejects.parquet`.

    `data` is the manifest of the rows, `shards` are those of their scores: all of the first member in order, then those
    of the next; `scales`: of each member, by `scale_of`. No pair is of a prompt of `benchmarks`, manifests of
    candidates, or of the eval split in the folders `pairs`, and none is among the pairs of their training splits.

    Raises:
        UserError: too many rows have no score, or a file is damaged.
    """
    each = len(shards) // len(settings.runs)
    members = [shards[start : start + each] for start in range(0, len(shards), each)]
    manifests = [[ScoredRows.read(path) for path in own] for own in members]
    job = _Choice(settings, StoredDataset.read(data).rows, manifests[0][0].reads_names, out)
    cut = max(sum(one.cut for one in own) for own in manifests)
    scores = [chain.from_iterable(read_typed_rows(path.parent, RowScores) for path in own) for own in members]
    with progress(f"read {settings.name}", total=job.rows, unit="row") as bar:
        for row, *of_row in zip(read_stored_rows(data), *scores, strict=True):
            job.add(row, of_row)
            bar.update(1)
    return job.finish(np.array(scales), benchmarks, pairs, cut)


class _Choice:
    """What has been read so far."""

    def __init__(self, settings: ChooseSettings, rows: int, reads_names: bool, out: Path) -> None:
        self.rows = rows
        self._reads_names = reads_names
        self._settings, self._out = settings, out
        self._without, self._left_out = Counter[str](), Counter[str]()
        self._store = AnswerStore(settings.name, MemberAnswer, rows, out)

    def add(self, row: StoredRow, scores: Sequence[RowScores]) -> None:
        """A row with what each member says of it."""
        if (lost := next((one for one in scores if one.scores is None), None)) is not None:
            self._store.reject(row, lost)
            return
        by_answer = zip(*(one.scores or () for one in scores), strict=True)
        self._store.add(row, parse_row(record_of(row), self._reads_names), map(list, by_answer))

    def finish(self, scales: Floats, benchmarks: Sequence[Path], pairs: Sequence[Path], cut: int) -> PairsToLabel:
        """Write the chosen pairs; the manifest."""
        settings = self._settings
        held_out = [folder / "eval" for folder in pairs]
        rules = settings.near_duplicates, settings.decontamination
        assert self._store.prompts is not None
        reserved = ReservedPrompts(self._store.prompts, benchmarks, held_out, *rules)
        groups, labeled = reserved.similar(), _ids_of([folder / "train" for folder in pairs])
        reserved.close()
        best, prompts = _Best(settings.number, settings.per_prompt, self._left_out), 0
        for answers in self._store.by_prompt():
            prompts += 1
            turns: list[Message] = json.loads(answers[0].prompt)
            prompt_id = prompt_identity(turns)
            reason = without_pair(reserved, prompt_id, answers)
            if reason is None:
                possible = list(self._possible(answers, scales, groups.get(prompt_id, prompt_id)))
                found = sorted((one for one in possible if not _is_among(one, labeled)), key=_most_first)
                for pair in found[: settings.per_prompt]:
                    best.add(pair)
                self._left_out["per_prompt"] += len(found[settings.per_prompt :])
                if found:
                    self._left_out["labeled"] += len(possible) - len(found)
                else:
                    reason = "labeled", "all pairs of its answers are among the training pairs"
            if reason is not None:
                self._without[reason[0]] += 1
                self._store.rejects.add(settings.name, answers[0].file, answers[0].row, *reason)
        chosen = best.take()
        _write(self._out / PAIRS, chosen, settings.runs)
        self._store.close("to_label", settings.max_reject_fraction)
        log.info("%d pairs of %d prompts", len(chosen), prompts)
        return PairsToLabel(
            name=settings.name,
            runs=settings.runs,
            by=settings.by,
            rows=self.rows,
            rejects=dict(sorted(self._store.rejected.items())),
            answers=self._store.answers,
            prompts=prompts,
            cut=cut,
            changed=dict(sorted(self._store.changed.items())),
            pairs=len(chosen),
            without_pair=dict(sorted(self._without.items())),
            left_out={reason: count for reason, count in sorted(self._left_out.items()) if count},
        )

    def _possible(self, answers: Sequence[MemberAnswer], scales: Floats, group: int) -> Iterator[PossiblePair]:
        """All pairs of the answers to a prompt, with their acquisition. Which answer is first is a matter of chance."""
        scores: Floats = np.array([one.scores for one in answers], dtype=np.float64) * scales
        pairs = [self._ordered(answers, *pair) for pair in combinations(range(len(answers)), 2)]
        members = probabilities(scores[[one for _, one, _ in pairs]] - scores[[two for *_, two in pairs]]).T
        for (pair_id, one, two), each, value in zip(
            pairs, members.T.tolist(), CRITERIA[self._settings.by](members).tolist(), strict=True
        ):
            yield PossiblePair(pair_id, group, value, each, answers[one], answers[two])

    def _ordered(self, answers: Sequence[MemberAnswer], one: int, two: int) -> tuple[str, int, int]:
        """A pair in the order of the hashes that it has as a labeled pair; the id of that."""
        orders = ((one, two), (two, one))
        return min((content_id(answers[a].prompt, answers[a].answer, answers[b].answer, None), a, b) for a, b in orders)


def _most_first(pair: PossiblePair) -> tuple[float, str]:
    return -pair.acquisition, pair.pair_id


class _Best:
    """The `number` pairs of the highest acquisition, of which similar prompts have `per_group` together.

    Pairs that cannot be among them, whatever is still to come, are counted in `left_out`.
    """

    def __init__(self, number: int, per_group: int, left_out: Counter[str]) -> None:
        self._number, self._per_group, self._left_out = number, per_group, left_out
        self._kept: list[PossiblePair] = []

    def add(self, pair: PossiblePair) -> None:
        """Add a pair."""
        self._kept.append(pair)
        if len(self._kept) > self._number + _WAITING:
            self._kept = self.take()

    def take(self) -> list[PossiblePair]:
        """The best of the pairs so far, the best one first."""
        taken, in_group = list[PossiblePair](), Counter[int]()
        for pair in sorted(self._kept, key=_most_first):
            if in_group[pair.group] == self._per_group:
                self._left_out["similar_prompt"] += 1
            elif len(taken) == self._number:
                self._left_out["number"] += 1
            else:
                in_group[pair.group] += 1
                taken.append(pair)
        return taken


def _ids_of(folders: Sequence[Path]) -> Hashes:
    """The ids of the pairs in folders, uint64 [n], ascending."""
    ids = (int(str(row["pair_id"]), 16) for folder in folders for row in read_rows(folder, ["pair_id"]))
    return np.unique(np.fromiter(ids, np.uint64))


def _is_among(pair: PossiblePair, labeled: Hashes) -> bool:
    """Whether a pair has a label, for whichever answer."""
    other = content_id(pair.first.prompt, pair.second.answer, pair.first.answer, None)
    places = (id_range(labeled, number, number + 1) for number in (int(pair.pair_id, 16), int(other, 16)))
    return any(start < end for start, end in places)


def _write(path: Path, pairs: Sequence[PossiblePair], runs: Sequence[str]) -> None:
    """Write a line for each pair; prompts are texts where all of them are one turn of the user."""
    prompts: list[list[Message]] = [json.loads(one.first.prompt) for one in pairs]
    are_texts = all([turn["role"] for turn in turns] == ["user"] for turns in prompts)
    with path.open("w", encoding="utf-8") as file:
        for pair, turns in zip(pairs, prompts, strict=True):
            line = {
                "id": pair.pair_id,
                "prompt": turns[0]["content"] if are_texts else turns,
                "answer_a": pair.first.answer,
                "answer_b": pair.second.answer,
                "acquisition": pair.acquisition,
                "probabilities": dict(zip(runs, pair.members, strict=True)),
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
